// A reaper's passes, as apps/reaper makes them, in this process: once, or again and again until they are stopped.
import type { Jobs } from '@jobs/state'

export interface Passes {
  minIdleMs: number
  /** Silence of Redis after which lapsed heartbeats are only armed anew; 0 for no amnesty ever. */
  maxGapMs: number
}

/** Promotes what is due and ends what is over its time. */
const moveOn = async ({ transitions }: Jobs) => {
  for (const keys of transitions.keys) {
    await transitions.promote(keys, 100)
    await transitions.expire(keys, 100)
  }
}

/** Sweeps every queue. Answers what was done. */
const sweep = async ({ transitions, link }: Jobs, { minIdleMs, maxGapMs }: Passes) => {
  const reaped = []
  for (const keys of transitions.keys)
    for (const queue of (await link.call('SMEMBERS', keys.queues)) as string[])
      for (const whole of [false, true])
        for (let cursor = '0-0', amnesty = false; ; ) {
          const args = { cursor, count: 20, minIdleMs, maxGapMs, amnesty, whole }
          const step = await transitions.reap(keys, queue, args)
          reaped.push(...step.reaped)
          cursor = step.cursor
          amnesty ||= step.amnesty
          if (cursor === '0-0') break
        }
  return reaped
}

export const reapOnce = async (jobs: Jobs, passes: Passes) => {
  await moveOn(jobs)
  return sweep(jobs, passes)
}

export interface Reaper {
  /** What its sweeps did, by outcome. */
  readonly did: Map<string, number>
  stop(): Promise<void>
}

/** @param onTrouble what a pass threw; the next one tries again */
export const startReaper = (jobs: Jobs, passes: Passes, onTrouble: (error: unknown) => void): Reaper => {
  const did = new Map<string, number>()
  let stopped = false
  // Each by itself: where memory is full nothing is promoted, and the dead are found all the same.
  const keepOn = async (pass: () => Promise<void>) => {
    while (!stopped) {
      await pass().catch(onTrouble)
      await new Promise((resolve) => setTimeout(resolve, 25))
    }
  }
  const done = Promise.all([
    keepOn(() => moveOn(jobs)),
    keepOn(async () => {
      for (const { outcome } of await sweep(jobs, passes)) did.set(outcome, (did.get(outcome) ?? 0) + 1)
    }),
  ])
  return {
    did,
    stop: async () => {
      stopped = true
      await done
    },
  }
}
