// A worker process of the fleet. Notes each attempt that begins, and each end that Redis has confirmed.
import { createInterface } from 'node:readline'
import { connectJobs, FinalError, type JobContext, Worker } from '@jobs/state'
import { BLOCK_MS, type Mark, type Payload, tortureJob } from '../job.ts'
import { note, started } from './notes.ts'

const { REDIS_URL = '', JOBS_NAMESPACE = '', JOBS_PARTITIONS = '1', NAME = '' } = process.env
const { CONCURRENCY = '8', LEASE_MS = '' } = process.env
const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms))

let wakeAll: () => void = () => undefined
const awoken = new Promise<void>((resolve) => {
  wakeAll = resolve
})

const handle = async (job: JobContext<Payload, unknown>): Promise<Mark> => {
  const { id, attempt, payload, signal } = job
  note({ does: 'begin', job: id, attempt, worker: NAME })
  if (payload.deed === 'poison') process.kill(process.pid, 'SIGKILL')
  if (payload.deed === 'sleep')
    await Promise.race([
      awoken,
      new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason))),
    ])
  if (payload.deed === 'hang' && attempt === 1) await new Promise(() => undefined)
  if (payload.deed === 'block') for (const until = performance.now() + BLOCK_MS; performance.now() < until; );
  for (let n = 0; n < payload.steps; n++) {
    if (!payload.deaf) signal.throwIfAborted()
    const mark: Mark = { attempt, worker: NAME, n }
    void job.progress(mark).catch(() => undefined)
    if (payload.logs) job.log(JSON.stringify(mark))
    await pause(payload.stepMs)
  }
  if (payload.deed === 'checkpoint') await job.saveCheckpoint({ attempt })
  if (payload.deed === 'final') throw new FinalError('final')
  if ((payload.deed === 'throw' || payload.deed === 'checkpoint') && attempt < 3) throw new Error('once more')
  return { attempt, worker: NAME, n: payload.steps }
}

const options = { url: REDIS_URL, namespace: JOBS_NAMESPACE, partitions: Number(JOBS_PARTITIONS) }
const jobs = await started(() => connectJobs(options))
const worker = new Worker(jobs, tortureJob, handle, {
  workerId: NAME,
  concurrency: Number(CONCURRENCY),
  leaseMs: Number(LEASE_MS),
  progressIntervalMs: 40,
})
for (const does of ['completed', 'failed', 'cancelled'] as const)
  worker.on(does, ({ id, attempt }: { id: string; attempt: number }) =>
    note({ does, job: id, attempt, worker: NAME }),
  )
worker.on('error', () => undefined)
await started(() => worker.start())
createInterface({ input: process.stdin }).on('line', (line) => {
  if (line === 'wake') wakeAll()
})
process.on('SIGTERM', async () => {
  await worker.stop({ graceMs: 500 })
  await jobs.close()
  process.exit(0)
})
console.log('ready')
