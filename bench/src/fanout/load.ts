// What the peers are loaded with, and what the processes of this bench say to one another.

export const PEERS = ['ours', 'bare', 'socketio'] as const
export type PeerName = (typeof PEERS)[number]

/** What one publication is: `log` lines are never folded; progress may be. */
export type Kind = 'log' | 'progress'

/** One room: a channel of the peers, a job of ours. */
export interface Room {
  name: string
  /** Of ours: where its history stands, and the part of the hash's `now` that carries the attempt. */
  seq: number
  fence: string
}

/** Bytes of what is published for one message, with all peers. */
const MESSAGE_BYTES = 200

/** Microseconds of a clock that all processes of the machine share. */
export const micros = (): number => Number(process.hrtime.bigint() / 1_000n)

/** `<seq>@<sent>@xxx…`: the load client finds the time between the two signs, whatever was put around it. */
export const messageText = (seq: number, head: number): string =>
  `${seq}@${micros()}@`.padEnd(MESSAGE_BYTES - head, 'x')

export interface Publication {
  rooms: Room[]
  /** Messages a second over all rooms, in turn. */
  rate: number
  seconds: number
  kind: Kind
}

export interface Published {
  messages: number
  /** What it managed in place of `rate`. */
  rate: number
  /** Where their histories stand now. */
  rooms: Room[]
}

export interface Dial {
  url: string
  rooms: string[]
  connections: number
  /** Of ours: rooms that each watches; only in the first of them may anything happen. */
  roomsEach: number
  /** Dials under way at a time. */
  atOnce: number
  /** Comes back with the cursor it had. */
  resume: boolean
}

export interface Dialled {
  connections: number
  seconds: number
}

export interface Seen {
  /** Messages that arrived, or were accounted for as folded. */
  delivered: number
  /** Of these: told by number only. */
  folded: number
  /** Places at which something was missing, came twice or out of order. */
  wrong: number
  /** Messages that came again. */
  twice: number
  /** Milliseconds from before the publication to the load client. */
  p50: number
  p99: number
  /** Microseconds of the first and the last arrival. */
  from: number
  to: number
}
