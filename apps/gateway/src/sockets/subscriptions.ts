// What one client watches: which jobs and tags, read how many at a time, and how each subscription ends. It knows neither sockets nor
// Redis, so WebSocket connections and event streams over HTTP share it.
import type { ClientMessage, Detail, ErrorCode, ServerMessage } from '@jobs/protocol'
import { isStateError } from '@jobs/state'
import type { Grant } from '../auth/grant.ts'
import { granted, type Tally } from '../limits.ts'
import type { Member } from '../rooms/room.ts'
import { type Rooms, RoomsFullError } from '../rooms/rooms.ts'
import type { TagMember } from '../rooms/tag-room.ts'
import type { Told } from '../rooms/told.ts'
import { traced } from '../tracing.ts'

/** Milliseconds that a client is asked to wait while Redis is away. */
const RETRY_AFTER_MS = 1_000
/** Jobs read at the same time for one client: a result may be large, and many of them are asked for at once. */
const READS_AT_ONCE = 8

export type Subscribe = Extract<ClientMessage, { type: 'subscribe' }>
type Unsubscribe = Extract<ClientMessage, { type: 'unsubscribe' }>

/** What an answer is about. */
interface About {
  id?: string | undefined
  job?: string | undefined
  tag?: string | undefined
}

/** The client, as its subscriptions see it. */
export interface Client {
  /** What it may watch at the moment. */
  readonly grant: Grant
  /** Subscriptions of all connections, by subject. */
  readonly shares: Tally
  /** Whether it takes what it asked for: no more is read for it meanwhile. */
  readonly hasRoom: boolean
  push(message: string | Told, asked?: boolean): void
  /** It asked for what it may not watch. */
  refused(what: { job: string } | { tag: string }): void
  fault(error: unknown): void
}

/** One watched job. */
class Watch implements Member {
  readonly job: string
  readonly detail: Detail
  seat: Member['seat']
  private readonly subscriptions: Subscriptions

  constructor(subscriptions: Subscriptions, job: string, detail: Detail) {
    this.subscriptions = subscriptions
    this.job = job
    this.detail = detail
  }

  say(message: string | Told, asked?: boolean): void {
    this.subscriptions.client.push(message, asked)
  }

  left(): void {
    this.subscriptions.left(this)
  }
}

export class Subscriptions {
  readonly client: Client
  private readonly rooms: Rooms
  private readonly watched = new Map<string, Watch>()
  // Most clients watch one job and no tag: the others are made when they are needed.
  /** Watched jobs that have not been read yet. */
  private unread: Map<string, { member: Watch; asked: Subscribe }> | undefined
  private tags: Map<string, TagMember> | undefined
  private unreadTags: Map<string, { member: TagMember; id: string | undefined }> | undefined
  private reading = 0
  /** Reads that may begin at once: a list of jobs is one command, and costs Redis as much as its jobs one by one. */
  private reads = granted.subscriptions
  private readsAt = performance.now()
  private soon: NodeJS.Timeout | undefined

  constructor(client: Client, rooms: Rooms) {
    this.client = client
    this.rooms = rooms
  }

  subscribe(asked: Subscribe): void {
    if (asked.tag !== undefined) this.watchTag(asked.tag, asked.id)
    else for (const job of asked.jobs ?? [asked.job as string]) this.watch(job, asked)
    this.readOn()
  }

  private watch(job: string, asked: Subscribe): void {
    const { detail = 'all', id } = asked
    if (this.watched.has(job)) {
      this.error('already_subscribed', 'This connection watches that job already.', { id, job })
      return
    }
    if (!this.admits({ id, job })) return
    const member = new Watch(this, job, detail)
    this.watched.set(job, member)
    this.unread ??= new Map()
    this.unread.set(job, { member, asked })
  }

  /** The room has nothing more for it. */
  left(member: Watch): void {
    if (this.watched.get(member.job) === member) this.drop(member.job)
  }

  private watchTag(tag: string, id: string | undefined): void {
    if (this.tags?.has(tag)) {
      this.error('already_subscribed', 'This connection watches that tag already.', { id, tag })
      return
    }
    if (!this.admits({ id, tag })) return
    const { client } = this
    const member: TagMember = {
      get hasRoom() {
        return client.hasRoom
      },
      say: (message, asked) => client.push(message, asked),
    }
    this.tags ??= new Map()
    this.tags.set(tag, member)
    this.unreadTags ??= new Map()
    this.unreadTags.set(tag, { member, id })
  }

  private admits(about: About): boolean {
    if (this.watched.size + (this.tags?.size ?? 0) >= granted.subscriptions) {
      const most = `A connection watches at most ${granted.subscriptions} jobs and tags.`
      this.error('limit_exceeded', most, about)
      return false
    }
    if (this.client.shares.take(this.client.grant.subject)) return true
    const most = "All connections of this token's subject together watch as many jobs and tags as they may."
    this.error('limit_exceeded', most, about, true)
    return false
  }

  private drop(job: string): void {
    this.watched.delete(job)
    this.unread?.delete(job)
    this.client.shares.giveBack(this.client.grant.subject)
  }

  private dropTag(tag: string): void {
    this.tags?.delete(tag)
    this.unreadTags?.delete(tag)
    this.client.shares.giveBack(this.client.grant.subject)
  }

  /** Reads watched jobs and tags while the client takes what it asked for; tells what was held back meanwhile. */
  readOn(): void {
    for (const [tag, member] of this.tags ?? []) this.rooms.tags.catchUp(tag, member)
    for (const [tag, { member, id }] of this.unreadTags ?? []) {
      if (!this.mayRead()) return
      this.unreadTags?.delete(tag)
      this.reading++
      void this.joinTag(tag, member, id).finally(() => {
        this.reading--
        this.readOn()
      })
    }
    for (const [job, { member, asked }] of this.unread ?? []) {
      if (!this.mayRead()) return
      this.unread?.delete(job)
      this.reading++
      void this.join(job, member, asked).finally(() => {
        this.reading--
        this.readOn()
      })
    }
    this.unreadTags = this.unread = undefined
  }

  /**
   * All that a connection may watch is read without delay, once; what it goes on to subscribe to, at the rate of its
   * commands. It waits, and is not refused: who watches a few at a time never notices.
   */
  private mayRead(): boolean {
    if (this.reading >= READS_AT_ONCE || !this.client.hasRoom) return false
    const now = performance.now()
    const more = ((now - this.readsAt) / 1_000) * granted.commandsPerSecond
    this.reads = Math.min(granted.subscriptions, this.reads + more)
    this.readsAt = now
    if (this.reads >= 1) {
      this.reads--
      return true
    }
    this.soon ??= setTimeout(
      () => {
        this.soon = undefined
        this.readOn()
      },
      Math.ceil(((1 - this.reads) * 1_000) / granted.commandsPerSecond),
    )
    return false
  }

  private async join(job: string, member: Watch, { cursor, id }: Subscribe): Promise<void> {
    // Whoever left meanwhile was told so already.
    const leave = () => {
      const watches = this.watched.get(job) === member
      member.left()
      return watches
    }
    try {
      // What is not for this client is not looked for: neither answer nor time tells whether it is there.
      const allowed = this.client.grant.mayWatchJob(job)
      if (!allowed) this.client.refused({ job })
      const exists =
        allowed && (await traced('watch', { job }, () => this.rooms.join(job, member, cursor, id)))
      // The same words for a job that is unknown and one that is not for this client.
      if (!exists && leave())
        this.error('not_found', 'There is no such job, or it is not for you to watch.', { id, job })
    } catch (error) {
      this.failed(error, leave(), { id, job })
    }
  }

  private async joinTag(tag: string, member: TagMember, id: string | undefined): Promise<void> {
    const leave = () => {
      const watches = this.tags?.get(tag) === member
      if (watches) this.dropTag(tag)
      return watches
    }
    if (!this.client.grant.mayWatchTag(tag)) {
      this.client.refused({ tag })
      if (leave()) this.error('not_found', 'This tag is not for you to watch.', { id, tag })
      return
    }
    try {
      await this.rooms.tags.join(tag, member, id)
      // It was let go meanwhile.
      if (this.tags?.get(tag) !== member) this.rooms.tags.leave(tag, member)
    } catch (error) {
      this.failed(error, leave(), { id, tag })
    }
  }

  /** @param watches whether the client has not left meanwhile */
  private failed(error: unknown, watches: boolean, about: About): void {
    if (error instanceof RoomsFullError) {
      if (watches) this.error('limit_exceeded', error.message, about, true)
      return
    }
    const known = isStateError(error)
    if (!known) this.client.fault(error)
    if (!watches) return
    if (known) this.error('unavailable', 'Jobs cannot be read at the moment; try again.', about, true)
    else this.error('internal', 'The gateway failed at this; try again.', about, true)
  }

  unsubscribe({ job, tag, id }: Unsubscribe): void {
    if (tag !== undefined) this.unwatchTag(tag, id)
    else this.unwatch(job as string, id)
  }

  private unwatch(job: string, id: string | undefined): void {
    const member = this.watched.get(job)
    if (!member) {
      this.error('not_found', 'This connection does not watch that job.', { id, job })
      return
    }
    this.drop(job)
    this.rooms.leave(job, member)
    this.say({ type: 'unsubscribed', job, code: 'requested', ...echo(id) })
  }

  private unwatchTag(tag: string, id: string | undefined): void {
    const member = this.tags?.get(tag)
    if (!member) {
      this.error('not_found', 'This connection does not watch that tag.', { id, tag })
      return
    }
    this.dropTag(tag)
    this.rooms.tags.leave(tag, member)
    this.say({ type: 'unsubscribed', tag, code: 'requested', ...echo(id) })
  }

  /** The grant is another: what it does not cover ends, in the words that would end it if there were no such job. */
  narrow(): void {
    for (const [job, member] of this.watched) {
      if (this.client.grant.mayWatchJob(job)) continue
      this.drop(job)
      this.rooms.leave(job, member)
      this.say({ type: 'unsubscribed', job, code: 'not_found' })
    }
    for (const [tag, member] of this.tags ?? []) {
      if (this.client.grant.mayWatchTag(tag)) continue
      this.dropTag(tag)
      this.rooms.tags.leave(tag, member)
      this.say({ type: 'unsubscribed', tag, code: 'not_found' })
    }
  }

  /** The client is gone. */
  end(): void {
    clearTimeout(this.soon)
    for (const [job, member] of this.watched) {
      this.drop(job)
      this.rooms.leave(job, member)
    }
    for (const [tag, member] of this.tags ?? []) {
      this.dropTag(tag)
      this.rooms.tags.leave(tag, member)
    }
  }

  private say(message: ServerMessage): void {
    this.client.push(JSON.stringify(message))
  }

  private error(code: ErrorCode, message: string, about: About, retryable = false): void {
    this.say(errorOf(code, message, { ...about, retryAfterMs: retryable ? RETRY_AFTER_MS : undefined }))
  }
}

export const echo = (id: string | undefined) => (id === undefined ? {} : { id })

/** An `error` message; with `retryAfterMs` the same may work later. */
export const errorOf = (
  code: ErrorCode,
  message: string,
  { id, job, tag, retryAfterMs }: About & { retryAfterMs?: number | undefined } = {},
): ServerMessage => ({
  type: 'error',
  code,
  message,
  retryable: retryAfterMs !== undefined,
  ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
  ...(job === undefined ? {} : { job }),
  ...(tag === undefined ? {} : { tag }),
  ...echo(id),
})
