// The passes of a reaper: promote what is due, end what is over its time, sweep for jobs whose worker is gone. Any number
// of reapers may run; correctness comes from the scripts, each of which takes an entry and moves its job in one step.
import { isStateError } from './errors.ts'
import type { Jobs } from './jobs.ts'
import type { Keys } from './keys.ts'
import { checkLayout } from './layout.ts'
import type { Expired, Promoted, Reaped } from './outcomes.ts'
import { msOfTime } from './redis.ts'

/** Entries one script call looks at most: no script may hold Redis for long. */
const BATCH = 100
/** Jobs that a pass promotes or ends, about: the next one goes on. */
const AT_ONCE = 100 * BATCH
/** Partitions that a pass is at at the same time: with many, one after the other would be late. */
const AT_A_TIME = 16

export interface SweepReport {
  reaped: Reaped[]
  /** Whether any step only armed heartbeats anew, since Redis had been silent. */
  amnesty: boolean
}

export interface ReaperOptions {
  /** How often `sweep` is called: a longer silence opens an amnesty for lapsed heartbeats. */
  intervalMs: number
  /** Passes only tell what they would do, and write nothing. An amnesty is told, and what would follow it. */
  dry?: boolean
  /** Told why a partition was not got through, by a pass that got through others. */
  onTrouble?: (error: unknown) => void
}

/**
 * A reaper's passes over every partition, each of them once a call. Where there are several, one whose server does not
 * answer keeps the others waiting for a moment only: it is left under way, and passed over until it has come to an end.
 * What was done there, the next call tells.
 */
export const reaperOf = (jobs: Jobs, { intervalMs, dry = false, onTrouble }: ReaperOptions) => {
  const { transitions, link } = jobs
  const maxGapMs = Math.max(2 * intervalMs, 1_000)
  // Waiting longer would be a silence to the others, and thus an amnesty at every pass: whoever died there would stay.
  const patienceMs = dry || transitions.keys.length === 1 ? undefined : maxGapMs / 8
  /** What is done and not yet told. */
  let swept: SweepReport = { reaped: [], amnesty: false }
  let promoted: Promoted[] = []
  let expired: Expired[] = []
  /** Where the walk through all that is in workers' hands goes on, by work stream. */
  const walks = new Map<string, string>()

  /** Throws when no partition was got through, and what speaks against all of them. */
  const everyPartition = (pass: (keys: Keys) => Promise<void>) => {
    const underWay = new Map<Keys, Promise<void>>()
    let through = 0
    let troubles: unknown[] = []
    const start = (keys: Keys): Promise<void> => {
      const done = pass(keys)
        .then(
          () => {
            through++
          },
          (error) => {
            troubles.push(error)
          },
        )
        .finally(() => underWay.delete(keys))
      underWay.set(keys, done)
      return done
    }
    return async (): Promise<void> => {
      const left = transitions.keys.filter((keys) => !underWay.has(keys))
      const one = async () => {
        for (let keys = left.shift(); keys; keys = left.shift()) await within(start(keys), patienceMs)
      }
      await Promise.all(Array.from({ length: Math.min(AT_A_TIME, left.length) }, one))
      while (through === 0 && underWay.size > 0) await Promise.race(underWay.values())
      const [told, got] = [troubles, through]
      troubles = []
      through = 0
      const against = told.find((error) => got === 0 || isStateError(error, 'LAYOUT_MISMATCH'))
      if (against) throw against
      for (const error of told) onTrouble?.(error)
    }
  }

  /**
   * What silent workers hold, to its end; and a step of the walk through what all of them hold, for an attempt that a live
   * worker has forgotten. So a sweep costs by what is overdue.
   */
  const sweepQueue = async (keys: Keys, queue: string, minIdleMs: number): Promise<void> => {
    let amnesty = false
    const told = new Set<string>()
    const step = async (cursor: string, whole: boolean): Promise<string> => {
      const args = {
        cursor,
        count: BATCH,
        minIdleMs,
        maxGapMs,
        silenceMs: 2 * intervalMs,
        amnesty,
        whole,
        dry,
      }
      const made = await transitions.reap(keys, queue, args)
      amnesty ||= made.amnesty
      for (const reaped of made.reaped) {
        // Nothing was written: the walk sees it once more.
        if (dry && told.has(reaped.id)) continue
        told.add(reaped.id)
        swept.reaped.push(reaped)
      }
      return made.cursor
    }
    let cursor = '0-0'
    do cursor = await step(cursor, false)
    while (cursor !== '0-0')
    const work = keys.work(queue)
    cursor = walks.get(work) ?? '0-0'
    do cursor = await step(cursor, true)
    while (dry && cursor !== '0-0')
    walks.set(work, cursor)
    swept.amnesty ||= amnesty
  }

  const promoteIn = async (keys: Keys): Promise<number | null> => {
    const [first, time] = await link.batch([['ZRANGE', keys.scheduled, 0, 0, 'WITHSCORES'], ['TIME']])
    const due = Number((first as unknown[]).flat()[1])
    if (Number.isNaN(due)) return null
    // A read costs a third of a script, and is what most looks are.
    if (due > msOfTime(time)) return due - msOfTime(time)
    for (let skip = 0; ; skip += BATCH) {
      const step = await transitions.promote(keys, BATCH, dry ? skip : undefined)
      promoted.push(...step.promoted)
      // A backlog is told in parts.
      if (promoted.length >= AT_ONCE) return 0
      if (step.promoted.length < BATCH && (dry || step.nextInMs !== 0)) return step.nextInMs
    }
  }

  /** When a sweep last got through, by partition, of performance.now. */
  const sweptAt = transitions.keys.map(() => performance.now())
  let minIdle = 2 * intervalMs
  let nextInMs: number | null = null
  let moreOver = false
  const sweepAll = everyPartition(async (keys) => {
    // A Redis that lost its data has lost the layout too, and would let in whoever counts other partitions.
    if (keys === transitions.keys[0]) await checkLayout(link, jobs.namespace, transitions.keys.length, !dry)
    for (const queue of (await link.call('SMEMBERS', keys.queues)) as string[])
      await sweepQueue(keys, queue, minIdle).catch((error) => {
        // A queue that is a key of another type must not hold up the others. Anything else Redis refuses to all of them.
        if (!isStateError(error, 'REDIS_REFUSED') || !error.message.includes('WRONGTYPE')) throw error
        onTrouble?.(error)
      })
    sweptAt[transitions.keys.indexOf(keys)] = performance.now()
  })
  const promoteAll = everyPartition(async (keys) => {
    const next = await promoteIn(keys)
    if (next !== null) nextInMs = Math.min(nextInMs ?? next, next)
  })
  const expireAll = everyPartition(async (keys) => {
    for (let skip = 0; ; skip += BATCH) {
      const step = await transitions.expire(keys, BATCH, dry ? skip : undefined)
      expired.push(...step.expired)
      if (!step.more) break
      // An avalanche is told in parts.
      if (!dry && expired.length >= AT_ONCE) {
        moreOver = true
        break
      }
    }
  })

  return {
    /**
     * One pass over every work stream. Live workers beat well within two intervals of the default; what those hold that
     * were not heard for that long is looked at.
     *
     * @throws StateError LAYOUT_MISMATCH
     */
    sweep: async (minIdleMs = 2 * intervalMs): Promise<SweepReport> => {
      minIdle = minIdleMs
      await sweepAll()
      const told = swept
      swept = { reaped: [], amnesty: false }
      return told
    },

    /** Partitions, counted from 0, that no sweep has got through for so many milliseconds. */
    unswept: (ms: number): number[] => {
      const before = performance.now() - ms
      return sweptAt.flatMap((at, partition) => (at < before ? [partition] : []))
    },

    /** Queues every scheduled job that is due. Answers them, and in how many milliseconds the next one is. */
    promote: async (): Promise<{ promoted: Promoted[]; nextInMs: number | null }> => {
      nextInMs = null
      await promoteAll()
      const told = { promoted, nextInMs }
      promoted = []
      return told
    },

    /**
     * Ends jobs that waited too long, and attempts that took too long or hang. Answers what became of each, and whether
     * there are more to end.
     */
    expire: async (): Promise<{ expired: Expired[]; more: boolean }> => {
      moreOver = false
      await expireAll()
      const told = { expired, more: moreOver }
      expired = []
      return told
    },
  }
}

/** Resolves with the promise, or after so many milliseconds. */
const within = async (done: Promise<void>, ms: number | undefined): Promise<void> => {
  if (ms === undefined) return done
  let timer: NodeJS.Timeout | undefined
  const over = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, ms)
  })
  await Promise.race([done, over])
  clearTimeout(timer)
}
