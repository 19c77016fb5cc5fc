// The passes of a reaper: promote what is due, end what is over its time, sweep for jobs whose worker is gone. Any number
// of reapers may run; correctness comes from the scripts, each of which takes an entry and moves its job in one step.
import type { Jobs } from './jobs.ts'
import type { Keys } from './keys.ts'
import { checkLayout } from './layout.ts'
import type { Expired, Reaped } from './transitions.ts'

/** Entries one script call looks at most: no script may hold Redis for long. */
const BATCH = 100

export interface SweepReport {
  reaped: Reaped[]
  /** Whether any step only armed heartbeats anew, since Redis had been silent. */
  amnesty: boolean
}

/**
 * A reaper's passes over every partition, each of them once a call.
 *
 * @param intervalMs how often `sweep` is called: a longer silence opens an amnesty for lapsed heartbeats
 */
export const reaperOf = (jobs: Jobs, { intervalMs }: { intervalMs: number }) => {
  const { transitions, link } = jobs
  const maxGapMs = Math.max(2 * intervalMs, 1_000)

  /** Follows XAUTOCLAIM's cursor to its end: one call looks only at a part of a long pending list. */
  const sweepStream = async (
    keys: Keys,
    queue: string,
    minIdleMs: number,
    report: SweepReport,
  ): Promise<void> => {
    let cursor = '0-0'
    let amnesty = false
    do {
      const step = await transitions.reap(keys, queue, { cursor, count: BATCH, minIdleMs, maxGapMs, amnesty })
      cursor = step.cursor
      amnesty ||= step.amnesty
      report.reaped.push(...step.reaped)
    } while (cursor !== '0-0')
    report.amnesty ||= amnesty
  }

  return {
    /**
     * One pass over every work stream. Live workers beat well within two intervals of the default; what has not been
     * touched for that long is looked at.
     *
     * @throws StateError LAYOUT_MISMATCH
     */
    sweep: async (minIdleMs = 2 * intervalMs): Promise<SweepReport> => {
      // A Redis that lost its data has lost the layout too, and would let in whoever counts other partitions.
      await checkLayout(link, jobs.namespace, transitions.keys.length, true)
      const report: SweepReport = { reaped: [], amnesty: false }
      for (const keys of transitions.keys)
        for (const queue of (await link.call('SMEMBERS', keys.queues)) as string[])
          await sweepStream(keys, queue, minIdleMs, report)
      return report
    },

    /** Queues every scheduled job that is due. Answers how many, and in how many milliseconds the next one is. */
    promote: async (): Promise<{ promoted: number; nextInMs: number | null }> => {
      let promoted = 0
      let nextInMs: number | null = null
      for (const keys of transitions.keys)
        for (;;) {
          const step = await transitions.promote(keys, BATCH)
          promoted += step.promoted
          if (step.nextInMs !== null) nextInMs = Math.min(nextInMs ?? step.nextInMs, step.nextInMs)
          if (step.promoted < BATCH) break
        }
      return { promoted, nextInMs }
    },

    /** Ends jobs that waited too long and attempts that took too long. Answers what became of each. */
    expire: async (): Promise<Expired[]> => {
      const ended: Expired[] = []
      for (const keys of transitions.keys)
        for (;;) {
          const step = await transitions.expire(keys, BATCH)
          ended.push(...step)
          if (step.length < BATCH) break
        }
      return ended
    },
  }
}
