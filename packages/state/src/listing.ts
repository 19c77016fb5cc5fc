// Listing jobs a page at a time, from what already lists them: the work streams, the scheduled set, the lists of ended
// jobs, and the sets of a tag or owner. No state is indexed twice.
import { z } from 'zod'
import { StateError } from './errors.ts'
import type { Keys } from './keys.ts'
import { queueNamed, queuesOf } from './queues.ts'
import { fieldsOf, snapshotOf } from './record.ts'
import { type RedisLink, redisTime } from './redis.ts'
import type { Snapshot } from './schema/job.ts'
import { JobName, Label } from './schema/limits.ts'
import { isState, isTerminal, STATES, type State } from './schema/machine.ts'

const ListOptions = z.strictObject({
  state: z.enum(STATES).optional(),
  name: JobName.optional(),
  tag: Label.optional(),
  owner: Label.optional(),
  /** Of its last error, as FAILED jobs have one. */
  code: z.string().max(100).optional(),
  /** Created at or after, and before: milliseconds of Redis' clock. */
  from: z.int().min(0).optional(),
  to: z.int().min(0).optional(),
  /** Of the page before. */
  cursor: z.string().max(1_000).optional(),
  limit: z.int().min(1).max(1_000).default(50),
})
export type ListOptions = z.input<typeof ListOptions>

export interface Page {
  jobs: Snapshot[]
  /** Give it to the next call; null at the end. */
  cursor: string | null
}

/** Where a listing goes on: partition, source, position within. */
const Place = z.tuple([z.int().nonnegative(), z.string(), z.string()])
type Place = z.infer<typeof Place>

const encodePlace = (place: Place): string => Buffer.from(JSON.stringify(place)).toString('base64url')

const decodePlace = (cursor: string): Place => {
  try {
    return Place.parse(JSON.parse(Buffer.from(cursor, 'base64url').toString()))
  } catch (cause) {
    throw new StateError('INVALID_CURSOR', 'This is not a cursor that a listing gave.', { cause })
  }
}

interface Found {
  id: string
  position: string
  /** The job's entry in a stream; a job that stands elsewhere by now left this one behind. */
  entry?: string
}

/** Ids in a stable order. Sources of a partition are walked in the order of their names. */
interface Source {
  name: string
  /** The next ids after a position ('' for the start); fewer than `count` at the end. */
  read(position: string, count: number): Promise<Found[]>
}

const sortedSet = (link: RedisLink, name: string, key: string, fromScore: number): Source => ({
  name,
  async read(position, count) {
    const split = position.indexOf(':')
    const score = position ? position.slice(0, split) : String(fromScore)
    const last = position.slice(split + 1)
    for (let take = count + 64; ; take *= 2) {
      const flat = (
        (await link.call('ZRANGEBYSCORE', key, score, '+inf', 'WITHSCORES', 'LIMIT', 0, take)) as unknown[]
      ).flat()
      const found: Found[] = []
      for (let i = 0; i + 1 < flat.length; i += 2)
        found.push({ id: String(flat[i]), position: `${Number(flat[i + 1])}:${String(flat[i])}` })
      const after = position
        ? found.filter((each) => !(each.position.startsWith(`${score}:`) && each.id <= last))
        : found
      if (after.length >= count || found.length < take) return after.slice(0, count)
    }
  },
})

const stream = (link: RedisLink, name: string, key: string, start: string, end: string): Source => ({
  name,
  async read(position, count) {
    const entries = (await link.call(
      'XRANGE',
      key,
      position ? `(${position}` : start,
      end,
      'COUNT',
      count,
    )) as [string, string[]][]
    return entries.map(([entry, fields]) => ({ id: fields[1] ?? '', position: entry, entry }))
  },
})

/** Lists of ended jobs that have not expired, as `STATE:retentionMs`. */
const endedLists = async (link: RedisLink, keys: Keys, now: number) =>
  ((await link.call('ZRANGEBYSCORE', keys.ended, `(${now}`, '+inf')) as string[]).map((list) => {
    const [state, retentionMs] = list.split(':')
    return { list, state: state as State, fromMs: Math.max(0, now - Number(retentionMs)) }
  })

const sourcesOf = async (
  link: RedisLink,
  keys: Keys,
  now: number,
  { state, name, tag, owner }: z.output<typeof ListOptions>,
): Promise<Source[]> => {
  const label = tag ?? (owner === undefined ? undefined : `@${owner}`)
  const sources: Source[] = []
  if (label !== undefined) {
    if (!state || !isTerminal(state)) sources.push(sortedSet(link, 'live', keys.tag(label), 0))
    if (!state || isTerminal(state)) sources.push(sortedSet(link, 'over', keys.tagEnded(label), now))
    return sources
  }
  if (!state || isTerminal(state))
    for (const ended of await endedLists(link, keys, now))
      if (!state || ended.state === state)
        sources.push(stream(link, `ended:${ended.list}`, keys.endedAs(ended.list), `${ended.fromMs}-0`, '+'))
  if (!state || state === 'SCHEDULED') sources.push(sortedSet(link, 'scheduled', keys.scheduled, 0))
  if (!state || state === 'QUEUED' || state === 'PROCESSING')
    for (const { queue, delivered } of await queuesOf(link, keys)) {
      if (name !== undefined && queueNamed(queue).name !== name) continue
      // What runs was given out, so it stands before the last entry that was.
      sources.push(
        stream(link, `work:${queue}`, keys.work(queue), '-', state === 'PROCESSING' ? delivered : '+'),
      )
    }
  return sources.sort((a, b) => (a.name < b.name ? -1 : 1))
}

/** Jobs a listing looks at per round trip. */
const CHUNK = 256

export const listJobs = async (
  link: RedisLink,
  partitions: readonly Keys[],
  given: ListOptions,
): Promise<Page> => {
  const wantedState: unknown = given.state
  if (wantedState !== undefined && !isState(wantedState))
    throw new StateError(
      'INVALID_STATE',
      `There is no state ${JSON.stringify(wantedState)}; choose one of ${STATES.join(', ')}.`,
    )
  const parsed = ListOptions.safeParse(given)
  if (!parsed.success)
    throw new StateError('INVALID_OPTIONS', `The list options are wrong. ${z.prettifyError(parsed.error)}`)
  const options = parsed.data
  const wanted = (job: Snapshot) =>
    (options.state === undefined || job.state === options.state) &&
    (options.name === undefined || job.name === options.name) &&
    (options.tag === undefined || job.tags.includes(options.tag)) &&
    (options.owner === undefined || job.owner === options.owner) &&
    (options.code === undefined || job.error?.code === options.code) &&
    (options.from === undefined || job.createdAt >= options.from) &&
    (options.to === undefined || job.createdAt < options.to)
  const [fromPartition, fromSource, fromPosition]: Place =
    options.cursor === undefined ? [0, '', ''] : decodePlace(options.cursor)
  const jobs: Snapshot[] = []
  for (let partition = fromPartition; partition < partitions.length; partition++) {
    const keys = partitions[partition] as Keys
    const now = await redisTime(link, keys.prefix)
    for (const source of await sourcesOf(link, keys, now, options)) {
      if (partition === fromPartition && source.name < fromSource) continue
      let position = partition === fromPartition && source.name === fromSource ? fromPosition : ''
      for (;;) {
        const found = await source.read(position, CHUNK)
        const hashes = await link.batch(found.map(({ id }) => ['HGETALL', keys.job(id)] as const))
        for (const [i, { id, position: at, entry }] of found.entries()) {
          position = at
          const hash = fieldsOf(hashes[i])
          const snapshot = snapshotOf(id, hash)
          if (!snapshot || (entry !== undefined && hash.place !== entry) || !wanted(snapshot)) continue
          jobs.push(snapshot)
          if (jobs.length === options.limit)
            return { jobs, cursor: encodePlace([partition, source.name, position]) }
        }
        if (found.length < CHUNK) break
      }
    }
  }
  return { jobs, cursor: null }
}

/** How many jobs are in each state. A job given to a worker but not yet started counts as PROCESSING. */
export const countJobs = async (
  link: RedisLink,
  partitions: readonly Keys[],
): Promise<Record<State, number>> => {
  const counts = Object.fromEntries(STATES.map((state) => [state, 0])) as Record<State, number>
  for (const keys of partitions) {
    const now = await redisTime(link, keys.prefix)
    counts.SCHEDULED += Number(await link.call('ZCARD', keys.scheduled))
    for (const { length, pending } of await queuesOf(link, keys)) {
      counts.PROCESSING += pending
      counts.QUEUED += Math.max(0, length - pending)
    }
    for (const { list, state, fromMs } of await endedLists(link, keys, now))
      counts[state] +=
        Number(await link.call('XLEN', keys.endedAs(list))) -
        (await expired(link, keys.endedAs(list), fromMs))
  }
  return counts
}

/** Entries of jobs that have expired: few, since reapers and every job that ends trim them. */
const expired = async (link: RedisLink, key: string, fromMs: number): Promise<number> => {
  let count = 0
  for (let from = '-'; ; ) {
    const page = (await link.call('XRANGE', key, from, `(${fromMs}-0`, 'COUNT', 1_000)) as [string, unknown][]
    count += page.length
    const last = page.at(-1)
    if (!last || page.length < 1_000) return count
    from = `(${last[0]}`
  }
}
