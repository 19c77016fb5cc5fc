// A worker process whose handlers hold their jobs until they are told to end; or until they find that the process had been
// frozen, when they report, work on for a while unless the library tells them to stop, and return.
import { setTimeout as pause } from 'node:timers/promises'
import { defineJob, Jobs, Worker } from '@jobs/state'
import { Worker as BullWorker } from 'bullmq'
import { Redis } from 'ioredis'
import { BULLMQ, type HolderArgs, OURS, type Told } from './setting.ts'

/** Milliseconds that a timer is late only where the process was stopped. */
const FROZEN_MS = 700
/** Steps of 25 ms that a handler goes on after it was frozen. */
const STEPS = 20

const args = JSON.parse(process.argv[2] ?? '') as HolderArgs
const tell = (kind: Told['kind'], id = '') => process.send?.({ kind, id } satisfies Told)

const end = Promise.withResolvers<void>()
let ended = false
end.promise.then(() => {
  ended = true
})
process.on('message', () => end.resolve())
process.on('disconnect', () => process.exit(0))

const hold = async (
  id: string,
  report: (value: object) => Promise<unknown>,
  stopped: () => boolean,
): Promise<number> => {
  tell('start', id)
  await report({ by: process.pid })
  if (!args.watchful) await end.promise
  for (let last = performance.now(); !ended; last = performance.now()) {
    await Promise.race([pause(50), end.promise])
    if (performance.now() - last < FROZEN_MS) continue
    await report({ by: process.pid }).catch(() => undefined)
    for (let step = 0; step < STEPS && !stopped(); step++) await pause(25)
    tell(stopped() ? 'stopped' : 'ran', id)
    break
  }
  return process.pid
}

const { setting, concurrency, url } = args
if (args.peer === 'ours') {
  const jobs = new Jobs({ url, namespace: 'bench' })
  const worker = new Worker(
    jobs,
    defineJob<object, object, number>({ name: 'work' }),
    (job) => hold(job.id, job.progress, () => job.signal.aborted),
    { concurrency, leaseMs: OURS[setting].leaseMs, progressIntervalMs: 0 },
  )
  worker.on('error', () => undefined)
  await worker.start()
} else {
  const worker = new BullWorker(
    'work',
    (job, _, signal) =>
      hold(
        String(job.id),
        (value) => job.updateProgress(value),
        () => signal?.aborted ?? false,
      ),
    { connection: new Redis(url, { maxRetriesPerRequest: null }), concurrency, ...BULLMQ[setting] },
  )
  worker.on('error', () => undefined)
  await worker.waitUntilReady()
}
tell('ready')
