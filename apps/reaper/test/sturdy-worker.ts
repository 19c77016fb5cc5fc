// A worker process for the tests of outages and blocked loops: it tells all that happens, above all what must not.
import { connectJobs, defineJob, Worker } from '@jobs/state'
import { z } from 'zod'

/** Workers of one name are each other's rivals. */
export const sturdyJob = (name: string) =>
  defineJob({
    name,
    payload: z.object({
      /** Milliseconds it takes. */
      ms: z.number(),
      /** The event loop is blocked all the while. */
      block: z.boolean().default(false),
    }),
    result: z.object({ worker: z.string() }),
  })

const { REDIS_URL = '', JOBS_NAMESPACE = '', NAME = '', OPTIONS = '{}' } = process.env
if (import.meta.main) {
  process.on('unhandledRejection', (reason) => console.log(`unhandled ${reason}`))
  process.on('uncaughtException', (error) => console.log(`uncaught ${error}`))
  const jobs = await connectJobs({ url: REDIS_URL, namespace: JOBS_NAMESPACE })
  const worker = new Worker(
    jobs,
    sturdyJob(NAME),
    async ({ id, payload, progress, log, signal }) => {
      console.log(`ran ${id}`)
      if (payload.block) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, payload.ms)
      else
        for (const end = performance.now() + payload.ms; performance.now() < end && !signal.aborted; ) {
          // More than Redis takes, and far more than an outage may keep.
          for (let i = 0; i < 10; i++) progress({ left: Math.round(end - performance.now()) })
          log(`${Math.round(end - performance.now())} ms left`)
          await new Promise((resolve) => setTimeout(resolve, 10))
        }
      return { worker: String(process.pid) }
    },
    JSON.parse(OPTIONS),
  )
  for (const event of ['active', 'completed', 'lost', 'released'] as const)
    worker.on(event, ({ id }) => console.log(`${event} ${id}`))
  worker.on('error', ({ code }) => console.log(`error ${code}`))
  await worker.start()
  console.log('ready')
  // Asked on stdin: how much memory it takes.
  process.stdin.on('data', () => {
    globalThis.gc?.()
    console.log(`heap ${process.memoryUsage().heapUsed}`)
  })
  process.on('SIGTERM', async () => {
    await worker.stop({ graceMs: 100 })
    await jobs.close()
    console.log('stopped')
    process.exit(0)
  })
}
