// A WebSocket of a client, as the gateway needs it beyond what `ws` offers.
import { WebSocket } from 'ws'
import type { Outlet } from './outbox.ts'
import type { Packet } from './packet.ts'

/**
 * The connection below, which `ws` keeps to itself: it takes a frame made once for many sockets, at less than half the cost
 * of `send`. Without compression `ws` holds nothing back that could be overtaken.
 */
interface Below {
  readonly _socket: { write(frame: Buffer): unknown }
}

export class PublicSocket extends WebSocket implements Outlet {
  /** What it was closed with: after a cut the event tells 1006 only. */
  closedWith: number | undefined

  override close(code?: number, reason?: string | Buffer): void {
    this.closedWith ??= code
    super.close(code, reason)
  }

  put({ frame }: Packet): number {
    ;(this as unknown as Below)._socket.write(frame)
    return frame.length
  }
}
