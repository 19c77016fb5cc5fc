// The whole life of a job, as a handler lives it: everything a worker may say of it is said, and it ends as its payload
// asks. For tests that break it off at any point.
import { defineJob, FinalError, type Jobs, Worker } from '@jobs/state'
import { until } from '@jobs/testkit'

/** How the first attempt ends; a further one completes. */
export const LIVES = ['complete', 'retry', 'fail', 'cancel', 'release'] as const
export type Life = (typeof LIVES)[number]

interface Payload {
  life: Life
}
export type LifeWorker = Worker<Payload, number, string>

export const lifeJob = (name: string) => defineJob<Payload, number, string>({ name })

/** Long enough for many lives at once on one core. */
const LEASE = { leaseMs: 1_500, heartbeatMs: 100 }

/** Lines of one attempt, in order. */
export const LINES = ['first', 'second', 'third']

interface LifeOptions {
  /** It will not be stopped: what was to be handed back is completed. */
  last?: boolean
  /** Past whatever breaks the worker's own connection. */
  straight: Jobs
}

export const startLifeWorker = async (
  jobs: Jobs,
  name: string,
  { last = false, straight }: LifeOptions,
): Promise<LifeWorker> => {
  /** A heartbeat is part of every life; of an attempt that was lost none comes, and who is to stop has 3 s. */
  const beaten = async ({ id, signal }: { id: string; signal: AbortSignal }) => {
    const key = straight.transitions.keysFor(id).heartbeat(id)
    const since = performance.now()
    const over = () => signal.aborted && performance.now() - since > 2_000
    await until(async () => over() || (await straight.link.call('EXISTS', key)) === 1, {
      what: `a heartbeat of ${id}`,
    })
  }
  const worker: LifeWorker = new Worker(
    jobs,
    lifeJob(name),
    async (job) => {
      const [first = '', second = '', third = ''] = LINES
      job.log(first)
      await job.progress(1)
      await job.saveCheckpoint({ at: job.attempt })
      job.log(second)
      await beaten(job)
      job.log(third)
      const { life } = job.payload
      if (life === 'fail') throw new FinalError('for good')
      if (life === 'retry' && job.attempt === 1) throw new Error('once more')
      if (life === 'cancel' || (life === 'release' && !last))
        await new Promise((_, reject) => {
          const stop = () => reject(job.signal.reason)
          if (job.signal.aborted) stop()
          job.signal.addEventListener('abort', stop, { once: true })
        })
      return 'done'
    },
    { progressIntervalMs: 0, ...LEASE },
  )
  // Trouble is what these tests make.
  worker.on('error', () => undefined)
  await worker.start()
  return worker
}
