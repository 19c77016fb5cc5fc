// One job's watchers. The room knows up to which event it has told, takes events from the tailer, and closes every gap
// from the stream before it tells on. It knows neither Redis nor sockets: this is where the two meet.
import type { Detail, ResetReason } from '@jobs/protocol'
import { LIMITS_V1 } from '@jobs/protocol'
import { type Continuation, headOf, isTerminal, type Snapshot, type StoredEvent, seqOf } from '@jobs/state'

/** A watcher, as the room sees it. */
export interface Member {
  readonly detail: Detail
  /** JSON text of a message. */
  say(text: string): void
  /** The room has nothing more for it. */
  left(): void
}

/** Where a room reads from: the job at one moment, with the events after a cursor. */
export interface RoomSource {
  snapshot(job: string): Promise<Snapshot | null>
  since(job: string, cursor: string, count: number): Promise<Continuation | null>
}

interface Seat {
  member: Member
  /** The last event told, or folded into what was told. */
  seq: number
  cursor: string
  /** Where the next `events` message starts: behind events that this detail leaves out. */
  from: number
  /** Echoed in the direct answers of the subscribe. */
  id: string | undefined
}

/** Live events kept to fill in a newcomer that read the job a moment ago. */
const KEPT = 64

const json = JSON.stringify

export class Room {
  readonly job: string
  private readonly source: RoomSource
  private readonly onError: (error: unknown) => void
  private readonly seats = new Map<Member, Seat>()
  private readonly joining = new Set<Member>()
  private recent: StoredEvent[] = []
  /** The newest seq heard of on the channel. */
  private heard = 0
  private snapshotRead: Promise<Snapshot | null> | undefined
  private repairing: Promise<void> | undefined
  private repairAgain = false

  constructor(job: string, source: RoomSource, onError: (error: unknown) => void) {
    this.job = job
    this.source = source
    this.onError = onError
  }

  get empty(): boolean {
    return this.seats.size === 0 && this.joining.size === 0
  }

  leave(member: Member): void {
    this.seats.delete(member)
    this.joining.delete(member)
  }

  /**
   * Seats a watcher: tells it where it stands, then everything from there. The channel is subscribed already, so what
   * happens during the read is heard. Answers false when there is no such job; throws when Redis can't be read.
   */
  async join(member: Member, cursor: string | undefined, id: string | undefined): Promise<boolean> {
    this.joining.add(member)
    try {
      const seat =
        cursor === undefined ? await this.seatNow(member, id) : await this.seatAt(member, cursor, id)
      if (!seat) return false
      // It may have left, or its socket may have closed, during the read.
      if (!this.joining.has(member)) return true
      this.seats.set(member, seat)
      this.catchUp(seat)
      return true
    } finally {
      this.joining.delete(member)
    }
  }

  private async seatNow(member: Member, id: string | undefined): Promise<Seat | undefined> {
    // All who join at the same moment are served by one read.
    this.snapshotRead ??= this.source.snapshot(this.job).finally(() => {
      this.snapshotRead = undefined
    })
    const snapshot = await this.snapshotRead
    if (!snapshot) return undefined
    if (!this.joining.has(member)) return seatOf(member, snapshot, id)
    return this.present(member, snapshot, id)
  }

  private async seatAt(member: Member, cursor: string, id: string | undefined): Promise<Seat | undefined> {
    const read = await this.source.since(this.job, cursor, LIMITS_V1.replayEvents)
    if (!read) return undefined
    const seat = seatOf(member, { cursor, seq: seqOf(cursor) }, id)
    if (!this.joining.has(member)) return seat
    const reason = resetReason(read)
    if (reason) {
      member.say(json({ type: 'reset', job: this.job, reason, id }))
      return this.present(member, read.snapshot, id)
    }
    this.tell(seat, read.events)
    if (isTerminal(read.snapshot.state)) this.complete(seat, read.snapshot.state)
    else member.say(json({ type: 'live', job: this.job, cursor: seat.cursor, id }))
    return seat
  }

  /** Snapshot, then `live`, or `complete` for a job that has ended. */
  private present(member: Member, snapshot: Snapshot, id: string | undefined): Seat {
    const seat = seatOf(member, snapshot, id)
    member.say(snapshotMessage(snapshot, id))
    if (isTerminal(snapshot.state)) this.complete(seat, snapshot.state)
    else member.say(json({ type: 'live', job: this.job, cursor: seat.cursor, id }))
    return seat
  }

  private complete(seat: Seat, state: string): void {
    const { member, cursor, id } = seat
    this.leave(member)
    // Events that a detail left out are still accounted for before the end.
    this.flushHeld(seat)
    member.say(json({ type: 'complete', job: this.job, state, cursor, id }))
    member.left()
  }

  /** Brings a newcomer from where its read left it to where the channel is. */
  private catchUp(seat: Seat): void {
    seat.id = undefined
    if (!this.seats.has(seat.member) || this.heard <= seat.seq) return
    const missing = this.recent.filter((event) => event.seq > seat.seq)
    if (missing[0]?.seq === seat.seq + 1) this.give(seat, missing)
    else this.repairSoon()
  }

  /** A message of the job's channel. */
  hear(body: string): void {
    const head = headOf(body)
    if (!head) return
    const event = { seq: head.seq, cursor: head.cursor, body }
    this.heard = Math.max(this.heard, head.seq)
    const last = this.recent.at(-1)
    // A gap here, or a history that began anew, makes what was kept useless for filling in.
    if (last && last.seq + 1 !== event.seq) {
      this.recent = []
      this.heard = head.seq
    }
    this.recent.push(event)
    if (this.recent.length > KEPT) this.recent.shift()
    let gap = false
    // One text serves all who stand at the same place.
    const shared = new Map<Detail, string>()
    for (const seat of [...this.seats.values()]) {
      if (event.seq <= seat.seq) {
        // The same number with another time is another history: Redis lost what it had told.
        // (A lower number is an event that a read has told already.)
        if (event.seq === seat.seq && event.cursor !== seat.cursor) gap = true
        continue
      }
      if (event.seq === seat.seq + 1) this.give(seat, [event], shared)
      else gap = true
    }
    if (gap) this.repairSoon()
  }

  /** The channel may have been deaf for a while. */
  recovered(): Promise<void> {
    this.recent = []
    this.heard = 0
    return this.repair()
  }

  /** A repair that fails leaves its watchers where they are; the next event or recovery tries again. */
  private repairSoon(): void {
    this.repair().catch(this.onError)
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
      this.repairing = undefined
    })
    return this.repairing
  }

  private async repairOnce(): Promise<void> {
    const places = new Map<string, Seat[]>()
    for (const seat of this.seats.values())
      places.set(seat.cursor, [...(places.get(seat.cursor) ?? []), seat])
    for (const [cursor, seats] of places) {
      const read = await this.source.since(this.job, cursor, LIMITS_V1.replayEvents)
      const shared = new Map<Detail, string>()
      for (const seat of seats) {
        // It may have left, or been told more by the channel, during the read.
        if (!this.seats.has(seat.member)) continue
        if (!read) {
          this.vanish(seat)
          continue
        }
        const reason = resetReason(read)
        if (reason) {
          const told = reason === 'too_far' ? reason : 'redis_recovered'
          seat.member.say(json({ type: 'reset', job: this.job, reason: told }))
          this.seats.delete(seat.member)
          const anew = this.present(seat.member, read.snapshot, undefined)
          if (!isTerminal(read.snapshot.state)) this.seats.set(seat.member, anew)
          this.recent = []
          this.heard = read.snapshot.seq
        } else {
          const unmoved = seat.cursor === cursor
          this.give(
            seat,
            unmoved ? read.events : read.events.filter((event) => event.seq > seat.seq),
            unmoved ? shared : undefined,
          )
        }
      }
    }
  }

  /** The job is gone: its retention has passed, or Redis lost it. */
  private vanish(seat: Seat): void {
    this.seats.delete(seat.member)
    seat.member.say(json({ type: 'unsubscribed', job: this.job, code: 'not_found' }))
    seat.member.left()
  }

  /** Tells events, and the end when they lead to it. */
  private give(seat: Seat, events: StoredEvent[], shared?: Map<Detail, string>): void {
    const last = events.at(-1)
    if (!last) return
    this.tell(seat, events, shared)
    for (let i = events.length - 1; i >= 0; i--) {
      const state = headOf((events[i] as StoredEvent).body)?.state
      if (!state) continue
      if (isTerminal(state)) this.complete(seat, state)
      return
    }
  }

  private tell(seat: Seat, events: StoredEvent[], shared?: Map<Detail, string>): void {
    const last = events.at(-1)
    if (!last) return
    const { detail } = seat.member
    const plain = seat.from === (events[0] as StoredEvent).seq
    seat.seq = last.seq
    seat.cursor = last.cursor
    let text = plain ? shared?.get(detail) : undefined
    if (text === undefined) {
      const items = chosen(events, detail)
      // Nothing this watcher asked for: its numbers are told with the next message.
      if (items.length === 0) return
      text = eventsMessage(this.job, seat, items)
      if (plain) shared?.set(detail, text)
    }
    seat.from = last.seq + 1
    seat.member.say(text)
  }

  private flushHeld(seat: Seat): void {
    if (seat.from > seat.seq) return
    seat.member.say(eventsMessage(this.job, seat, []))
    seat.from = seat.seq + 1
  }
}

const seatOf = (member: Member, at: { seq: number; cursor: string }, id: string | undefined): Seat => ({
  member,
  seq: at.seq,
  cursor: at.cursor,
  from: at.seq + 1,
  id,
})

const resetReason = (read: Continuation): ResetReason | null => {
  if (read.gap) return read.gap
  if (read.more) return 'too_far'
  const bytes = read.events.reduce((sum, event) => sum + event.body.length, 0)
  return bytes > LIMITS_V1.replayBytes ? 'too_far' : null
}

/** State changes always; progress and log lines by what the watcher asked for. */
const chosen = (events: StoredEvent[], detail: Detail): StoredEvent[] => {
  if (detail === 'all') return events
  const types = events.map((event) => headOf(event.body)?.type)
  const lastProgress = detail === 'latest' ? types.lastIndexOf('progress') : -1
  return events.filter((_, i) => types[i] === 'state' || i === lastProgress)
}

const eventsMessage = (job: string, { from, seq, cursor, id }: Seat, items: StoredEvent[]): string => {
  const left = seq - from + 1 - items.length
  return (
    `{"type":"events","job":${json(job)},"from":${from},"to":${seq},"cursor":"${cursor}"` +
    `${left > 0 ? `,"conflated":${left}` : ''}${id === undefined ? '' : `,"id":${json(id)}`}` +
    `,"items":[${items.map((item) => item.body).join(',')}]}`
  )
}

const snapshotMessage = (snapshot: Snapshot, id: string | undefined): string => {
  const { id: job, ...rest } = snapshot
  return json({ type: 'snapshot', job, ...rest, id })
}
