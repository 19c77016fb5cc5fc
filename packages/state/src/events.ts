// Reading a job's stream: from a cursor, with every way a position can be lost told apart; and following it live.
import { StateError } from './errors.ts'
import type { Keys } from './keys.ts'
import { type Live, liveOf } from './live.ts'
import { snapshotOf } from './record.ts'
import { type Command, msOfTime, type RedisLink } from './redis.ts'
import type { JobEvent } from './schema/event.ts'
import type { Snapshot } from './schema/job.ts'
import { Cursor, seqOf } from './schema/limits.ts'
import { isTerminal, type State } from './schema/machine.ts'

/** One event as told to watchers. */
export interface StoredEvent {
  cursor: string
  seq: number
  /** state, progress, log, or a kind of a later release. */
  type: string
  /** Of a state event. */
  state: State | null
  /** Its JSON text, ready to be sent on: nothing of what the caller put into it was parsed. */
  body: string
}

/** What the value of a report is called in its event. */
const VALUE: Record<string, string> = { progress: 'progress', log: 'line' }

/**
 * The event that `append` of the Lua prelude stored as `<move>><STATE> <attempt><members>` or `<type> <attempt> <value>`:
 * a third of its JSON's bytes.
 */
const expanded = (cursor: string, stored: string): StoredEvent => {
  const dash = cursor.indexOf('-')
  const seq = cursor.slice(0, dash)
  const space = stored.indexOf(' ')
  const kind = stored.slice(0, space)
  const rest = stored.slice(space + 1)
  const head = `{"seq":${seq},"at":${cursor.slice(dash + 1)},"type":`
  const change = kind.indexOf('>')
  if (change > 0) {
    const state = kind.slice(change + 1) as State
    const body = `${head}"state","move":"${kind.slice(0, change)}","state":"${state}","attempt":${rest}}`
    return { cursor, seq: Number(seq), type: 'state', state, body }
  }
  const split = rest.indexOf(' ')
  // A kind of a later release may come without a value.
  const value =
    split < 0
      ? `"attempt":${rest}`
      : `"attempt":${rest.slice(0, split)},"${VALUE[kind] ?? 'value'}":${rest.slice(split + 1)}`
  return { cursor, seq: Number(seq), type: kind, state: null, body: `${head}"${kind}",${value}}` }
}

const MESSAGE = /^(?:[1-9]\d*)-\d+ [a-z]+(?:>[A-Z]+ \d+(?:,|$)| \d+(?: .|$))/

/** The event of a message on a job's channel, or null for a text that is none of ours. */
export const eventOfMessage = (message: string): StoredEvent | null => {
  if (!MESSAGE.test(message)) return null
  const space = message.indexOf(' ')
  return expanded(message.slice(0, space), message.slice(space + 1))
}

/** Why a position can't be continued: trimmed away, from a history that was lost, or ahead of what there is. */
export type Gap = 'trimmed' | 'diverged' | 'ahead'

export interface Continuation<S extends Snapshot = Snapshot> {
  snapshot: S
  /** The events after the position, contiguous; empty when there is a gap. */
  events: StoredEvent[]
  /** Whether the stream holds more than were asked for. */
  more: boolean
  gap: Gap | null
}

/**
 * Where the position stands in the stream whose entries from its seq on are given. Reports are trimmed from among the
 * state changes, so a hole anywhere after the position means that it can't be continued.
 */
const judgePosition = (cursor: string, snapshot: Snapshot, entries: StoredEvent[]): Gap | null => {
  const seq = seqOf(cursor)
  if (seq > snapshot.seq) return 'ahead'
  const first = entries[0]
  if (!first) return seq === snapshot.seq && cursor === snapshot.cursor ? null : 'trimmed'
  if (first.seq === seq && first.cursor !== cursor) return 'diverged'
  if (first.seq > seq + 1) return 'trimmed'
  return entries.every((entry, i) => entry.seq === first.seq + i) ? null : 'trimmed'
}

const storedEvents = (reply: unknown): StoredEvent[] =>
  ((reply ?? []) as [string, string[]][]).map(([cursor, fields]) => expanded(cursor, fields[1] ?? ''))

/** The position's own entry too, to see that it is still the same one. */
const readsAfter = (keys: Keys, id: string, cursor: string, count: number): Command => [
  'XRANGE',
  keys.events(id),
  `${Math.max(seqOf(cursor), 1)}-0`,
  '+',
  'COUNT',
  count + 2,
]

const continued = <S extends Snapshot>(
  snapshot: S | null,
  entries: unknown,
  cursor: string,
  count: number,
): Continuation<S> | null => {
  if (!snapshot) return null
  const stored = storedEvents(entries)
  const gap = judgePosition(cursor, snapshot, stored)
  if (gap) return { snapshot, events: [], more: false, gap }
  const after = stored.filter((event) => event.seq > seqOf(cursor))
  return { snapshot, events: after.slice(0, count), more: after.length > count, gap: null }
}

/**
 * The job and its events after `cursor` (at most `count`), read at one moment. Null when there is no such job.
 *
 * @param cursor a position told before, or `0-0` for the beginning
 */
export const readSince = async (
  link: RedisLink,
  keys: Keys,
  id: string,
  cursor: string,
  count: number,
): Promise<Continuation | null> => {
  const reads: Command[] = [['HGETALL', keys.job(id)], readsAfter(keys, id, cursor, count)]
  const [hash, entries] = await link.atomic(reads)
  return continued(snapshotOf(id, hash), entries, cursor, count)
}

/** Every state change of the job since its start, however long ago: these are never trimmed. Empty: no such job. */
export const stateChanges = async (link: RedisLink, keys: Keys, id: string): Promise<JobEvent[]> => {
  const changes: JobEvent[] = []
  for (let from = '1-0'; ; ) {
    const page = storedEvents(await link.call('XRANGE', keys.events(id), from, '+', 'COUNT', PAGE))
    for (const event of page) if (event.type === 'state') changes.push(JSON.parse(event.body) as JobEvent)
    const last = page.at(-1)
    if (!last || page.length < PAGE) return changes
    from = `(${last.cursor}`
  }
}

/** The job as it is now, or null. */
export const readSnapshot = async (link: RedisLink, keys: Keys, id: string): Promise<Snapshot | null> =>
  snapshotOf(id, await link.call('HGETALL', keys.job(id)))

/** A job to be read, and from where on its events are wanted too: at most `count` of them. */
export interface LiveRead {
  id: string
  after?: { cursor: string; count: number }
}

/**
 * Jobs of one partition, each with its worker's lease and the events that were asked for, all read at one moment. Null
 * where there is no such job.
 */
export const readLive = async (
  link: RedisLink,
  keys: Keys,
  reads: readonly LiveRead[],
): Promise<(Continuation<Live> | null)[]> => {
  const commands: Command[] = []
  for (const { id, after } of reads) {
    commands.push(['HGETALL', keys.job(id)], ['PEXPIRETIME', keys.heartbeat(id)])
    if (after) commands.push(readsAfter(keys, id, after.cursor, after.count))
  }
  commands.push(['TIME'])
  const replies = await link.atomic(commands)
  const now = msOfTime(replies.pop())
  const rest = replies.values()
  const next = () => rest.next().value
  return reads.map(({ id, after }) => {
    const [hash, heartbeat, entries] = [next(), next(), after && next()]
    const live = liveOf(id, hash, Number(heartbeat), now)
    if (after) return continued(live, entries, after.cursor, after.count)
    return live && { snapshot: live, events: [], more: false, gap: null }
  })
}

/** Of jobs of one partition: whether each still ends with the event at its cursor. */
export const readWhetherLast = async (
  link: RedisLink,
  keys: Keys,
  places: readonly { id: string; cursor: string }[],
): Promise<boolean[]> => {
  const replies = await link.batch(places.map(({ id, cursor }) => readsAfter(keys, id, cursor, 0)))
  return replies.map((reply, i) => {
    const entries = (reply ?? []) as [string, unknown][]
    return entries.length === 1 && entries[0]?.[0] === places[i]?.cursor
  })
}

/** Wakes whoever waits for news of one job. */
export interface Wakeups {
  /** Resolves at once when there was news since the last call, else at the next, after `maxMs` at the latest. */
  next(maxMs: number, signal?: AbortSignal): Promise<void>
  close(): void
}

/** Events that one read takes at most. */
const PAGE = 200
/** Publish/subscribe may lose a message; a read at least this often finds it. */
const POLL_MS = 5_000

/**
 * Every event after `after`, then live ones, each once and in order; ends after the terminal event.
 *
 * @throws StateError UNKNOWN_JOB, EVENTS_TRIMMED, INVALID_CURSOR
 */
export async function* followEvents(
  link: RedisLink,
  keys: Keys,
  id: string,
  after: string,
  wakeups: () => Promise<Wakeups>,
  signal?: AbortSignal,
): AsyncGenerator<JobEvent, void, undefined> {
  if (!Cursor.safeParse(after).success)
    throw new StateError(
      'INVALID_CURSOR',
      'A cursor looks like 12-1795457647345; 0-0 stands for the beginning.',
    )
  let cursor = after
  const news = await wakeups()
  try {
    while (!signal?.aborted) {
      const read = await readSince(link, keys, id, cursor, PAGE)
      if (!read) throw new StateError('UNKNOWN_JOB', `There is no job ${id} (any more).`)
      if (read.gap)
        throw new StateError(
          'EVENTS_TRIMMED',
          `The events after ${cursor} are not there any more (${read.gap}).`,
        )
      for (const event of read.events) {
        cursor = event.cursor
        yield JSON.parse(event.body) as JobEvent
      }
      if (read.more) continue
      if (isTerminal(read.snapshot.state)) return
      await news.next(POLL_MS, signal)
    }
  } finally {
    news.close()
  }
}
