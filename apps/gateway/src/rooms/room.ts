// One job's watchers. The room knows up to which event each was told, takes events from the tailer, and closes every gap
// from the stream before it tells on. It knows neither Redis nor sockets: this is where the two meet.
import type { Detail, ResetReason } from '@jobs/protocol'
import { type Continuation, eventOfMessage, isTerminal, msOf, type Snapshot, seqOf } from '@jobs/state'
import { granted } from '../limits.ts'
import { bump, counts } from '../metrics.ts'
import { rounds } from '../sockets/rounds.ts'
import { RoomReads, type RoomSource } from './room-reads.ts'
import { bytesOf, type Item, type Told, withoutStaleProgress } from './told.ts'

/** A watcher, as the room sees it. */
export interface Member {
  readonly detail: Detail
  /** The JSON text of a message, or events. `asked`: a direct answer. */
  say(message: string | Told, asked?: boolean): void
  /** The room has nothing more for it. */
  left(): void
  /** The room's own: where it is told from. */
  seat?: Seat | undefined
}

interface Seat {
  member: Member
  /** Its place among the seats. */
  at: number
  /** The last event told, or left out of what was told. */
  seq: number
  cursor: string
  /** Where the next `events` message starts: behind events that this detail leaves out. */
  from: number
  /** Echoed in the direct answers of the subscribe. */
  id: string | undefined
}

/** What was made for one who wants this detail serves the next. */
type Shared = Partial<Record<Detail, Told>>

/** Events that a crowd's round brings at most. */
const WAITING = 100
/** Events that a detail left out before the watcher's position is moved on without items, so that it can be resumed. */
const LEFT_OUT = 100

/**
 * Watchers from which on a room tells once a round what it heard, progress folded when the round had to wait: a write to
 * each of a thousand takes about 8 ms.
 */
const CROWD = 1_000
const json = JSON.stringify

export class Room {
  readonly job: string
  private readonly source: RoomSource
  private readonly emptied: () => void
  // A gateway has many rooms, most with one watcher: what is seldom there is made when it is needed.
  private readonly seats: Seat[] = []
  private joining: Set<Member> | undefined
  private readonly reads: RoomReads
  /** What a crowd has not been told yet; contiguous. */
  private waiting: Item[] = []
  /** The seq heard last on the channel. */
  private heard = 0
  private heardAt = performance.now()
  /**
   * `lost`: the connection is gone. `back`: it is there again, and what it says may belong to another history than what
   * was told; it waits beside the reads until the stream was read.
   */
  private channel: 'live' | 'lost' | 'back' = 'live'
  /** Counts the changes of `channel`: a read that began before one proves nothing after it. */
  private epoch = 0
  private repairing: Promise<void> | undefined
  /** The repair whose failure leads to another try. */
  private retried: Promise<void> | undefined
  private repairAgain = false

  /** @param emptied called when the last watcher has been told the end: it does not leave by itself */
  constructor(job: string, source: RoomSource, emptied: () => void) {
    this.job = job
    this.source = source
    this.reads = new RoomReads(job, source)
    this.emptied = emptied
  }

  get empty(): boolean {
    return this.watchers === 0
  }

  /** Whether what is read joins what is heard. */
  get live(): boolean {
    return this.channel === 'live'
  }

  get watchers(): number {
    return this.seats.length + (this.joining?.size ?? 0)
  }

  /** Milliseconds since the room last knew where the job stands. */
  get quietMs(): number {
    return performance.now() - this.heardAt
  }

  /** Keeps a place, so that the room stays open while its channel is being subscribed. */
  expect(member: Member): void {
    this.joining ??= new Set()
    this.joining.add(member)
  }

  leave(member: Member): void {
    this.unseat(member)
    this.left(member)
  }

  private left(member: Member): void {
    this.joining?.delete(member)
    if (this.joining?.size === 0) this.joining = undefined
    if (!this.joining && this.channel === 'live') this.reads.settle()
  }

  private seat(
    member: Member,
    { seq, cursor }: { seq: number; cursor: string },
    id: string | undefined,
  ): Seat {
    this.unseat(member)
    const seat = { member, at: this.seats.length, seq, cursor, from: seq + 1, id }
    this.seats.push(seat)
    member.seat = seat
    return seat
  }

  /** The last seat moves to its place: who goes through all of them and may unseat one begins at the end. */
  private unseat(member: Member): void {
    const { seat } = member
    if (!seat) return
    member.seat = undefined
    const last = this.seats.pop() as Seat
    if (last === seat) return
    last.at = seat.at
    this.seats[seat.at] = last
  }

  /**
   * Seats an expected watcher: tells it where it stands, then everything from there. The channel is subscribed already,
   * so what happens during the read is heard. Answers false when there is no such job; throws when Redis can't be read.
   */
  async join(member: Member, cursor: string | undefined, id: string | undefined): Promise<boolean> {
    const { epoch } = this
    try {
      // It may leave, or its socket may close, at any await.
      if (!this.joining?.has(member)) return true
      const read = await this.reads.read(cursor, this)
      if (!this.joining?.has(member)) return true
      if (!read) return false
      const seat =
        cursor === undefined ? this.present(member, read.snapshot, id) : this.place(member, cursor, read, id)
      if (seat) this.catchUp(seat)
      // The channel was deaf for a while during the read.
      if (seat && epoch !== this.epoch && this.channel !== 'lost') this.repairSoon()
      return true
    } finally {
      this.left(member)
    }
  }

  private place(
    member: Member,
    cursor: string,
    read: Continuation,
    id: string | undefined,
  ): Seat | undefined {
    const reason = resetReason(read)
    if (reason) return this.reset(member, reason, read.snapshot, id)
    const seat = this.seat(member, { cursor, seq: seqOf(cursor) }, id)
    this.tell(seat, read.events, undefined, true)
    return this.goLive(seat, read.snapshot)
  }

  private reset(member: Member, reason: ResetReason, snapshot: Snapshot, id?: string): Seat | undefined {
    bump(counts.resets, reason)
    member.say(json({ type: 'reset', job: this.job, reason, id }), true)
    return this.present(member, snapshot, id)
  }

  private present(member: Member, snapshot: Snapshot, id: string | undefined): Seat | undefined {
    const seat = this.seat(member, snapshot, id)
    member.say(snapshotText(snapshot, id), true)
    return this.goLive(seat, snapshot)
  }

  /** `live`, or `complete` for a job that has ended: then there is no seat any more. */
  private goLive(seat: Seat, { state }: Snapshot): Seat | undefined {
    if (isTerminal(state)) {
      this.complete(seat, state)
      return undefined
    }
    this.tellLeftOut(seat)
    seat.member.say(json({ type: 'live', job: this.job, cursor: seat.cursor, id: seat.id }), true)
    seat.id = undefined
    return seat
  }

  private complete(seat: Seat, state: string): void {
    const { cursor, id } = seat
    this.tellLeftOut(seat)
    this.end(seat, { type: 'complete', job: this.job, state, cursor, id })
  }

  /** The room has nothing more for this watcher than these words. */
  private end({ member }: Seat, last: object): void {
    this.unseat(member)
    member.say(json(last))
    member.left()
    if (this.empty) this.emptied()
  }

  /** Brings a watcher from where its read left it to where the channel is. */
  private catchUp(seat: Seat): void {
    if (this.channel !== 'live' || this.heard <= seat.seq) return
    const missing = this.reads.recent.filter((item) => item.seq > seat.seq)
    if (missing[0]?.seq === seat.seq + 1) this.give(seat, missing)
    else this.missed()
  }

  /** A message of the job's channel. */
  hear(message: string): void {
    const item = eventOfMessage(message)
    if (!item) return
    this.heard = item.seq
    this.heardAt = performance.now()
    if (this.joining || this.reads.keeping || this.channel !== 'live') this.reads.hear(item)
    if (this.channel !== 'live') return
    if (this.seats.length >= CROWD) this.wait(item)
    else {
      this.tellWaiting()
      this.tellAll([item])
    }
  }

  private wait(item: Item): void {
    const last = this.waiting.at(-1)
    if (last && last.seq + 1 !== item.seq) this.tellWaiting()
    this.waiting.push(item)
    if (this.waiting.length === 1) rounds.tell(this)
    // One message must fit what clients take, and no round is that late.
    else if (this.waiting.length === WAITING) this.tellWaiting()
  }

  /** Tells a crowd what it has not been told yet. */
  tellWaiting(): void {
    if (this.waiting.length === 0) return
    const items = this.waiting
    this.waiting = []
    this.tellAll(items)
  }

  /** Tells everybody contiguous events, most of whom stand right before them. */
  private tellAll(items: Item[]): void {
    const [first, last] = [items[0] as Item, items.at(-1) as Item]
    let gap = false
    // One message serves all who stand at the same place.
    const shared: Shared = {}
    for (let i = this.seats.length - 1; i >= 0; i--) {
      const seat = this.seats[i] as Seat
      if (first.seq === seat.seq + 1) this.give(seat, items, shared)
      else if (last.seq <= seat.seq) gap ||= isOtherHistory(last, seat)
      else {
        // It read the job after the first of them.
        const missing = items.filter((item) => item.seq > seat.seq)
        if (missing[0]?.seq === seat.seq + 1) this.give(seat, missing)
        else gap = true
      }
    }
    if (gap) this.missed()
  }

  /** The connection that the channel is heard on is gone. */
  lost(): void {
    this.tellWaiting()
    this.channel = 'lost'
    this.epoch++
    this.reads.forget()
  }

  /** The channel is heard again, and may have been deaf for a while. Throws when Redis can't be read. */
  recovered(): Promise<void> {
    this.tellWaiting()
    bump(counts.gaps, 'reconnect')
    this.channel = 'back'
    this.epoch++
    this.reads.forget()
    this.heard = 0
    return this.repair()
  }

  /** Reads where the job stands, for when nothing was heard for long: a job that is gone says nothing. */
  check(): Promise<void> {
    return this.repair()
  }

  /** The job can't be read, however often: its watchers are told so. */
  giveUp(): void {
    // Who comes again is told what is heard, if it can be read by then.
    if (this.channel === 'back') this.channel = 'live'
    const message = 'This job cannot be read: what is stored of it is damaged.'
    for (const seat of [...this.seats])
      this.end(seat, { type: 'error', code: 'internal', message, retryable: false, job: this.job })
  }

  private missed(): void {
    bump(counts.gaps, 'number')
    this.repairSoon()
  }

  private repairSoon(): void {
    const repairing = this.repair()
    // However many events and watchers show the gap, one failure is told once.
    if (this.retried === repairing) return
    this.retried = repairing
    repairing.catch((error) => this.source.later(this, error))
  }

  /** Reads the stream from where the watchers stand, until all of them are where it ends. One at a time. */
  private repair(): Promise<void> {
    if (this.repairing) {
      this.repairAgain = true
      return this.repairing
    }
    this.repairing = (async () => {
      do {
        this.repairAgain = false
        await this.repairOnce()
      } while (this.repairAgain)
    })().finally(() => {
      this.repairing = this.retried = undefined
    })
    return this.repairing
  }

  private async repairOnce(): Promise<void> {
    const { epoch } = this
    const provesChannel = this.channel === 'back'
    const places = new Map<string, Seat[]>()
    for (const seat of this.seats) {
      const seats = places.get(seat.cursor)
      if (seats) seats.push(seat)
      else places.set(seat.cursor, [seat])
    }
    for (const [cursor, seats] of places) {
      // With most jobs nothing happens while a connection is made anew.
      if (provesChannel && (await this.source.isLast(this.job, cursor))) continue
      const read = await this.source.since(this.job, cursor, granted.replayEvents)
      const shared: Shared = {}
      const items = read ? read.events : []
      // It may have left, come again, or been told more by the channel, during the read.
      for (const seat of seats) if (seat.member.seat === seat) this.mend(seat, cursor, read, items, shared)
    }
    this.heardAt = performance.now()
    counts.repaired++
    if (!provesChannel || epoch !== this.epoch) return
    this.channel = 'live'
    for (const seat of [...this.seats]) this.catchUp(seat)
    if (!this.joining) this.reads.settle()
  }

  private mend(seat: Seat, cursor: string, read: Continuation | null, items: Item[], shared: Shared): void {
    if (!read) {
      // Its retention has passed, or Redis lost it.
      this.end(seat, { type: 'unsubscribed', job: this.job, code: 'not_found' })
      return
    }
    const reason = resetReason(read)
    if (reason)
      // Ahead of what there is, or beside it: Redis has lost what was told.
      this.reset(
        seat.member,
        reason === 'ahead' || reason === 'diverged' ? 'redis_recovered' : reason,
        read.snapshot,
      )
    else if (seat.cursor === cursor) this.give(seat, items, shared)
    else
      this.give(
        seat,
        items.filter((item) => item.seq > seat.seq),
      )
  }

  /** Tells events, and the end when they lead to it. */
  private give(seat: Seat, items: Item[], shared?: Shared): void {
    this.tell(seat, items, shared)
    const state = items.findLast((item) => item.state)?.state
    if (state && isTerminal(state)) this.complete(seat, state)
  }

  private tell(seat: Seat, items: Item[], shared?: Shared, asked = false): void {
    const [first, last] = [items[0], items.at(-1)]
    if (!first || !last) return
    const { detail } = seat.member
    const plain = seat.from === first.seq
    seat.seq = last.seq
    seat.cursor = last.cursor
    let told = plain ? shared?.[detail] : undefined
    if (!told) {
      const wanted = chosen(items, detail, shared !== undefined && this.seats.length >= CROWD)
      // Nothing this watcher asked for: its numbers are told with the next message, before they are too many.
      if (wanted.length === 0 && seat.seq - seat.from < LEFT_OUT) return
      told = toldOf(this.job, seat, wanted)
      if (plain && shared) shared[detail] = told
    }
    seat.from = last.seq + 1
    seat.member.say(told, asked)
  }

  private tellLeftOut(seat: Seat): void {
    if (seat.from > seat.seq) return
    seat.member.say(toldOf(this.job, seat, []))
    seat.from = seat.seq + 1
  }
}

const snapshotTexts = new WeakMap<Snapshot, string>()

/** A result may be large, and watchers may be many: made once, and only the echo added. */
export const snapshotText = (snapshot: Snapshot, id: string | undefined): string => {
  const { id: job, ...rest } = snapshot
  const text = snapshotTexts.get(snapshot) ?? json({ type: 'snapshot', job, ...rest })
  snapshotTexts.set(snapshot, text)
  return id === undefined ? text : `${text.slice(0, -1)},"id":${json(id)}}`
}

/** A number that was told already, at another time: Redis lost what it had told, and numbers anew. */
const isOtherHistory = (item: Item, seat: Seat): boolean =>
  item.seq === seat.seq ? item.cursor !== seat.cursor : msOf(item.cursor) > msOf(seat.cursor)

const resetReason = (read: Continuation): ResetReason | null => {
  if (read.gap) return read.gap
  if (read.more) return 'too_far'
  const bytes = read.events.reduce((sum, { body }) => sum + Buffer.byteLength(body), 0)
  return bytes > granted.replayBytes ? 'too_far' : null
}

/** State changes always; progress and log lines by what the watcher asked for. */
const chosen = (items: Item[], detail: Detail, crowded: boolean): Item[] => {
  if (detail === 'all') {
    if (!crowded) return items
    const wanted = withoutStaleProgress(items)
    counts.conflated += items.length - wanted.length
    return wanted
  }
  if (detail === 'state') return items.filter((item) => item.type === 'state')
  return withoutStaleProgress(items).filter((item) => item.type !== 'log')
}

const toldOf = (job: string, { from, seq, cursor, id, member }: Seat, items: Item[]): Told => ({
  job,
  from,
  to: seq,
  cursor,
  items,
  id,
  latest: member.detail === 'latest',
  bytes: bytesOf(items),
})
