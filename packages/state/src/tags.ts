// How many jobs that carry a tag are in each state: read at one moment, and told change by change, so that whoever reads
// once and then listens counts exactly. See `tell_tags` of lua/prelude.lua.
import { StateError } from './errors.ts'
import type { Keys } from './keys.ts'
import { type RedisLink, redisTime } from './redis.ts'
import { Label } from './schema/limits.ts'
import { isState, isTerminal, STATES, type State } from './schema/machine.ts'

/** Scores of one state; there is more room in it than milliseconds since 1970. */
export const TAG_RANGE = 1e13
/** The member that counts the changes. */
export const TAG_VERSION = '*'

export type StateCounts = Record<State, number>

/** Counts of one partition. */
export interface TagCounts {
  /** The number of the last change that they contain; 0 where no job has the tag. */
  version: number
  counts: StateCounts
}

export interface TagChange {
  version: number
  /** It made the set: before it no job had the tag. */
  first: boolean
  job: string
  /** Null for a job that is new, and for one that was removed. */
  from: State | null
  to: State | null
  /** Of the job's event. */
  seq: number
}

export const noCounts = (): StateCounts =>
  Object.fromEntries(STATES.map((state) => [state, 0])) as StateCounts

/** Jobs in their retention are counted, those beyond are not, whether Redis has dropped them yet or not. */
export const readTagCounts = async (link: RedisLink, keys: Keys, tag: string): Promise<TagCounts> => {
  const key = keys.tagStates(tag)
  const now = await redisTime(link, keys.prefix)
  const [version, ...counted] = await link.atomic([
    ['ZSCORE', key, TAG_VERSION],
    ...STATES.map((state, i) => {
      const start = (i + 1) * TAG_RANGE
      return ['ZCOUNT', key, isTerminal(state) ? `(${start + now}` : start, `(${start + TAG_RANGE}`] as const
    }),
  ])
  const counts = noCounts()
  for (const [i, state] of STATES.entries()) counts[state] = Number(counted[i])
  return { version: Number(version ?? 0), counts }
}

const CHANGE = /^(\d+) (\S+) ([A-Z]+|-) ([A-Z]+|-) (\d+)( new)?$/

/** The change of a message on a tag's channel, or null for a text that is none of ours. */
export const tagChangeOf = (message: string): TagChange | null => {
  const [, version, job = '', from = '', to = '', seq, made] = CHANGE.exec(message) ?? []
  if (version === undefined) return null
  return {
    version: Number(version),
    first: made !== undefined,
    job,
    from: isState(from) ? from : null,
    to: isState(to) ? to : null,
    seq: Number(seq),
  }
}

/** The counts after one more change. */
export const countChange = (counts: StateCounts, { from, to }: Pick<TagChange, 'from' | 'to'>): void => {
  if (from) counts[from]--
  if (to) counts[to]++
}

export const countTag = async (
  link: RedisLink,
  partitions: readonly Keys[],
  tag: string,
): Promise<StateCounts> => {
  if (!Label.safeParse(tag).success)
    throw new StateError('INVALID_OPTIONS', `${JSON.stringify(tag)?.slice(0, 80)} is not a tag.`)
  const counts = noCounts()
  for (const read of await Promise.all(partitions.map((keys) => readTagCounts(link, keys, tag))))
    for (const state of STATES) counts[state] += read.counts[state]
  return counts
}
