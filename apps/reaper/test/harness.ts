// Real reapers and workers, as processes, on a real Redis.
import { randomBytes } from 'node:crypto'
import { type JobEvent, Jobs } from '@jobs/state'
import { fromSource, startApp, startProcess, startTestRedis, type TestProcess } from '@jobs/testkit'
import { slowJob } from './slow-worker.ts'

export const startHarness = async ({ appendonly = false }: { appendonly?: boolean } = {}) => {
  const redis = await startTestRedis({ appendonly })
  const namespace = `t${randomBytes(4).toString('hex')}`
  const jobs = new Jobs({ url: redis.url, namespace, deadlineMs: 20_000 })
  const env = { REDIS_URL: redis.url, JOBS_NAMESPACE: namespace, REAPER_OPS_PORT: '0', LOG_LEVEL: 'info' }
  const processes: TestProcess[] = []
  const keep = <T extends TestProcess>(process: T): T => {
    processes.push(process)
    return process
  }
  const { transitions, link } = jobs
  return {
    redis,
    jobs,
    env,
    reaper: async (more: Record<string, string> = {}) =>
      keep(await startApp('apps/reaper/src/main.ts', { ...env, ...more })),
    /** Any worker process that says when it is ready. */
    process: async (main: string, more: Record<string, string> = {}, flags: string[] = []) => {
      const started = keep(
        startProcess(process.execPath, [...flags, ...fromSource(main)], { env: { ...env, ...more } }),
      )
      await started.line((line) => line === 'ready')
      return started
    },
    worker: async (more: Record<string, string> = {}) => {
      const worker = keep(
        startProcess(process.execPath, fromSource('apps/reaper/test/slow-worker.ts'), {
          env: { ...env, ...more },
        }),
      )
      await worker.line((line) => line === 'ready')
      return worker
    },
    enqueue: async (ms: number, options = {}) => (await jobs.enqueue(slowJob, { ms }, options)).id,
    /** Claims a job by hand, as a worker that will never be heard of again. */
    claim: async (id: string, worker: string, leaseMs: number) => {
      const keys = transitions.keysFor(id)
      await link.once(
        ['XREADGROUP', 'GROUP', 'workers', worker, 'COUNT', 10_000, 'STREAMS', keys.work('slow'), '>'],
        5_000,
      )
      const entry = String(await link.call('HGET', keys.job(id), 'place'))
      const nonce = randomBytes(6).toString('hex')
      const grant = await transitions.claim(id, entry, { worker, nonce, leaseMs })
      if (!grant.ok) throw new Error(grant.reason)
      return grant
    },
    /** To the job's end, or what there is by now. */
    history: async (id: string, upTo: 'end' | 'now' = 'end') => {
      const last = upTo === 'now' ? (await jobs.get(id))?.seq : undefined
      const events: JobEvent[] = []
      for await (const event of jobs.events(id)) if (events.push(event) === last) break
      return events
    },
    stop: async () => {
      for (const each of processes) {
        await each.kill('SIGCONT')
        await each.kill('SIGKILL')
      }
      await jobs.close()
      await redis.stop()
    },
  }
}
export type Harness = Awaited<ReturnType<typeof startHarness>>

export const moves = (events: JobEvent[], move: string) =>
  events.filter((event) => event.type === 'state' && event.move === move)
