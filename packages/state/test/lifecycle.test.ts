// Starting, stopping, telling: a worker does so by its deadline whatever Redis does, and hands back what it held.
import { once } from 'node:events'
import { defineJob, type JobContext, Jobs, Worker, type WorkerEvents, type WorkerOptions } from '@jobs/state'
import { afterAll, afterEach, beforeAll, expect, it } from 'vitest'
import { type Harness, startHarness } from './harness.ts'

type Handler = (job: JobContext<unknown, unknown>) => unknown

let h: Harness
const cleanups: (() => Promise<unknown>)[] = []
beforeAll(async () => {
  h = await startHarness()
})
afterEach(async () => {
  for (const clean of cleanups.splice(0).reverse()) await clean()
})
afterAll(() => h.stop())

let kinds = 0
const make = (handler: Handler, options: WorkerOptions = {}, jobs = h.jobs, name = `kind${kinds++}`) => {
  const definition = defineJob({ name })
  const worker = new Worker(jobs, definition, async (job) => handler(job), options)
  cleanups.push(() => worker.stop({ graceMs: 0 }))
  return {
    name,
    worker,
    enqueue: async (more = {}) =>
      (await jobs.enqueue(definition, null, { backoff: { delayMs: 0 }, ...more })).id,
  }
}
const untilAborted: Handler = ({ signal }) =>
  new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason)))

/** A Redis of one's own, to be taken away. */
const ownRedis = async () => {
  const own = await startHarness()
  const jobs = new Jobs({ url: own.redis.url, namespace: own.jobs.namespace, deadlineMs: 1_000 })
  cleanups.push(async () => {
    await jobs.close()
    await own.stop()
  })
  return { redis: own.redis, jobs }
}

const secondsOf = async (doing: Promise<unknown>) => {
  const from = performance.now()
  await doing
  return (performance.now() - from) / 1_000
}

it('starts once when it is started twice', async () => {
  let running = 0
  let most = 0
  const { worker, enqueue } = make(async () => {
    most = Math.max(most, ++running)
    await new Promise((resolve) => setTimeout(resolve, 5))
    running--
  })
  await Promise.all([worker.start(), worker.start()])
  await worker.start()
  const ids = await Promise.all(Array.from({ length: 20 }, () => enqueue()))
  await Promise.all(ids.map((id) => h.jobs.wait(id)))
  expect(most).toBe(1)
})

it('says by its deadline that Redis is down, and starts when it is started again', async () => {
  const { redis, jobs } = await ownRedis()
  const { worker, enqueue } = make(() => 'done', {}, jobs)
  await redis.kill('SIGKILL')
  await expect(worker.start()).rejects.toMatchObject({ code: 'REDIS_UNAVAILABLE' })
  await redis.restart()
  await worker.start()
  expect(await jobs.wait(await enqueue())).toMatchObject({ state: 'COMPLETED' })
})

it('can be stopped before it was started, twice, and is over then', async () => {
  const { worker } = make(() => null)
  await Promise.all([worker.stop(), worker.stop()])
  await worker.stop()
  await expect(worker.start()).rejects.toMatchObject({ code: 'CLOSED' })
})

it('can be stopped while it is starting and Redis is down', async () => {
  const { redis, jobs } = await ownRedis()
  await redis.kill('SIGKILL')
  const { worker } = make(() => null, {}, jobs)
  const started = expect(worker.start()).rejects.toMatchObject({ code: 'CLOSED' })
  expect(await secondsOf(worker.stop())).toBeLessThan(0.5)
  await started
})

it('lets a handler end within graceMs, and resolves as soon as it has', async () => {
  let end: () => void = () => undefined
  const { worker, enqueue } = make(
    () =>
      new Promise<string>((resolve) => {
        end = () => resolve('in time')
      }),
  )
  await worker.start()
  const active = once(worker, 'active')
  const id = await enqueue()
  await active
  const stopped = worker.stop({ graceMs: 60_000 })
  end()
  await stopped
  expect(await h.jobs.get(id)).toMatchObject({ state: 'COMPLETED', result: 'in time' })
})

it('hands back what does not end in time, at no cost: the next worker has the whole budget', async () => {
  const { worker, enqueue, name } = make(untilAborted)
  await worker.start()
  const active = once(worker, 'active')
  const id = await enqueue({ maxAttempts: 1, maxCrashes: 0 })
  await active
  const released = once(worker, 'released')
  expect(await secondsOf(worker.stop({ graceMs: 200 }))).toBeLessThan(2)
  expect((await released)[0]).toEqual({ id, attempt: 1 })
  expect(await h.jobs.get(id)).toMatchObject({ state: 'QUEUED', failures: 0, crashes: 0 })
  const second = make(() => 'second', {}, h.jobs, name)
  await second.worker.start()
  expect(await h.jobs.wait(id)).toMatchObject({ state: 'COMPLETED', result: 'second', attempt: 2 })
})

it('leaves a handler behind that ignores its signal, and its late writes are refused', async () => {
  let end: () => void = () => undefined
  let returned: Promise<unknown> = Promise.resolve()
  const { worker, enqueue, name } = make(({ progress, log, saveCheckpoint }) => {
    returned = new Promise<void>((resolve) => {
      end = resolve
    }).then(async () => {
      log('too late')
      await progress('too late')
      await saveCheckpoint('too late').catch(() => undefined)
      return 'too late'
    })
    return returned
  })
  const told: string[] = []
  for (const event of ['released', 'lost', 'completed'] as const) worker.on(event, () => told.push(event))
  await worker.start()
  const active = once(worker, 'active')
  const id = await enqueue({ maxAttempts: 1 })
  await active
  expect(await secondsOf(worker.stop({ graceMs: 0 }))).toBeLessThan(6)
  expect(await h.jobs.get(id)).toMatchObject({ state: 'QUEUED', crashes: 0 })
  const second = make(() => 'second', {}, h.jobs, name)
  await second.worker.start()
  const ended = await h.jobs.wait(id)
  expect(ended).toMatchObject({ state: 'COMPLETED', result: 'second' })
  end()
  await returned
  expect(await h.jobs.get(id)).toEqual(ended)
  expect(told).toEqual(['released'])
})

it.each(['SIGKILL', 'SIGSTOP'] as const)(
  'stops within its grace and 7 s while Redis is gone (%s)',
  async (signal) => {
    const { redis, jobs } = await ownRedis()
    const { worker, enqueue } = make(untilAborted, { concurrency: 3 }, jobs)
    await worker.start()
    const active = once(worker, 'active')
    await enqueue()
    await active
    await redis.kill(signal)
    expect(await secondsOf(worker.stop({ graceMs: 500 }))).toBeLessThan(0.5 + 7 + 0.5)
    if (signal === 'SIGSTOP') await redis.thaw()
  },
)

it('tells of each end by an event of its own, with the job’s id and attempt', async () => {
  const { worker, enqueue } = make(
    async (job) => {
      if (job.tags[0] === 'wait') return untilAborted(job)
      if (job.tags[0] === 'throw') throw new Error('no')
      return 'fine'
    },
    { concurrency: 5, leaseMs: 900, heartbeatMs: 100 },
  )
  const told: [keyof WorkerEvents, { id: string; attempt: number }][] = []
  for (const event of ['active', 'completed', 'failed', 'retrying', 'cancelled', 'released', 'lost'] as const)
    worker.on(event, (what: { id: string; attempt: number }) => told.push([event, what]))
  // A job retried at once may start again before the answer to its retry is here: attempt by attempt, the order holds.
  const of = (id: string) =>
    told.filter(([, what]) => what.id === id).sort(([, a], [, b]) => a.attempt - b.attempt)
  await worker.start()

  const good = await enqueue()
  await h.jobs.wait(good)
  const bad = await enqueue({ maxAttempts: 2, tags: ['throw'] })
  await h.jobs.wait(bad)
  const active = once(worker, 'active')
  const unwanted = await enqueue({ tags: ['wait'] })
  await active
  await h.jobs.cancel(unwanted)
  await h.jobs.wait(unwanted)
  const again = once(worker, 'active')
  const held = await enqueue({ tags: ['wait'] })
  await again
  await worker.stop({ graceMs: 0 })

  const error = expect.objectContaining({ name: 'Error', message: 'no' })
  expect(of(good)).toEqual([
    ['active', { id: good, attempt: 1 }],
    ['completed', { id: good, attempt: 1 }],
  ])
  expect(of(bad)).toEqual([
    ['active', { id: bad, attempt: 1 }],
    ['retrying', { id: bad, attempt: 1, error }],
    ['active', { id: bad, attempt: 2 }],
    ['failed', { id: bad, attempt: 2, error }],
  ])
  expect(of(unwanted)).toEqual([
    ['active', { id: unwanted, attempt: 1 }],
    ['cancelled', { id: unwanted, attempt: 1 }],
  ])
  expect(of(held)).toEqual([
    ['active', { id: held, attempt: 1 }],
    ['released', { id: held, attempt: 1 }],
  ])
})
