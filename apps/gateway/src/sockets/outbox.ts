// What waits to go to one socket: everything of one round goes out as one frame, in order. Above the soft limit nothing
// more is handed to the socket, and what waits is folded; above the hard limit the socket is cut, and its client resumes
// by cursor. One slow socket costs the others nothing.
import type { WebSocket } from 'ws'
import { folded, type Told, textOf } from '../rooms/told.ts'
import { frameOf } from './frame.ts'
import { type Rounds, rounds, type Sender } from './rounds.ts'

/** Bytes handed to the socket and not taken by the system, above which the rest waits here. */
const SOFT_LIMIT_BYTES = 262_144
/** Bytes that may wait here, after folding. */
const HARD_LIMIT_BYTES = 1_048_576
/** Milliseconds that anything may wait. */
const HARD_LIMIT_MS = 10_000
/** Characters of one frame that holds several messages: some clients refuse frames above 1 MiB. */
const FRAME_CHARS = 262_144

export interface Waiting {
  message: string | Told
  bytes: number
  /** The client asked for it: it is bounded where it is read, and does not count against the hard limit. */
  asked: boolean
  /** When it came, or the first of what was merged into it. */
  at: number
}

/**
 * A WebSocket, and the connection below it, which `ws` keeps to itself: it takes frames made once for many sockets, at
 * half the cost of `send`, and without compression there is nothing that could come between.
 */
type Socket = Pick<WebSocket, 'readyState' | 'OPEN' | 'bufferedAmount'> & {
  readonly _socket: { write(frame: Buffer): unknown }
}

/** Whose socket it is. */
export interface Owner {
  /** The socket takes too little for too long, or too many bytes wait for it: it is to be cut. */
  slow(): void
  /** There is room again. */
  drained(): void
}

/** An empty queue, for the many that have nothing to say at the moment. */
const NOTHING: Waiting[] = []

export class Outbox implements Sender {
  private readonly socket: Socket
  private readonly owner: Owner
  private readonly rounds: Rounds
  private readonly frames: Frames
  private queue = NOTHING
  private waitingBytes = 0
  private planned = false
  /** Bytes handed to the socket so far; and, where it lags, at which of them which frame ends and when its first came. */
  private written = 0
  private inFlight: { end: number; at: number }[] | undefined

  constructor(
    socket: Pick<WebSocket, 'readyState' | 'OPEN' | 'bufferedAmount'>,
    owner: Owner,
    { of = rounds, frames = webSocketFrames } = {},
  ) {
    this.socket = socket as Socket
    this.owner = owner
    this.rounds = of
    this.frames = frames
  }

  push(message: string | Told, asked = false): void {
    const bytes = typeof message === 'string' ? Buffer.byteLength(message) : message.bytes + 128
    const waiting = { message, bytes, asked, at: performance.now() }
    if (this.queue === NOTHING) this.queue = [waiting]
    else this.queue.push(waiting)
    this.waitingBytes += bytes
    if (this.planned) return
    this.planned = true
    this.rounds.send(this)
  }

  /** Goes out before anything else, and with what the socket holds back at the moment: the answer to its upgrade. */
  greet(message: string): void {
    const frame = this.frames.encode(message, [], 0, 0)
    this.socket._socket.write(frame)
    this.written += frame.length
  }

  /** Whether more may be asked for: what waits is below the soft limit. */
  get hasRoom(): boolean {
    return this.queuedBytes < SOFT_LIMIT_BYTES
  }

  get queuedBytes(): number {
    return this.socket.bufferedAmount + this.waitingBytes
  }

  /** Hands to the socket what it takes; all of it before a close. */
  flush(closing = false): void {
    this.planned = false
    const { socket } = this
    if (socket.readyState !== socket.OPEN) {
      this.stop()
      return
    }
    const full = !this.hasRoom
    // Who asked for the latest progress only gets the last of each round; which may make room, too.
    if (this.queue.some(({ message }) => typeof message !== 'string' && message.latest))
      this.fold((told) => told.latest)
    const { queue } = this
    let sent = 0
    while (sent < queue.length && (closing || socket.bufferedAmount < SOFT_LIMIT_BYTES)) {
      const first = sent
      for (let chars = 0; sent < queue.length; sent++) {
        const { message } = queue[sent] as Waiting
        chars += typeof message === 'string' ? message.length : message.bytes
        if (sent > first && chars > FRAME_CHARS) break
      }
      const frame = this.frames.of(queue, first, sent)
      socket._socket.write(frame)
      this.written += frame.length
      // What the system took at once is done with.
      if (this.inFlight || socket.bufferedAmount > 0) {
        this.inFlight ??= []
        this.inFlight.push({ end: this.written, at: (queue[first] as Waiting).at })
      }
    }
    if (sent === queue.length) {
      this.queue = NOTHING
      this.waitingBytes = 0
    } else {
      queue.splice(0, sent)
      this.fold(() => true)
      if (bytesOf(this.queue.filter(({ asked }) => !asked)) > HARD_LIMIT_BYTES) {
        this.owner.slow()
        return
      }
    }
    if (this.inFlight) this.rounds.lag(this)
    else if (full && this.hasRoom) this.owner.drained()
  }

  /** A socket that takes frames is not stuck, however busy; only the age of the oldest one tells. */
  look(now: number): boolean {
    const { socket, inFlight } = this
    if (!inFlight || socket.readyState !== socket.OPEN) return false
    const taken = this.written - socket.bufferedAmount
    while (inFlight[0] && inFlight[0].end <= taken) inFlight.shift()
    const oldest = inFlight[0]
    if (oldest && now - oldest.at >= HARD_LIMIT_MS) {
      this.owner.slow()
      return false
    }
    if (!oldest) this.inFlight = undefined
    if (this.queue.length > 0 && !this.planned) this.flush()
    if (this.hasRoom) this.owner.drained()
    return this.inFlight !== undefined
  }

  cut(): void {
    this.owner.slow()
  }

  /** Forgets what waits: the socket is gone. */
  stop(): void {
    this.rounds.forget(this)
    this.queue = NOTHING
    this.waitingBytes = 0
    this.inFlight = undefined
  }

  private fold(which: (told: Told) => boolean): void {
    this.queue = folded<Waiting>(
      this.queue,
      ({ message, asked }) => (typeof message !== 'string' && !asked && which(message) ? message : null),
      (told, { at }) => ({ message: told, bytes: told.bytes + 128, asked: false, at }),
    )
    this.waitingBytes = bytesOf(this.queue)
  }
}

const textOfMessage = ({ message }: Waiting): string =>
  typeof message === 'string' ? message : textOf(message)

const textOfAll = (queue: Waiting[], from: number, to: number): string => {
  if (to === from + 1) return textOfMessage(queue[from] as Waiting)
  const texts: string[] = []
  for (let i = from; i < to; i++) texts.push(textOfMessage(queue[i] as Waiting))
  return `[${texts.join(',')}]`
}

/** The bytes of one JSON text: a message, or an array of those that stand at `from` to `to`, exclusive, of the queue. */
type Encode = (text: string, queue: readonly Waiting[], from: number, to: number) => Buffer

/** Frames of one kind, made once for whoever stands at the same place and gets the same. */
export class Frames {
  readonly encode: Encode

  constructor(encode: Encode) {
    this.encode = encode
  }

  of(queue: Waiting[], from: number, to: number): Buffer {
    const { message: first } = queue[from] as Waiting
    if (typeof first === 'string') return this.encode(textOfAll(queue, from, to), queue, from, to)
    const { framed } = first
    if (framed?.kind === this && isSame(framed.messages, queue, from, to)) return framed.frame
    const frame = this.encode(textOfAll(queue, from, to), queue, from, to)
    const messages = [first]
    for (let i = from + 1; i < to; i++) {
      const { message } = queue[i] as Waiting
      if (typeof message === 'string') return frame
      messages.push(message)
    }
    first.framed = { kind: this, messages, frame }
    return frame
  }
}

const webSocketFrames = new Frames(frameOf)

const isSame = (messages: readonly Told[], queue: Waiting[], from: number, to: number): boolean => {
  if (messages.length !== to - from) return false
  for (let i = from; i < to; i++) if (queue[i]?.message !== messages[i - from]) return false
  return true
}

const bytesOf = (queue: Waiting[]): number => queue.reduce((sum, { bytes }) => sum + bytes, 0)
