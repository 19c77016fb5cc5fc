// A worker process for the tests: its jobs take `ms` milliseconds, report all the while, and tell whose work it was.
import { connectJobs, defineJob, Worker } from '@jobs/state'
import { z } from 'zod'

export const slowJob = defineJob({
  name: 'slow',
  payload: z.object({ ms: z.number() }),
  result: z.object({ worker: z.string() }),
})

const { REDIS_URL = '', JOBS_NAMESPACE = '', CONCURRENCY = '20' } = process.env
if (import.meta.main) {
  const jobs = await connectJobs({ url: REDIS_URL, namespace: JOBS_NAMESPACE })
  const worker = new Worker(
    jobs,
    slowJob,
    async ({ payload, progress }) => {
      for (const end = performance.now() + payload.ms; performance.now() < end; ) {
        progress({ left: Math.round(end - performance.now()) })
        await new Promise((resolve) => setTimeout(resolve, 50))
      }
      return { worker: String(process.pid) }
    },
    { concurrency: Number(CONCURRENCY) },
  )
  for (const event of ['active', 'completed', 'lost', 'released'] as const)
    worker.on(event, ({ id }) => console.log(`${event} ${id}`))
  worker.on('error', ({ code }) => console.log(`error ${code}`))
  await worker.start()
  console.log('ready')
  process.on('SIGTERM', async () => {
    await worker.stop({ graceMs: 100 })
    await jobs.close()
    process.exit(0)
  })
}
