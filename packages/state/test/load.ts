// Jobs under load while something breaks: producers, workers, a reaper and followers, and what must hold of them after.
import { randomBytes } from 'node:crypto'
import { isDeepStrictEqual } from 'node:util'
import {
  type Ack,
  cursorOf,
  defineJob,
  fold,
  isStateError,
  isTerminal,
  type JobEvent,
  JobEventSchema,
  Jobs,
  type Keys,
  readSince,
  type Snapshot,
  Worker,
} from '@jobs/state'
import { until } from '@jobs/testkit'
import { expect } from 'vitest'

const DEADLINE_MS = 8_000
/** Every how many jobs one is followed, and one is enqueued so that a replica has it. */
const FOLLOWED = 5
const ACKED = 4

export const loadJob = defineJob({ name: 'load' })

interface Accepted {
  id: string
  ack: Ack
}

interface Followed {
  id: string
  /** What was seen; after an explicit error from a new snapshot on. */
  seen: JobEvent[]
  /** Errors that told of a lost position. */
  resets: string[]
  done: Promise<void>
}

export interface Findings {
  accepted: number
  /** Accepted in memory only, and gone. */
  lost: number
  /** Followers that were told that their position is lost. */
  resets: number
  /** Followers that saw an end which was lost afterwards. */
  rewritten: number
  slowestMs: number
  /** Errors on the way. */
  told: string[]
}

export interface Load {
  readonly jobs: Jobs
  readonly keys: readonly Keys[]
  readonly accepted: readonly Accepted[]
  /** Resolves when so many more jobs have been accepted and completed. */
  progress(count: number): Promise<void>
  /**
   * Ends the production, waits until every job that is there has ended, and checks all that must hold: each ended once,
   * its stream is contiguous and folds to its hash, followers saw every event once or were told, no call outlived its
   * deadline, and what its replicas had is there.
   */
  check(): Promise<Findings>
  stop(): Promise<void>
}

export const startLoad = async (
  url: string,
  {
    partitions,
    ackReplicas = 1,
    workers = 2,
  }: { partitions: number; ackReplicas?: number; workers?: number },
): Promise<Load> => {
  const namespace = `load${randomBytes(3).toString('hex')}`
  const told = new Set<string>()
  const onTrouble = (error: Error) => told.add(error.message.replace(/j[0-9a-f]{24}|\d{4,}/g, '…'))
  const connect = () =>
    new Jobs({
      ...{ url, namespace, partitions, ackReplicas, onTrouble },
      ...{ deadlineMs: DEADLINE_MS, commandTimeoutMs: 1_500 },
    })
  const jobs = connect()
  const { transitions } = jobs
  const accepted: Accepted[] = []
  const followed: Followed[] = []
  let completed = 0
  let slowestMs = 0
  let producing = true

  const staff = await Promise.all(
    Array.from({ length: workers }, async () => {
      const own = connect()
      const worker = new Worker(
        own,
        loadJob,
        async (job) => {
          job.progress(1)
          await new Promise((resolve) => setTimeout(resolve, 5))
          job.progress(2)
          return job.attempt
        },
        { concurrency: 8, leaseMs: 2_000, progressIntervalMs: 0 },
      )
      worker.on('completed', () => completed++)
      worker.on('error', onTrouble)
      await worker.start()
      return { own, worker }
    }),
  )

  const timed = async <T>(call: () => Promise<T>): Promise<T> => {
    const began = performance.now()
    try {
      return await call()
    } finally {
      slowestMs = Math.max(slowestMs, performance.now() - began)
    }
  }

  const follow = (id: string): Followed => {
    const each: Followed = { id, seen: [], resets: [], done: Promise.resolve() }
    each.done = (async () => {
      for (let after = '0-0'; ; ) {
        try {
          for await (const event of jobs.events(id, { after })) {
            each.seen.push(event)
            after = cursorOf(event)
          }
          return
        } catch (error) {
          if (isStateError(error, 'UNKNOWN_JOB')) {
            each.resets.push(error.code)
            return
          }
          if (isStateError(error, 'EVENTS_TRIMMED')) {
            each.resets.push(error.code)
            each.seen = []
            after = '0-0'
          } else if (!isStateError(error, 'REDIS_UNAVAILABLE', 'REDIS_TIMEOUT', 'REDIS_REFUSED')) throw error
        }
      }
    })()
    return each
  }

  const produce = async () => {
    for (let made = 0; producing; made++) {
      const id = `j${randomBytes(12).toString('hex')}`
      const ack = made % ACKED === 0 ? 'replica' : 'memory'
      for (;;) {
        try {
          await timed(() => jobs.enqueue(loadJob, { made }, { id, ack }))
          accepted.push({ id, ack })
          break
        } catch (error) {
          // Told that it is not known to be there, or not safe enough: repeating is harmless.
          if (!isStateError(error)) throw error
          onTrouble(error)
          if (isStateError(error, 'NOT_REPLICATED')) {
            accepted.push({ id, ack: 'memory' })
            break
          }
          if (!producing) return
        }
      }
      if (made % FOLLOWED === 0) followed.push(follow(id))
    }
  }
  const producers = Promise.all(Array.from({ length: 4 }, produce))

  let reaping = true
  const reaper = (async () => {
    while (reaping) {
      for (const keys of transitions.keys)
        try {
          await timed(() => transitions.promote(keys, 100))
          for (let cursor = ''; cursor !== '0-0'; ) {
            const from = { cursor: cursor || '0-0', count: 100, minIdleMs: 1_000, maxGapMs: 2_000 }
            cursor = (await timed(() => transitions.reap(keys, 'load', { ...from, amnesty: false }))).cursor
          }
        } catch (error) {
          if (!isStateError(error)) throw error
          onTrouble(error)
        }
      await new Promise((resolve) => setTimeout(resolve, 100))
    }
  })()

  const patiently = async <T>(read: () => Promise<T>): Promise<T> => {
    for (;;)
      try {
        return await timed(read)
      } catch (error) {
        if (!isStateError(error, 'REDIS_UNAVAILABLE', 'REDIS_TIMEOUT', 'REDIS_REFUSED')) throw error
      }
  }

  const history = async (id: string): Promise<JobEvent[]> => {
    const read = await readSince(jobs.link, transitions.keysFor(id), id, '0-0', 10_000)
    return (read?.events ?? []).map(({ body }) => JobEventSchema.parse(JSON.parse(body)))
  }

  return {
    jobs,
    keys: transitions.keys,
    accepted,
    progress: async (count) => {
      const enough = { accepted: accepted.length + count, completed: completed + count }
      await until(() => accepted.length >= enough.accepted && completed >= enough.completed, {
        what: `${count} more jobs being accepted and completed`,
        timeoutMs: 40_000,
      })
    },
    check: async () => {
      producing = false
      await producers
      const lost: string[] = []
      let resets = 0
      let rewritten = 0
      const waiting = new Map(accepted.map((each) => [each.id, each]))
      await until(
        async () => {
          for (const { id, ack } of [...waiting.values()].slice(0, 200)) {
            const snapshot = await patiently(() => jobs.get(id))
            if (snapshot && !isTerminal(snapshot.state)) break
            waiting.delete(id)
            if (snapshot) continue
            expect(ack, `the job ${id}, which a replica had`).toBe('memory')
            lost.push(id)
          }
          return waiting.size === 0
        },
        { what: 'every job ending', timeoutMs: 40_000 },
      )
      await Promise.race([
        Promise.all(followed.map(({ done }) => done)),
        new Promise((_, reject) => setTimeout(() => reject(new Error('a follower hangs')), 20_000).unref()),
      ])
      const gone = new Set(lost)
      for (const { id } of accepted) {
        if (gone.has(id)) continue
        const [snapshot, events] = await patiently(() => Promise.all([jobs.get(id), history(id)]))
        expect(events.map(({ seq }) => seq)).toEqual(events.map((_, i) => i + 1))
        expect(snapshot).toEqual(
          events.reduce<Snapshot | null>((before, event) => fold(before, event, id), null),
        )
        expect(events.filter((event) => event.type === 'state' && isTerminal(event.state))).toHaveLength(1)
      }
      for (const { id, seen, resets: explicit } of followed) {
        resets += explicit.length
        if (gone.has(id)) continue
        expect(seen.map(({ seq }) => seq)).toEqual(seen.map((_, i) => i + 1))
        if (explicit.includes('UNKNOWN_JOB')) continue
        // Whoever saw the end before it was lost can't be told of it any more; everybody else saw what is there.
        const last = seen.at(-1)
        expect(last?.type === 'state' && isTerminal(last.state)).toBe(true)
        if (!isDeepStrictEqual(seen, await patiently(() => history(id)))) rewritten++
      }
      expect(slowestMs).toBeLessThan(DEADLINE_MS + 1_500)
      return {
        ...{ accepted: accepted.length, lost: lost.length, resets, rewritten },
        ...{ slowestMs: Math.round(slowestMs), told: [...told] },
      }
    },
    stop: async () => {
      producing = false
      reaping = false
      await Promise.allSettled([producers, reaper])
      await Promise.all(staff.map(({ worker }) => worker.stop({ graceMs: 1_000 })))
      await Promise.all(staff.map(({ own }) => own.close()))
      await jobs.close()
    },
  }
}
