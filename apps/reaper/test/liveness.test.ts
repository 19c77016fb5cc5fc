// A blocked event loop is no death, for a time; then it is. Real processes, a real reaper.
import { until } from '@jobs/testkit'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { type Harness, moves, startHarness } from './harness.ts'
import { sturdyJob } from './sturdy-worker.ts'

const LEASE_MS = 1_000

let h: Harness
beforeAll(async () => {
  h = await startHarness()
  await h.reaper({ REAPER_INTERVAL_MS: '100' })
  // Past the amnesty that a reaper's start is: from here on it forgives nothing.
  await h.jobs.enqueue(sturdyJob('first'), { ms: 0, block: false })
  const { sweep } = h.jobs.transitions.keysFor('any')
  await until(async () => {
    const [at, forgivingUntil] = await h.redis.client().hmget(sweep, 'at', 'amnestyUntil')
    return Number(at) > Number(forgivingUntil)
  })
})
afterAll(() => h.stop())

const worker = (name: string, options: Record<string, number> = {}) =>
  h.process('apps/reaper/test/sturdy-worker.ts', {
    NAME: name,
    OPTIONS: JSON.stringify({ leaseMs: LEASE_MS, ...options }),
  })
const enqueue = async (name: string, ms: number) =>
  (await h.jobs.enqueue(sturdyJob(name), { ms, block: true })).id

it('a handler that blocks its event loop for three leases is not robbed', async () => {
  await worker('patient')
  const id = await enqueue('patient', 3 * LEASE_MS)
  expect(await h.jobs.wait(id)).toMatchObject({ state: 'COMPLETED', attempt: 1, crashes: 0 })
  expect(moves(await h.history(id), 'reap')).toEqual([])
})

it('jobs that came together are all kept while the first of them blocks the loop', async () => {
  // Together in the queue, so that one call takes them.
  const ids = await Promise.all(Array.from({ length: 5 }, () => enqueue('together', 0.7 * LEASE_MS)))
  await worker('together', { concurrency: 5 })
  const ended = await Promise.all(ids.map((id) => h.jobs.wait(id)))
  expect(ended.map(({ state, attempt, crashes }) => ({ state, attempt, crashes }))).toEqual(
    ids.map(() => ({ state: 'COMPLETED', attempt: 1, crashes: 0 })),
  )
})

it('a loop blocked for longer than blockedLoopMs loses its job, and its late writes are refused', async () => {
  const first = await worker('given-up', { blockedLoopMs: 1_000 })
  const id = await enqueue('given-up', 7 * LEASE_MS)
  await first.line((line) => line === `ran ${id}`)
  const second = await worker('given-up')
  await second.line((line) => line === `ran ${id}`)
  await first.line((line) => line === `lost ${id}`)
  expect(await h.jobs.wait(id)).toMatchObject({
    state: 'COMPLETED',
    attempt: 2,
    crashes: 1,
    result: { worker: String(second.pid) },
  })
  expect(moves(await h.history(id), 'reap')).toMatchObject([{ state: 'QUEUED', reason: 'worker_lost' }])
})
