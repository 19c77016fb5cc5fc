// Jobs that killed one worker after the other: FAILED with the code CRASHED, each with its crash trail, until their retention
// has passed. Listed, run again or deleted, one or all of them.
import type { AttemptRecord } from './history.ts'
import type { Jobs } from './jobs.ts'
import { redisTime } from './redis.ts'
import type { Snapshot } from './schema/job.ts'

export interface Crash {
  attempt: number
  worker: string
  /** Of a worker that was given no id of its own: they are parts of its id. */
  host: string | null
  pid: number | null
  /** Milliseconds of Redis' clock. `foundAt`: when a reaper noticed, a lease after the last sign of life. */
  startedAt: number
  foundAt: number
}

export interface Quarantined {
  job: Snapshot
  /** The crashes since it was last queued with fresh budgets, oldest first. */
  crashes: Crash[]
}

export interface QuarantineWhich {
  /** These; otherwise all. */
  ids?: readonly string[]
  /** Only jobs of this name. */
  name?: string
  signal?: AbortSignal
  /** Told after each batch. */
  onProgress?: (done: number) => void
}

export interface QuarantineOutcome {
  done: number
  /** What was asked for by id and is not in quarantine (any more). */
  refused: string[]
}

/** What `listJobs` filters by. */
const WHICH = { state: 'FAILED', code: 'CRASHED' } as const
/** Jobs moved at a time. */
const BATCH = 200

const isQuarantined = (job: Snapshot | null): boolean =>
  job?.state === WHICH.state && job.error?.code === WHICH.code

/** `<host>-<pid>-<random>`, as worker.ts names a worker that was given no id. */
const hostOf = (worker: string): Pick<Crash, 'host' | 'pid'> => {
  const [, host = null, pid] = /^(.+)-(\d+)-[0-9a-f]{6}$/.exec(worker) ?? []
  return { host, pid: pid === undefined ? null : Number(pid) }
}

const crashesOf = (attempts: AttemptRecord[], crashes: number): Crash[] =>
  attempts
    .filter(({ outcome }) => outcome === 'crashed')
    .slice(-Math.max(1, crashes))
    .map(({ attempt, worker, startedAt, endedAt }) => ({
      attempt,
      worker,
      ...hostOf(worker),
      startedAt,
      foundAt: endedAt ?? startedAt,
    }))

export const quarantineOf = (jobs: Jobs) => {
  const all = async (which: QuarantineWhich, move: (id: string) => Promise<boolean>) => {
    const outcome: QuarantineOutcome = { done: 0, refused: [] }
    const batch = async (ids: readonly string[], asked: boolean) => {
      which.signal?.throwIfAborted()
      const done = await Promise.all(
        ids.map(async (id) => !(asked && !isQuarantined(await jobs.get(id))) && move(id)),
      )
      outcome.done += done.filter(Boolean).length
      if (asked) outcome.refused.push(...ids.filter((_, i) => !done[i]))
      which.onProgress?.(outcome.done)
    }
    if (which.ids) {
      for (let at = 0; at < which.ids.length; at += BATCH) await batch(which.ids.slice(at, at + BATCH), true)
      return outcome
    }
    // Those that crash again meanwhile come back to the end of the list: they had their turn.
    const began = await redisTime(jobs.link, jobs.transitions.keys[0]?.prefix ?? '')
    const named = which.name === undefined ? {} : { name: which.name }
    for (let cursor: string | null | undefined; cursor !== null; ) {
      const page: { jobs: Snapshot[]; cursor: string | null } = await jobs.list({
        ...WHICH,
        ...named,
        limit: BATCH,
        ...(cursor ? { cursor } : {}),
      })
      await batch(
        page.jobs.filter(({ updatedAt }) => updatedAt <= began).map(({ id }) => id),
        false,
      )
      cursor = page.cursor
    }
    return outcome
  }

  return {
    /**
     * A page of them, the longest there first.
     *
     * @throws StateError INVALID_OPTIONS, INVALID_CURSOR
     */
    list: async (
      options: { name?: string; limit?: number; cursor?: string } = {},
    ): Promise<{ jobs: Quarantined[]; cursor: string | null }> => {
      const page = await jobs.list({ ...options, ...WHICH })
      const quarantined = await Promise.all(
        page.jobs.map(async (job) => ({ job, crashes: crashesOf(await jobs.attempts(job.id), job.crashes) })),
      )
      return { jobs: quarantined, cursor: page.cursor }
    },

    /** Queues them again with fresh budgets, a batch at a time. */
    retry: (which: QuarantineWhich = {}) => all(which, async (id) => (await jobs.rerun(id)).ok),

    /** Deletes them with all that is kept of them, a batch at a time. */
    delete: (which: QuarantineWhich = {}) => all(which, async (id) => (await jobs.remove(id)).ok),
  }
}
