// The worker process. Kill it however you like: the reaper gives its jobs to the next one.
import { findPocketsphinx } from '@jobs/provision'
import { commonConfig, createLogger, describe, loadConfig, runService, tellFinding } from '@jobs/service'
import { connectJobs, Worker } from '@jobs/state'
import { z } from 'zod'
import { digester, transcriber } from './handlers.ts'
import { digest, transcribe } from './jobs.ts'

/** Jobs at a time: the recogniser keeps a core busy by itself. */
const CONCURRENCY = 2

await runService('worker', async () => {
  const config = loadConfig(z.object(commonConfig), process.env)
  const log = createLogger('worker', config.LOG_LEVEL)
  const jobs = await connectJobs({
    url: config.REDIS_URL,
    namespace: config.JOBS_NAMESPACE,
    partitions: config.JOBS_PARTITIONS,
    allowUnsafeRedis: config.JOBS_ALLOW_UNSAFE_REDIS,
    onFinding: tellFinding(log),
  })
  const options = { concurrency: CONCURRENCY, workerId: `worker-${process.pid}` }
  const sphinx = await findPocketsphinx()
  const worker =
    'missing' in sphinx
      ? new Worker(jobs, digest, digester, options)
      : new Worker(jobs, transcribe, transcriber(sphinx), options)
  worker.on('error', (error) => log.warn(describe(error), 'trouble with Redis'))
  for (const event of ['active', 'completed', 'cancelled', 'released', 'lost'] as const)
    worker.on(event, (job) => log.info(job, event))
  for (const event of ['failed', 'retrying'] as const)
    worker.on(event, ({ id, attempt, error }) => log.warn({ id, attempt, err: error.message }, event))
  await worker.start()
  log.info({ worker: worker.id }, 'ready')
  return {
    log,
    service: {
      stop: async () => {
        await worker.stop({ graceMs: 2_000 })
        await jobs.close()
      },
    },
  }
})
