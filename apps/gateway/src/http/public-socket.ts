// The socket of `ws`, with what the gateway knows of it.
import { WebSocket } from 'ws'
import type { Connection } from '../sockets/connection.ts'

export class PublicSocket extends WebSocket {
  /** After a cut the event tells 1006 only. */
  closedWith: number | undefined
  /** Its listeners are the same for all sockets, and find what they are about here. */
  connection: Connection | undefined

  override close(code?: number, reason?: string | Buffer): void {
    this.closedWith ??= code
    super.close(code, reason)
  }
}
