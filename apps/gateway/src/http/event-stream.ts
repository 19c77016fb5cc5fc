// One job as server-sent events: the messages of a WebSocket, from the same room and through the same outbox. What goes out
// at once is one event, whose id is the cursor it leads to; so a reader that comes back with it misses nothing and sees
// nothing twice.
import type { IncomingMessage, ServerResponse } from 'node:http'
import { CLOSE, type Close, type ServerMessage } from '@jobs/protocol'
import type { Member } from '../rooms/room.ts'
import type { Rooms } from '../rooms/rooms.ts'
import { Frames, Outbox, type Waiting } from '../sockets/outbox.ts'
import { EVENT_STREAM, RETRY_MS, refuseJob } from './answers.ts'
import { DRAINING, type Refusal } from './refusal.ts'

/** Milliseconds that a reader gets to take the last that it is told. */
const GOODBYE_MS = 2_000

interface EventStreamOptions {
  /** Beside those of every stream; sent with the first message, since until then it may be refused. */
  headers: Record<string, string>
  /** The reader gave a position. */
  resumed: boolean
  heartbeatMs: number
}

export class EventStream {
  private readonly response: ServerResponse
  private readonly options: EventStreamOptions
  private readonly outbox: Outbox
  private heartbeat: NodeJS.Timeout | undefined
  private goodbye: NodeJS.Timeout | undefined

  constructor(response: ServerResponse, options: EventStreamOptions) {
    this.response = response
    this.options = options
    const socket = {
      OPEN: 1,
      get readyState() {
        return response.writableEnded || response.destroyed ? 3 : 1
      },
      get bufferedAmount() {
        return response.writableLength
      },
      _socket: { write: (event: Buffer) => response.write(event) },
    } as const
    // Its reader does not take what it asked for; it resumes from the last event that it got.
    const owner = { slow: () => response.destroy(), drained: () => undefined }
    this.outbox = new Outbox(socket, owner, { frames: events })
    response.on('close', () => {
      clearInterval(this.heartbeat)
      clearTimeout(this.goodbye)
      this.outbox.stop()
    })
  }

  /** Answers false, with nothing sent, when there is no such job. Throws when it can't be read. */
  async follow(rooms: Rooms, job: string, cursor: string | undefined): Promise<boolean> {
    const member: Member = {
      detail: 'all',
      say: (message, asked) => {
        const first = !this.response.headersSent
        // It has been told all of it, the end too: a reader comes back after every end, and this keeps it from it.
        if (first && this.options.resumed && typeof message === 'string' && isComplete(message)) {
          this.response.writeHead(204, this.options.headers).end()
          return
        }
        if (first) this.open()
        this.outbox.push(message, asked)
      },
      left: () => this.end(),
    }
    this.response.on('close', () => rooms.leave(job, member))
    return rooms.join(job, member, cursor, undefined)
  }

  say(message: ServerMessage): void {
    if (this.response.headersSent) this.outbox.push(JSON.stringify(message))
  }

  sayRedis(available: boolean): void {
    this.say({ type: 'redis', available })
  }

  /** Bytes that the reader has not taken yet. */
  get queuedBytes(): number {
    return this.outbox.queuedBytes
  }

  /** A reader comes back by itself, after `retry`; one that has been told nothing yet is told why. */
  close(why: Close): void {
    if (this.response.headersSent) this.end()
    else refuseJob(this.response, refusalOf(why))
  }

  private open(): void {
    this.response.writeHead(200, { ...this.options.headers, ...EVENT_STREAM })
    this.response.write(`retry: ${RETRY_MS}\n\n`)
    this.heartbeat = setInterval(() => this.response.write(': heartbeat\n\n'), this.options.heartbeatMs)
  }

  private end(): void {
    if (this.response.writableEnded) return
    clearInterval(this.heartbeat)
    this.outbox.flush(true)
    this.response.end()
    this.goodbye = setTimeout(() => this.response.destroy(), GOODBYE_MS).unref()
  }
}

const refusalOf = (why: Close): Refusal => {
  if (why === CLOSE.draining) return DRAINING
  const expired = why === CLOSE.tokenExpired
  return {
    status: 401,
    code: expired ? 'token_expired' : 'unauthorized',
    message: `The token ${expired ? 'has expired' : 'was revoked'}; get a new one.`,
    headers: { 'www-authenticate': 'Bearer' },
  }
}

const isComplete = (text: string): boolean => text.startsWith('{"type":"complete"')

/** The first in a text is the message's own: what a caller wrote stands behind it, and in a string its quotes are escaped. */
const CURSOR = /"cursor":"(\d+-\d+)"/

/** Nothing is parsed: what a worker wrote, or another release, is its reader's to make sense of. */
const cursorOf = ({ message }: Waiting): string | undefined =>
  typeof message === 'string' ? CURSOR.exec(message)?.[1] : message.cursor

const events = new Frames((text, queue, from, to) => {
  let cursor: string | undefined
  for (let i = to - 1; i >= from && cursor === undefined; i--) cursor = cursorOf(queue[i] as Waiting)
  const id = cursor === undefined ? '' : `id: ${cursor}\n`
  // Between its tokens JSON may have line ends, if its writer put them there.
  return Buffer.from(`${id}data: ${text.replace(/[\r\n]+/g, ' ')}\n\n`)
})

/** Where the reader left off; undefined: at no place. */
export const lastEventId = (request: IncomingMessage): string | undefined =>
  (request.headers['last-event-id'] as string | undefined) || undefined
