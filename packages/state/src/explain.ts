// Why a job is not moving: one reason, one sentence, and the figures behind them.
import { GROUP, type Keys } from './keys.ts'
import { leaseOf } from './live.ts'
import { presentWorkers } from './presence.ts'
import { queueName, queueNamed, queuesOf } from './queues.ts'
import { fieldsOf, nowOf, runOf, snapshotOf } from './record.ts'
import { type RedisLink, redisTime } from './redis.ts'
import type { Snapshot } from './schema/job.ts'
import { isTerminal, PRIORITIES } from './schema/machine.ts'

export interface Explanation {
  /**
   * `ended`; `running`; `cancelling` (its worker was asked to stop); `orphaned` (its worker is gone, a reaper takes it);
   * `delayed`, `backing_off`, `rate_limited` (until `until`); `overdue` (due, and no reaper queues it); `paused`;
   * `no_worker` (nobody takes this job name); `waiting` (behind `ahead` jobs); `undelivered` (its reader died before it
   * started; a reaper queues it again).
   */
  reason:
    | 'ended'
    | 'running'
    | 'cancelling'
    | 'orphaned'
    | 'delayed'
    | 'backing_off'
    | 'rate_limited'
    | 'overdue'
    | 'paused'
    | 'no_worker'
    | 'waiting'
    | 'undelivered'
  /** For people. */
  says: string
  job: Snapshot
  /** Redis' time in milliseconds at which a scheduled job is due. */
  until?: number
  /** Jobs that are taken before it, counted up to 10,000. */
  ahead?: number
  /** Workers that are there for its name. */
  workers?: number
  /** Who holds it, and since how many milliseconds nothing was heard from there (null: longer than the lease). */
  heldBy?: string
  heartbeatAgeMs?: number | null
  /** Milliseconds since a reaper last swept the partition; null: never. */
  sweptMsAgo?: number | null
}

const COUNTED = 10_000
/** Reapers queue due jobs every second. */
const OVERDUE_MS = 5_000

export const explain = async (
  link: RedisLink,
  keys: Keys,
  first: Keys,
  id: string,
): Promise<Explanation | null> => {
  const [reply, lapsesAt] = await link.atomic([
    ['HGETALL', keys.job(id)],
    ['PEXPIRETIME', keys.heartbeat(id)],
  ])
  const job = snapshotOf(id, reply)
  if (!job) return null
  if (isTerminal(job.state)) return { reason: 'ended', says: `The job has ended: ${job.state}.`, job }
  const hash = fieldsOf(reply)
  const last = nowOf(hash.now)?.last
  const now = await redisTime(link, keys.prefix)
  const swept = await link.call('HGET', keys.sweep, 'at')
  const sweptMsAgo = swept === null ? null : Math.max(0, now - Number(swept))
  const reaper =
    sweptMsAgo === null ? 'no reaper has ever swept here' : `a reaper last swept ${seconds(sweptMsAgo)} ago`
  if (job.state === 'SCHEDULED') return scheduled(job, now, last, sweptMsAgo, reaper)
  if (job.state === 'PROCESSING') {
    const { leaseMs } = runOf(hash.run)
    const lease = leaseOf(job, leaseMs, Number(lapsesAt), now)
    const heartbeatAgeMs = lease?.lost ? null : (lease?.ageMs ?? 0)
    const held = { job, heldBy: job.worker ?? '', heartbeatAgeMs, sweptMsAgo }
    if (heartbeatAgeMs === null)
      return {
        ...held,
        reason: 'orphaned',
        says: `Its worker ${held.heldBy} has not been heard for longer than its lease of ${seconds(leaseMs)}; ${reaper}.`,
      }
    const heard = `${held.heldBy}, heard ${seconds(heartbeatAgeMs)} ago`
    return job.cancelRequested
      ? { ...held, reason: 'cancelling', says: `A cancel was requested; it is being stopped by ${heard}.` }
      : { ...held, reason: 'running', says: `Attempt ${job.attempt} is run by ${heard}.` }
  }
  const paused = (await link.call('SMEMBERS', keys.paused)) as string[]
  const held = paused.find((name) => name === '*' || name === job.name)
  if (held !== undefined)
    return {
      reason: 'paused',
      says: held === '*' ? 'All job names are paused.' : `The job name ${job.name} is paused.`,
      job,
    }
  const present = (await presentWorkers(link, first)).filter(({ name }) => name === job.name)
  const workers = present.length
  const ahead = await jobsAhead(link, keys, job, hash.place ?? '')
  if (workers === 0)
    return {
      reason: 'no_worker',
      says: `No worker for ${job.name} is there.`,
      job,
      workers,
      ...(ahead === null ? {} : { ahead }),
    }
  const reader = ahead === null ? await readerOf(link, keys, job, hash.place ?? '') : null
  if (ahead === null && present.some(({ id }) => id === reader))
    return {
      reason: 'waiting',
      says: `It is the next that the worker ${reader} starts, when a slot and its rate allow.`,
      job,
      workers,
      ahead: 0,
    }
  if (ahead === null)
    return {
      reason: 'undelivered',
      says: `It was read by a worker that did not start it; ${reaper}.`,
      job,
      workers,
      sweptMsAgo,
    }
  return {
    reason: 'waiting',
    says: `It waits behind ${ahead}${ahead >= COUNTED ? ' or more' : ''} job(s), for ${workers} worker(s).`,
    job,
    workers,
    ahead,
  }
}

const scheduled = (
  job: Snapshot,
  now: number,
  last: string | undefined,
  sweptMsAgo: number | null,
  reaper: string,
): Explanation => {
  const until = job.runAt ?? now
  const told = { job, until, sweptMsAgo }
  if (now - until > OVERDUE_MS)
    return {
      ...told,
      reason: 'overdue',
      says: `It was due ${seconds(now - until)} ago and was not queued; ${reaper}.`,
    }
  const due = `due in ${seconds(Math.max(0, until - now))}`
  if (last === 'defer') return { ...told, reason: 'rate_limited', says: `Its rate key is used up; ${due}.` }
  if (last === 'retry' || last === 'timeout')
    return {
      ...told,
      reason: 'backing_off',
      says: `It failed ${job.failures} of ${job.maxAttempts} times; the next attempt is ${due}.`,
    }
  return { ...told, reason: 'delayed', says: `It is ${due}.` }
}

/** Jobs of the same queue before the entry, and all of the higher priorities; null when the entry was given out. */
const jobsAhead = async (
  link: RedisLink,
  keys: Keys,
  job: Snapshot,
  entry: string,
): Promise<number | null> => {
  const rank = PRIORITIES.indexOf(job.priority)
  let ahead = 0
  for (const { queue, length, pending, delivered } of await queuesOf(link, keys)) {
    const { name, priority } = queueNamed(queue)
    if (name !== job.name) continue
    if (PRIORITIES.indexOf(priority) < rank) ahead += length - pending
    if (priority !== job.priority) continue
    if (!isAfter(entry, delivered)) return null
    const before = (await link.call(
      'XRANGE',
      keys.work(queue),
      `(${delivered}`,
      `(${entry}`,
      'COUNT',
      COUNTED,
    )) as unknown[]
    ahead += before.length
  }
  return ahead
}

/** The worker that was given the entry, or null when nobody holds it any more. */
const readerOf = async (
  link: RedisLink,
  keys: Keys,
  job: Snapshot,
  entry: string,
): Promise<string | null> => {
  const queue = queueName(job.name, job.priority)
  const [held] = (await link.call('XPENDING', keys.work(queue), GROUP, entry, entry, 1)) as [string, string][]
  return held?.[1] ?? null
}

const isAfter = (a: string, b: string): boolean => {
  const [ams = 0, aseq = 0] = a.split('-').map(Number)
  const [bms = 0, bseq = 0] = b.split('-').map(Number)
  return ams > bms || (ams === bms && aseq > bseq)
}

const seconds = (ms: number): string =>
  ms < 10_000 ? `${(ms / 1_000).toFixed(1)} s` : `${Math.round(ms / 1_000)} s`
