// What a sweep costs Redis that finds nobody dead, by how much is alive; and one that finds a dead worker.
import { defineJob, type Grant, Jobs, reaperOf } from '@jobs/state'
import { Probe, withRedis } from '../server.ts'

const WORKERS = 100
const SWEEPS = 100

/** Microseconds of Redis' CPU. */
export const sweepTrial = (alive: number): Promise<number> =>
  withRedis(async (url) => {
    const jobs = new Jobs({ url, namespace: 'bench' })
    const probe = new Probe(url)
    const work = defineJob<object>({ name: 'work' })
    const { transitions } = jobs
    const [keys] = transitions.keys
    if (!keys) throw new Error('there is no partition')
    for (let left = alive; left > 0; left -= 1_000)
      await jobs.enqueueMany(
        work,
        Array.from({ length: Math.min(left, 1_000) }, () => ({ payload: {} })),
      )
    const held = new Map<string, Grant[]>()
    for (let n = 0; n < WORKERS; n++) {
      const worker = `worker-${n}`
      const by = { worker, nonce: `nonce${n}`, leaseMs: 600_000 }
      held.set(worker, (await transitions.take(keys, work.name, alive / WORKERS, by)).grants)
    }
    const reaper = reaperOf(jobs, { intervalMs: 60_000 })
    await reaper.sweep()
    const before = await probe.cpuMicros()
    for (let n = 0; n < SWEEPS; n++) await reaper.sweep()
    const micros = ((await probe.cpuMicros()) - before) / SWEEPS
    probe.close()
    await jobs.close()
    return micros
  })
