// Heartbeats: where they come from, what they cost, and what they bring back.
import { once } from 'node:events'
import { readdirSync } from 'node:fs'
import { connect } from 'node:net'
import { createInterface } from 'node:readline'
import { defineJob, Jobs, StateError, Worker, type WorkerOptions } from '@jobs/state'
import { until } from '@jobs/testkit'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { type Harness, startHarness } from './harness.ts'

let h: Harness
beforeAll(async () => {
  h = await startHarness()
})
afterAll(() => h.stop())

/** Elsewhere only the connections are counted. */
const threads = () => (process.platform === 'linux' ? readdirSync('/proc/self/task').length : 0)
const connections = async (): Promise<number> =>
  String(await h.redis.client().client('LIST'))
    .trim()
    .split('\n').length

/** A worker whose handler waits for its signal, or for `let`. */
const startWaiting = async (jobs: Jobs, name: string, options: WorkerOptions = {}) => {
  const definition = defineJob({ name })
  let let_: () => void = () => undefined
  const free = new Promise<void>((resolve) => {
    let_ = resolve
  })
  const worker = new Worker(
    jobs,
    definition,
    ({ signal }) =>
      new Promise<void>((resolve, reject) => {
        signal.addEventListener('abort', () => reject(signal.reason))
        free.then(resolve)
      }),
    options,
  )
  await worker.start()
  return {
    worker,
    enqueue: async () => {
      const active = once(worker, 'active')
      const { id } = await jobs.enqueue(definition, null)
      await active
      return id
    },
    let: let_,
  }
}

it('a cancel reaches a running handler within two heartbeat intervals', async () => {
  const { worker, enqueue } = await startWaiting(h.jobs, 'cancelled', { leaseMs: 6_000, heartbeatMs: 1_000 })
  const id = await enqueue()
  await h.jobs.cancel(id)
  const from = performance.now()
  expect(await h.jobs.wait(id)).toMatchObject({ state: 'CANCELLED' })
  expect(performance.now() - from).toBeLessThan(2_000)
  await worker.stop()
})

it('an attempt that is another’s now hears so: its signal fires with OWNERSHIP_LOST', async () => {
  const { worker, enqueue } = await startWaiting(h.jobs, 'lost', { leaseMs: 900, heartbeatMs: 100 })
  const lost = once(worker, 'lost')
  const id = await enqueue()
  // As after a reap: the fence is void.
  const key = h.jobs.transitions.keysFor(id).job(id)
  const now = String(await h.redis.client().hget(key, 'now'))
  await h.redis.client().hset(key, 'now', now.replace(/ 1-\S+/, ' 1-'))
  expect((await lost)[0]).toMatchObject({ id, attempt: 1 })
  await worker.stop({ graceMs: 0 })
})

it('a job keeps its heartbeat key for as long as it runs', async () => {
  const { worker, enqueue, let: finish } = await startWaiting(h.jobs, 'kept', { leaseMs: 600 })
  const id = await enqueue()
  const beat = h.jobs.transitions.keysFor(id).heartbeat(id)
  await until(() => h.redis.client().exists(beat))
  // For several leases it is there whenever one looks.
  const from = performance.now()
  await until(async () => {
    expect(await h.redis.client().exists(beat)).toBe(1)
    return performance.now() - from > 3 * 600
  })
  finish()
  await h.jobs.wait(id)
  expect(await h.redis.client().exists(beat)).toBe(0)
  await worker.stop()
})

it('many idle workers share one thread, and it has no connection until something is held', async () => {
  const jobs = new Jobs({ url: h.redis.url, namespace: `${h.jobs.namespace}-idle`, partitions: 2 })
  const first = await startWaiting(jobs, 'idle0')
  const [threadsOfOne, connectionsOfOne] = [threads(), await connections()]
  const more = await Promise.all(Array.from({ length: 49 }, (_, i) => startWaiting(jobs, `idle${i + 1}`)))
  expect(threads()).toBe(threadsOfOne)
  // A blocking read each, and nothing else.
  expect(await connections()).toBe(connectionsOfOne + 49)
  await Promise.all(more.slice(0, 25).map(({ enqueue }) => enqueue()))
  await until(async () => (await connections()) === connectionsOfOne + 50, {
    what: 'the one connection of the thread',
  })
  await Promise.all([first, ...more].map(({ worker }) => worker.stop({ graceMs: 0 })))
  // One is the harness', one looks; `jobs` has its own.
  await until(async () => (await connections()) === connectionsOfOne - 1, { what: 'every connection closed' })
  await jobs.close()
})

it('all beats of a tick are one call per partition', async () => {
  const jobs = new Jobs({ url: h.redis.url, namespace: `${h.jobs.namespace}-together` })
  const options = { concurrency: 20, leaseMs: 1_500 }
  const workers = await Promise.all([startWaiting(jobs, 'a', options), startWaiting(jobs, 'b', options)])
  const monitor = connect(h.redis.port, '127.0.0.1')
  const lines = createInterface({ input: monitor })
  let together = 0
  lines.on('line', (line) => {
    if (line.includes('"beat"')) together = Math.max(together, line.match(/ 1500\b/g)?.length ?? 0)
  })
  monitor.write('MONITOR\r\n')
  await once(lines, 'line')
  for (const { enqueue } of workers) for (let i = 0; i < 20; i++) await enqueue()
  await until(() => together === 40, { what: 'a call with 40 beats of two workers' })
  monitor.destroy()
  await Promise.all(workers.map(({ worker }) => worker.stop({ graceMs: 0 })))
  await jobs.close()
})

it('where a fault point is set, it sees the beats too', async () => {
  const seen: string[] = []
  const jobs = new Jobs({
    url: h.redis.url,
    namespace: `${h.jobs.namespace}-fault`,
    fault: (point, command) => {
      if (point === 'after') seen.push(command)
    },
  })
  const { worker, enqueue } = await startWaiting(jobs, 'faulty', { leaseMs: 600 })
  const id = await enqueue()
  await until(() => h.redis.client().exists(jobs.transitions.keysFor(id).heartbeat(id)))
  expect(seen).toContain('apply')
  await worker.stop({ graceMs: 0 })
  await jobs.close()
})

it('tells how late the event loop was, at most and in 99 of 100 samples', async () => {
  const { worker } = await startWaiting(h.jobs, 'lag')
  const about = await until(async () => (await h.jobs.workers()).find(({ id }) => id === worker.id))
  expect(about.loopLagMaxMs).toBeGreaterThanOrEqual(about.loopLagP99Ms)
  await worker.stop()
})

it('a trouble with the beats is told once an interval, typed', async () => {
  const jobs = new Jobs({
    url: h.redis.url,
    namespace: `${h.jobs.namespace}-trouble`,
    deadlineMs: 300,
    commandTimeoutMs: 100,
  })
  const { worker, enqueue } = await startWaiting(jobs, 'troubled', { leaseMs: 600, concurrency: 10 })
  const id = await enqueue()
  await until(() => h.redis.client().exists(jobs.transitions.keysFor(id).heartbeat(id)))
  const errors: StateError[] = []
  worker.on('error', (error) => errors.push(error))
  await h.redis.freeze()
  await until(() => errors.some(({ code }) => code === 'REDIS_TIMEOUT' || code === 'REDIS_UNAVAILABLE'))
  await h.redis.thaw()
  expect(errors.every((error) => error instanceof StateError)).toBe(true)
  // Back by itself: the beat is there again, or still.
  await until(() => h.redis.client().exists(jobs.transitions.keysFor(id).heartbeat(id)))
  await worker.stop({ graceMs: 0 })
  await jobs.close()
})
