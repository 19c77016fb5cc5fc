// Listing jobs by state, a page at a time. Waiting and running jobs are listed by their work streams, ended and
// scheduled ones by their sorted sets: no state is indexed twice.
import { z } from 'zod'
import { StateError } from './errors.ts'
import { GROUP, type Keys } from './keys.ts'
import { fieldsOf, snapshotOf } from './record.ts'
import type { RedisLink } from './redis.ts'
import type { Snapshot } from './schema/job.ts'
import { isState, isTerminal, STATES, type State } from './schema/machine.ts'

export interface Page {
  jobs: Snapshot[]
  /** Give it to the next call; null at the end. */
  cursor: string | null
}

/** Where a listing goes on: partition, job name (work streams only), position within. */
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
}

/** The next ids of one source after a position ('' for its start); fewer than `count` at its end. */
type Source = (position: string, count: number) => Promise<Found[]>

const sortedSet =
  (link: RedisLink, key: string, fromScore: number): Source =>
  async (position, count) => {
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
  }

const workStream =
  (link: RedisLink, key: string, state: State): Source =>
  async (position, count) => {
    // What runs was delivered, so it stands before the last delivered entry.
    const end = state === 'PROCESSING' ? await lastDelivered(link, key) : '+'
    const from = position ? `(${position}` : '-'
    const entries = (await link.call('XRANGE', key, from, end, 'COUNT', count)) as [string, string[]][]
    return entries.map(([entry, fields]) => ({ id: fields[1] ?? '', position: entry }))
  }

const groupOf = async (link: RedisLink, key: string): Promise<Record<string, string> | undefined> => {
  const [exists] = await link.batch([['EXISTS', key]])
  if (exists !== 1) return undefined
  const groups = (await link.call('XINFO', 'GROUPS', key)) as unknown[]
  return groups.map(fieldsOf).find((group) => group.name === GROUP)
}

const lastDelivered = async (link: RedisLink, key: string): Promise<string> =>
  (await groupOf(link, key))?.['last-delivered-id'] ?? '0-0'

const now = async (link: RedisLink): Promise<number> => {
  const [seconds] = (await link.call('TIME')) as [string, string]
  return Number(seconds) * 1_000
}

/** Jobs a listing looks at per round trip. */
const CHUNK = 256

/** @throws StateError INVALID_STATE, INVALID_CURSOR */
export const listJobs = async (
  link: RedisLink,
  partitions: Keys[],
  { state, name, cursor, limit = 50 }: { state: State; name?: string; cursor?: string; limit?: number },
): Promise<Page> => {
  if (!isState(state))
    throw new StateError(
      'INVALID_STATE',
      `There is no state ${JSON.stringify(state)}; choose one of ${STATES.join(', ')}.`,
    )
  const start: Place = cursor === undefined ? [0, '', ''] : decodePlace(cursor)
  const time = await now(link)
  const jobs: Snapshot[] = []
  for (let partition = start[0]; partition < partitions.length; partition++) {
    const keys = partitions[partition] as Keys
    const names =
      state === 'QUEUED' || state === 'PROCESSING'
        ? ((await link.call('SMEMBERS', keys.names)) as string[]).sort()
        : ['']
    for (const each of names) {
      if (partition === start[0] && each < start[1]) continue
      if (name !== undefined && each !== '' && each !== name) continue
      const source =
        each !== ''
          ? workStream(link, keys.work(each), state)
          : state === 'SCHEDULED'
            ? sortedSet(link, keys.scheduled, 0)
            : sortedSet(link, keys.state(state), time)
      let position = partition === start[0] && each === start[1] ? start[2] : ''
      for (;;) {
        const found = await source(position, CHUNK)
        const hashes = await link.batch(found.map(({ id }) => ['HGETALL', keys.job(id)] as const))
        for (const [i, { id, position: at }] of found.entries()) {
          const snapshot = snapshotOf(id, hashes[i])
          position = at
          if (snapshot?.state !== state || (name !== undefined && snapshot.name !== name)) continue
          jobs.push(snapshot)
          if (jobs.length === limit) return { jobs, cursor: encodePlace([partition, each, position]) }
        }
        if (found.length < CHUNK) break
      }
    }
  }
  return { jobs, cursor: null }
}

/** How many jobs are in each state. A job delivered to a worker but not yet claimed counts as PROCESSING. */
export const countJobs = async (link: RedisLink, partitions: Keys[]): Promise<Record<State, number>> => {
  const counts = Object.fromEntries(STATES.map((state) => [state, 0])) as Record<State, number>
  const time = await now(link)
  for (const keys of partitions) {
    counts.SCHEDULED += Number(await link.call('ZCARD', keys.scheduled))
    for (const state of STATES.filter(isTerminal))
      counts[state] += Number(await link.call('ZCOUNT', keys.state(state), time, '+inf'))
    for (const name of (await link.call('SMEMBERS', keys.names)) as string[]) {
      const [length, group] = await Promise.all([
        link.call('XLEN', keys.work(name)),
        groupOf(link, keys.work(name)),
      ])
      const pending = Number(group?.pending ?? 0)
      counts.PROCESSING += pending
      counts.QUEUED += Number(length) - pending
    }
  }
  return counts
}
