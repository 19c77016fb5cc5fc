// What one client watches: which jobs, read how many at a time, and how each subscription ends. It knows neither sockets nor
// Redis, so WebSocket connections and event streams over HTTP share it.
import type { ClientMessage, ErrorCode, ServerMessage } from '@jobs/protocol'
import { isStateError } from '@jobs/state'
import type { Grant } from './grant.ts'
import { granted } from './limits.ts'
import type { Member } from './room.ts'
import { type Rooms, RoomsFullError } from './rooms.ts'
import type { Told } from './told.ts'

/** Milliseconds that a client is asked to wait while Redis is away. */
const RETRY_AFTER_MS = 1_000
/** Jobs read at the same time for one client: a result may be large, and many of them are asked for at once. */
const READS_AT_ONCE = 8

export type Subscribe = Extract<ClientMessage, { type: 'subscribe' }>

/** The client, as its subscriptions see it. */
export interface Client {
  /** What it may watch at the moment. */
  readonly grant: Grant
  /** Whether it takes what it asked for: no more is read for it meanwhile. */
  readonly hasRoom: boolean
  push(message: string | Told, asked?: boolean): void
  fault(error: unknown): void
}

export class Subscriptions {
  private readonly client: Client
  private readonly rooms: Rooms
  private readonly watched = new Map<string, Member>()
  /** Watched jobs that have not been read yet. */
  private readonly unread = new Map<string, { member: Member; asked: Subscribe }>()
  private reading = 0

  constructor(client: Client, rooms: Rooms) {
    this.client = client
    this.rooms = rooms
  }

  subscribe(asked: Subscribe): void {
    for (const job of asked.jobs ?? [asked.job as string]) this.watch(job, asked)
    this.readOn()
  }

  private watch(job: string, asked: Subscribe): void {
    const { detail = 'all', id } = asked
    if (this.watched.has(job)) {
      this.error('already_subscribed', 'This connection watches that job already.', id, job)
      return
    }
    if (this.watched.size >= granted.subscriptions) {
      this.error('limit_exceeded', `A connection watches at most ${granted.subscriptions} jobs.`, id, job)
      return
    }
    const member: Member = {
      detail,
      say: (message, direct) => this.client.push(message, direct),
      left: () => {
        if (this.watched.get(job) === member) this.watched.delete(job)
      },
    }
    this.watched.set(job, member)
    this.unread.set(job, { member, asked })
  }

  /** Reads watched jobs while the client takes what it asked for. */
  readOn(): void {
    for (const [job, { member, asked }] of this.unread) {
      if (this.reading >= READS_AT_ONCE || !this.client.hasRoom) return
      this.unread.delete(job)
      this.reading++
      void this.join(job, member, asked).finally(() => {
        this.reading--
        this.readOn()
      })
    }
  }

  private async join(job: string, member: Member, { cursor, id }: Subscribe): Promise<void> {
    // Whoever left meanwhile was told so already.
    const leave = () => {
      const watches = this.watched.get(job) === member
      member.left()
      return watches
    }
    try {
      const exists = this.client.grant.mayWatchJob(job) && (await this.rooms.join(job, member, cursor, id))
      // The same words for a job that is unknown and one that is not for this client.
      if (!exists && leave())
        this.error('not_found', 'There is no such job, or it is not for you to watch.', id, job)
    } catch (error) {
      const watches = leave()
      if (error instanceof RoomsFullError) {
        if (watches) this.error('limit_exceeded', error.message, id, job, true)
        return
      }
      const known = isStateError(error)
      if (!known) this.client.fault(error)
      if (!watches) return
      if (known) this.error('unavailable', 'Jobs cannot be read at the moment; try again.', id, job, true)
      else this.error('internal', 'The gateway failed at this; try again.', id, job, true)
    }
  }

  unsubscribe(job: string, id: string | undefined): void {
    const member = this.watched.get(job)
    if (!member) {
      this.error('not_found', 'This connection does not watch that job.', id, job)
      return
    }
    this.watched.delete(job)
    this.unread.delete(job)
    this.rooms.leave(job, member)
    this.say({ type: 'unsubscribed', job, code: 'requested', ...echo(id) })
  }

  /** The client is gone. */
  end(): void {
    this.unread.clear()
    for (const [job, member] of this.watched) this.rooms.leave(job, member)
    this.watched.clear()
  }

  private say(message: ServerMessage): void {
    this.client.push(JSON.stringify(message))
  }

  private error(code: ErrorCode, message: string, id?: string, job?: string, retryable = false): void {
    this.say(errorOf(code, message, { id, job, retryAfterMs: retryable ? RETRY_AFTER_MS : undefined }))
  }
}

export const echo = (id: string | undefined) => (id === undefined ? {} : { id })

/** An `error` message; with `retryAfterMs` the same may work later. */
export const errorOf = (
  code: ErrorCode,
  message: string,
  {
    id,
    job,
    retryAfterMs,
  }: { id?: string | undefined; job?: string | undefined; retryAfterMs?: number | undefined } = {},
): ServerMessage => ({
  type: 'error',
  code,
  message,
  retryable: retryAfterMs !== undefined,
  ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
  ...(job === undefined ? {} : { job }),
  ...echo(id),
})
