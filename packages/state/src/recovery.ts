// The passes of a reaper: promote what is due, end what is over its time, sweep for jobs whose worker is gone. Any number
// of reapers may run; correctness comes from the scripts, each of which takes an entry and moves its job in one step.
import type { Jobs } from './jobs.ts'
import type { Keys } from './keys.ts'
import { checkLayout } from './layout.ts'
import { msOfTime } from './redis.ts'
import type { Expired, Promoted, Reaped } from './transitions.ts'

/** Entries one script call looks at most: no script may hold Redis for long. */
const BATCH = 100
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
}

/** A reaper's passes over every partition, each of them once a call. */
export const reaperOf = (jobs: Jobs, { intervalMs, dry = false }: ReaperOptions) => {
  const { transitions, link } = jobs
  const maxGapMs = Math.max(2 * intervalMs, 1_000)
  /** Where the walk through all that is in workers' hands goes on, by work stream. */
  const walks = new Map<string, string>()

  const everyPartition = async (pass: (keys: Keys) => Promise<void>): Promise<void> => {
    const left = [...transitions.keys]
    const one = async () => {
      for (let keys = left.shift(); keys; keys = left.shift()) await pass(keys)
    }
    await Promise.all(Array.from({ length: Math.min(AT_A_TIME, left.length) }, one))
  }

  /**
   * What silent workers hold, to its end; and a step of the walk through what all of them hold, for an attempt that a live
   * worker has forgotten. So a sweep costs by what is overdue.
   */
  const sweepQueue = async (
    keys: Keys,
    queue: string,
    minIdleMs: number,
    report: SweepReport,
  ): Promise<void> => {
    let amnesty = false
    const told = new Set<string>()
    const step = async (cursor: string, whole: boolean): Promise<string> => {
      const args = { cursor, count: BATCH, minIdleMs, maxGapMs, amnesty, whole, dry }
      const made = await transitions.reap(keys, queue, args)
      amnesty ||= made.amnesty
      for (const reaped of made.reaped) {
        // Nothing was written: the walk sees it once more.
        if (dry && told.has(reaped.id)) continue
        told.add(reaped.id)
        report.reaped.push(reaped)
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
    report.amnesty ||= amnesty
  }

  const promoteIn = async (keys: Keys, promoted: Promoted[]): Promise<number | null> => {
    const [first, time] = await link.batch([['ZRANGE', keys.scheduled, 0, 0, 'WITHSCORES'], ['TIME']])
    const due = Number((first as unknown[]).flat()[1])
    if (Number.isNaN(due)) return null
    // A read costs a third of a script, and is what most looks are.
    if (due > msOfTime(time)) return due - msOfTime(time)
    for (let skip = 0; ; skip += BATCH) {
      const step = await transitions.promote(keys, BATCH, dry ? skip : undefined)
      promoted.push(...step.promoted)
      // A backlog is told in parts.
      if (promoted.length >= 100 * BATCH) return 0
      if (step.promoted.length < BATCH && (dry || step.nextInMs !== 0)) return step.nextInMs
    }
  }

  return {
    /**
     * One pass over every work stream. Live workers beat well within two intervals of the default; what those hold that
     * were not heard for that long is looked at.
     *
     * @throws StateError LAYOUT_MISMATCH
     */
    sweep: async (minIdleMs = 2 * intervalMs): Promise<SweepReport> => {
      // A Redis that lost its data has lost the layout too, and would let in whoever counts other partitions.
      await checkLayout(link, jobs.namespace, transitions.keys.length, !dry)
      const report: SweepReport = { reaped: [], amnesty: false }
      await everyPartition(async (keys) => {
        for (const queue of (await link.call('SMEMBERS', keys.queues)) as string[])
          await sweepQueue(keys, queue, minIdleMs, report)
      })
      return report
    },

    /** Queues every scheduled job that is due. Answers them, and in how many milliseconds the next one is. */
    promote: async (): Promise<{ promoted: Promoted[]; nextInMs: number | null }> => {
      const promoted: Promoted[] = []
      let nextInMs: number | null = null
      await everyPartition(async (keys) => {
        const next = await promoteIn(keys, promoted)
        if (next !== null) nextInMs = Math.min(nextInMs ?? next, next)
      })
      return { promoted, nextInMs }
    },

    /** Ends jobs that waited too long, and attempts that took too long or hang. Answers what became of each. */
    expire: async (): Promise<Expired[]> => {
      const ended: Expired[] = []
      await everyPartition(async (keys) => {
        for (let skip = 0; ; skip += BATCH) {
          const { expired, more } = await transitions.expire(keys, BATCH, dry ? skip : undefined)
          ended.push(...expired)
          if (!more) break
        }
      })
      return ended
    },
  }
}
