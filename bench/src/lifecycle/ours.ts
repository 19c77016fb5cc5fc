// @jobs/state, with its defaults.
import { defineJob, Jobs, Worker } from '@jobs/state'
import type { Peer } from './peer.ts'

export const openOurs = (url: string): Peer => {
  const connect = () => new Jobs({ url, namespace: 'bench' })
  const jobs = connect()
  const work = defineJob<object>({ name: 'work' })
  const other = defineJob<object>({ name: 'other' })
  const closing: (() => Promise<void>)[] = []
  return {
    add: (payload) => jobs.enqueue(work, payload),
    addMany: async (payloads) => {
      const items = await jobs.enqueueMany(
        work,
        payloads.map((payload) => ({ payload })),
      )
      const refused = items.find((item) => !item.ok)
      if (refused && !refused.ok) throw refused.error
    },
    addLater: (payloads) =>
      jobs.enqueueMany(
        other,
        payloads.map((payload) => ({ payload, options: { delayMs: 86_400_000 } })),
      ),
    work: async ({ concurrency, progress, started, ended }) => {
      const worker = new Worker(
        jobs,
        work,
        async (job) => {
          started?.()
          if (progress === 'awaited') {
            await job.progress(50)
            await job.progress(100)
          } else if (progress === 'coalesced') {
            job.progress(50)
            job.progress(100)
          }
        },
        { concurrency, ...(progress === 'awaited' ? { progressIntervalMs: 0 } : {}) },
      )
      worker.on('completed', ended)
      worker.on('error', fail)
      worker.on('failed', ({ error }) => fail(new Error(error.message)))
      await worker.start()
      closing.push(() => worker.stop({ graceMs: 0 }))
    },
    idle: async () => {
      const own = connect()
      const worker = new Worker(own, work, () => null)
      worker.on('error', fail)
      await worker.start()
      closing.push(() => worker.stop({ graceMs: 0 }).then(() => own.close()))
    },
    close: async () => {
      await Promise.all(closing.map((close) => close()))
      await jobs.close()
    },
  }
}

const fail = (error: unknown) => {
  console.error(error)
  process.exit(1)
}
