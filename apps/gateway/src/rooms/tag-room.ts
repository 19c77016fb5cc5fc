// The watchers of one tag. Each partition of the namespace counts the tag's jobs by itself: a part is read once, and then
// follows its channel change by change. Where that has a gap, it is read again, and the watchers get `counts` anew. It
// knows neither Redis nor sockets.

import { isDeepStrictEqual } from 'node:util'
import type { ServerMessage } from '@jobs/protocol'
import {
  countChange,
  noCounts,
  STATES,
  type StateCounts,
  type TagChange,
  type TagCounts,
  tagChangeOf,
} from '@jobs/state'

/** A watcher, as the room sees it. */
export interface TagMember {
  /** Whether it takes what it is told. */
  readonly hasRoom: boolean
  /** The JSON text of a message. `asked`: a direct answer. */
  say(message: string, asked?: boolean): void
}

/** Where a room reads from. */
export interface TagSource {
  readonly partitions: number
  tagCounts(tag: string, partition: number): Promise<TagCounts>
  /** A read failed: calls `recovered` until it succeeds. */
  later(part: TagPart, error: unknown): void
}

/** Characters of changes told one by one in a tick: beyond, counts tell more. */
const BATCH_CHARS = 131_072
/** Changes kept while a part is being read. */
const KEPT = 10_000

interface Seat {
  /** It is to be told counts before any change. */
  due: boolean
  /** Changes that were left out since. */
  folded: number
}

export class TagRoom {
  readonly tag: string
  readonly parts: readonly TagPart[]
  private readonly seats = new Map<TagMember, Seat>()
  private readonly joining = new Set<TagMember>()
  private batch: string[] = []
  private chars = 0
  private scheduled: NodeJS.Immediate | undefined

  constructor(tag: string, source: TagSource) {
    this.tag = tag
    this.parts = Array.from({ length: source.partitions }, (_, i) => new TagPart(this, source, i))
  }

  get empty(): boolean {
    return this.seats.size === 0 && this.joining.size === 0
  }

  /** Keeps a place, so that the room stays open while its channels are being subscribed. */
  expect(member: TagMember): void {
    this.joining.add(member)
  }

  leave(member: TagMember): void {
    this.seats.delete(member)
    this.joining.delete(member)
  }

  /** Tells an expected watcher the counts, then every change. Throws when Redis can't be read. */
  async join(member: TagMember, id: string | undefined): Promise<void> {
    try {
      await Promise.all(this.parts.map((part) => part.whole || part.read()))
      if (!this.joining.has(member)) return
      // What stands in the batch is in the counts already.
      this.flush()
      this.seats.set(member, { due: false, folded: 0 })
      member.say(this.countsText({ id }), true)
    } finally {
      this.joining.delete(member)
    }
  }

  /** The watcher takes messages again. */
  catchUp(member: TagMember): void {
    if (this.seats.get(member)?.due) this.flush()
  }

  /** A part has counted a change. */
  tell({ job, from, to, seq }: TagChange): void {
    if (this.seats.size === 0) return
    if (to === null) {
      // A job that was removed changes no state: the counts tell.
      this.tellCounts()
      return
    }
    const text = messageText({ type: 'job', tag: this.tag, job, from, state: to, seq })
    this.batch.push(text)
    this.chars += text.length
    this.schedule()
  }

  /** Counts are about to be others than changes have told: they are told anew, and no change before them. */
  tellCounts(): void {
    if (this.batch.length > 0) this.flush()
    for (const seat of this.seats.values()) seat.due = true
    this.schedule()
  }

  private schedule(): void {
    this.scheduled ??= setImmediate(() => this.flush())
  }

  private flush(): void {
    clearImmediate(this.scheduled)
    this.scheduled = undefined
    const { batch, chars } = this
    this.batch = []
    this.chars = 0
    for (const [member, seat] of this.seats)
      if (!seat.due && member.hasRoom && chars <= BATCH_CHARS) for (const text of batch) member.say(text)
      else if (batch.length > 0) {
        seat.due = true
        seat.folded += batch.length
      }
    if (this.parts.some(({ whole }) => !whole)) return
    for (const [member, seat] of this.seats) {
      if (!seat.due || !member.hasRoom) continue
      member.say(this.countsText(seat.folded > 0 ? { folded: seat.folded } : {}))
      seat.due = false
      seat.folded = 0
    }
  }

  private countsText(more: { id?: string | undefined; folded?: number }): string {
    const counts = noCounts()
    for (const part of this.parts) for (const state of STATES) counts[state] += part.counts[state]
    return messageText({ type: 'counts', tag: this.tag, counts, at: Date.now(), ...more })
  }
}

const messageText = (message: ServerMessage): string => JSON.stringify(message)

/** The tag's jobs in one partition. */
export class TagPart {
  counts: StateCounts = noCounts()
  /** Every change is counted and heard. */
  whole = false
  private readonly room: TagRoom
  private readonly source: TagSource
  private readonly partition: number
  private version = 0
  /** Whether a change was counted since the last read: from then on the channel's numbers only grow. */
  private followed = false
  private deaf = false
  /** Counts the times that the channel was lost and found: a read that began before one proves nothing after it. */
  private epoch = 0
  private reading: Promise<void> | undefined
  /** What was heard since a read began; null: too much of it, or no read is under way. */
  private heard: TagChange[] | null = null
  /** Read to compare, ahead of what was heard. */
  private ahead: TagCounts | undefined
  private readAt = performance.now()

  constructor(room: TagRoom, source: TagSource, partition: number) {
    this.room = room
    this.source = source
    this.partition = partition
  }

  /** Milliseconds since the counts were last seen to be right: what leaves them by its retention is told by nobody. */
  get quietMs(): number {
    return performance.now() - this.readAt
  }

  /** A message of the channel. */
  hear(message: string): void {
    const change = tagChangeOf(message)
    if (!change) return
    if (this.heard && this.heard.push(change) > KEPT) this.heard = null
    if (this.whole) this.take(change)
  }

  private take(change: TagChange): void {
    // Where there was no set yet, the number of the change that makes it says nothing.
    if ((change.version === this.version + 1 && !change.first) || (this.version === 0 && change.first)) {
      this.version = change.version
      this.followed = true
      countChange(this.counts, change)
      this.room.tell(change)
      if (this.ahead?.version === this.version) this.compare(this.ahead, [])
      return
    }
    // Published before the read, and in it.
    if (change.version <= this.version && !this.followed) return
    this.repairSoon()
  }

  /** The connection that the channel is heard on is gone. */
  lost(): void {
    this.deaf = true
    this.whole = false
    this.epoch++
  }

  /** The channel is heard again, and may have been deaf for a while. Throws when Redis can't be read. */
  async recovered(): Promise<void> {
    this.deaf = false
    this.whole = false
    this.epoch++
    // One under way may have read too early.
    await this.reading?.catch(() => undefined)
    await this.read()
  }

  private repairSoon(): void {
    this.whole = false
    this.epoch++
    const again = async () => {
      await this.reading?.catch(() => undefined)
      await this.read()
    }
    again().catch((error) => this.source.later(this, error))
  }

  /** Reads the counts, for all who ask meanwhile. Throws when Redis can't be read. */
  read(): Promise<void> {
    this.reading ??= this.readOnce().finally(() => {
      this.reading = undefined
    })
    return this.reading
  }

  private async readOnce(): Promise<void> {
    const { epoch } = this
    this.heard = []
    const { version, counts } = await this.source.tagCounts(this.room.tag, this.partition)
    const { heard } = this
    this.heard = null
    this.room.tellCounts()
    this.version = version
    this.counts = counts
    this.followed = false
    this.ahead = undefined
    this.readAt = performance.now()
    // Nothing is heard, or it was not all the while.
    if (this.deaf || epoch !== this.epoch) return
    this.whole = true
    if (!heard) this.repairSoon()
    // One of them may show a gap.
    else for (const change of heard) if (this.whole) this.take(change)
  }

  /** Sees whether jobs have left the counts because their retention has passed. */
  async check(): Promise<void> {
    if (!this.whole || this.reading) return
    // What was read at the last check has still not been heard.
    if (this.ahead) {
      this.repairSoon()
      return
    }
    const { epoch } = this
    this.heard = []
    const read = await this.source.tagCounts(this.room.tag, this.partition)
    this.readAt = performance.now()
    // A read of its own began meanwhile, or more was heard than is worth keeping.
    if (epoch !== this.epoch || !this.heard || this.reading) return
    const { heard } = this
    this.heard = null
    if (read.version > this.version) this.ahead = read
    else this.compare(read, heard)
  }

  private compare(read: TagCounts, heard: TagChange[]): void {
    this.ahead = undefined
    for (const change of heard) if (change.version > read.version) countChange(read.counts, change)
    if (isDeepStrictEqual(read.counts, this.counts)) return
    this.room.tellCounts()
    this.counts = read.counts
  }
}
