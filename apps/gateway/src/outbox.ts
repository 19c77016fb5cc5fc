// What waits to go to one socket: everything of one tick goes out as one frame, in order. Above the soft limit nothing
// more is handed to the socket, and what waits is folded; above the hard limit the socket is cut, and its client resumes
// by cursor. One slow socket costs the others nothing.
import type { WebSocket } from 'ws'
import { folded, type Told, textOf } from './told.ts'

/** Bytes handed to the socket and not taken by the system, above which the rest waits here. */
const SOFT_LIMIT_BYTES = 262_144
/** Bytes that may wait here, after folding. */
const HARD_LIMIT_BYTES = 1_048_576
/** Milliseconds that anything may wait. */
const HARD_LIMIT_MS = 10_000
/** Characters of one frame that holds several messages: some clients refuse frames above 1 MiB. */
const FRAME_CHARS = 262_144

interface Waiting {
  message: string | Told
  bytes: number
  /** The client asked for it: it is bounded where it is read, and does not count against the hard limit. */
  asked: boolean
  /** When it came, or the first of what was merged into it. */
  at: number
}

type Socket = Pick<WebSocket, 'readyState' | 'OPEN' | 'bufferedAmount'> & {
  send(text: string, done: (error?: Error | null) => void): void
}

export class Outbox {
  private readonly socket: Socket
  private readonly onSlow: () => void
  private readonly onDrained: () => void
  private queue: Waiting[] = []
  private scheduled: NodeJS.Immediate | undefined
  /** When the oldest of each frame came that the system has not taken yet. */
  private readonly inFlight: number[] = []
  private ageing: NodeJS.Timeout | undefined

  /** `onSlow`: the socket is to be cut. `onDrained`: there is room again. */
  constructor(socket: Socket, onSlow: () => void, onDrained: () => void) {
    this.socket = socket
    this.onSlow = onSlow
    this.onDrained = onDrained
  }

  push(message: string | Told, asked = false): void {
    const bytes = typeof message === 'string' ? Buffer.byteLength(message) : message.bytes + 128
    this.queue.push({ message, bytes, asked, at: performance.now() })
    this.scheduled ??= setImmediate(() => this.flush())
  }

  /** Whether more may be asked for: what waits is below the soft limit. */
  get hasRoom(): boolean {
    return this.queuedBytes < SOFT_LIMIT_BYTES
  }

  get queuedBytes(): number {
    return this.socket.bufferedAmount + bytesOf(this.queue)
  }

  /** Hands to the socket what it takes; all of it before a close. */
  flush(closing = false): void {
    clearImmediate(this.scheduled)
    this.scheduled = undefined
    if (this.socket.readyState !== this.socket.OPEN) {
      this.stop()
      return
    }
    // Who asked for the latest progress only gets the last of each tick.
    if (this.queue.some(({ message }) => typeof message !== 'string' && message.latest))
      this.fold((told) => told.latest)
    let sent = 0
    while (sent < this.queue.length && (closing || this.socket.bufferedAmount < SOFT_LIMIT_BYTES)) {
      const texts: string[] = []
      const oldest = this.queue[sent] as Waiting
      for (let chars = 0; sent < this.queue.length; sent++) {
        const { message } = this.queue[sent] as Waiting
        const text = typeof message === 'string' ? message : textOf(message)
        chars += text.length
        if (texts.length > 0 && chars > FRAME_CHARS) break
        texts.push(text)
      }
      this.inFlight.push(oldest.at)
      this.socket.send(texts.length === 1 ? (texts[0] as string) : `[${texts.join(',')}]`, () => this.taken())
    }
    this.queue.splice(0, sent)
    if (this.queue.length > 0) {
      this.fold(() => true)
      if (bytesOf(this.queue.filter(({ asked }) => !asked)) > HARD_LIMIT_BYTES) {
        this.onSlow()
        return
      }
    }
    if (this.inFlight.length > 0) this.ageing ??= setTimeout(() => this.age(), HARD_LIMIT_MS)
  }

  /** Forgets what waits: the socket is gone. */
  stop(): void {
    clearImmediate(this.scheduled)
    clearTimeout(this.ageing)
    this.scheduled = this.ageing = undefined
    this.queue = []
  }

  private fold(which: (told: Told) => boolean): void {
    this.queue = folded<Waiting>(
      this.queue,
      ({ message, asked }) => (typeof message !== 'string' && !asked && which(message) ? message : null),
      (told, { at }) => ({ message: told, bytes: told.bytes + 128, asked: false, at }),
    )
  }

  /** The system took a frame. */
  private taken(): void {
    this.inFlight.shift()
    if (this.socket.readyState !== this.socket.OPEN) return
    if (this.queue.length > 0 && !this.scheduled) this.flush()
    if (this.inFlight.length === 0) {
      clearTimeout(this.ageing)
      this.ageing = undefined
    }
    if (this.hasRoom) this.onDrained()
  }

  /** A socket that takes frames is not stuck, however busy; only the age of the oldest one tells. */
  private age(): void {
    this.ageing = undefined
    const oldest = this.inFlight[0]
    if (oldest === undefined) return
    const leftMs = HARD_LIMIT_MS - (performance.now() - oldest)
    if (leftMs <= 0) this.onSlow()
    else this.ageing = setTimeout(() => this.age(), leftMs)
  }
}

const bytesOf = (queue: Waiting[]): number => queue.reduce((sum, { bytes }) => sum + bytes, 0)
