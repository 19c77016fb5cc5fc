// What waits to go to one socket: everything of one tick goes out as one frame, in order. A socket that does not read
// is cut before its backlog hurts anyone else.
import type { WebSocket } from 'ws'

/** Bytes a socket may fall behind before it is cut; its client resumes by cursor. */
const HARD_LIMIT_BYTES = 1_048_576
/** Milliseconds a socket may hold unsent bytes. */
const HARD_LIMIT_MS = 10_000

export class Outbox {
  private readonly socket: WebSocket
  private readonly onSlow: () => void
  private waiting: string[] = []
  private scheduled = false
  private behindSince: number | undefined

  constructor(socket: WebSocket, onSlow: () => void) {
    this.socket = socket
    this.onSlow = onSlow
  }

  /** Takes the JSON text of one message. */
  push(text: string): void {
    this.waiting.push(text)
    if (this.scheduled) return
    this.scheduled = true
    setImmediate(() => this.flush())
  }

  flush(): void {
    this.scheduled = false
    const messages = this.waiting
    if (messages.length === 0 || this.socket.readyState !== this.socket.OPEN) {
      this.waiting = []
      return
    }
    this.waiting = []
    if (this.tooFarBehind()) {
      this.onSlow()
      return
    }
    this.socket.send(messages.length === 1 ? (messages[0] as string) : `[${messages.join(',')}]`)
  }

  /** Whether the socket has been behind for too much or too long. */
  tooFarBehind(): boolean {
    const behind = this.socket.bufferedAmount
    if (behind === 0) this.behindSince = undefined
    else this.behindSince ??= performance.now()
    return (
      behind > HARD_LIMIT_BYTES ||
      (this.behindSince !== undefined && performance.now() - this.behindSince > HARD_LIMIT_MS)
    )
  }
}
