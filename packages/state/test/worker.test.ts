// A worker in this process: outcomes, signals, retries, and calls whose replies are cut off.
import { once } from 'node:events'
import {
  defineJob,
  type EnqueueOptions,
  type JobContext,
  Jobs,
  StateError,
  Worker,
  type WorkerOptions,
} from '@jobs/state'
import { startProxy, until } from '@jobs/testkit'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { z } from 'zod'
import { type Harness, startHarness } from './harness.ts'

let h: Harness
const workers: Worker<unknown, unknown, unknown>[] = []
beforeAll(async () => {
  h = await startHarness()
})
afterEach(async () => {
  await Promise.all(workers.splice(0).map((worker) => worker.stop({ graceMs: 0 })))
})
afterAll(() => h.stop())

let kinds = 0
const start = async (
  handler: (job: JobContext<unknown, unknown>) => unknown,
  options: WorkerOptions = {},
  result?: z.ZodType<unknown>,
) => {
  const definition = defineJob({ name: `kind${kinds++}`, ...(result ? { result } : {}) })
  const worker = new Worker(h.jobs, definition, async (job) => handler(job), options)
  workers.push(worker)
  await worker.start()
  return {
    worker,
    enqueue: async (more: EnqueueOptions = {}) =>
      (await h.jobs.enqueue(definition, { n: 1 }, { backoff: { delayMs: 0 }, ...more })).id,
  }
}

it('retries a handler that throws, to its budget, and keeps the error', async () => {
  const { enqueue } = await start(() => {
    throw Object.assign(new Error('boom'), { code: 'E_BOOM' })
  })
  const id = await enqueue({ maxAttempts: 3 })
  expect(await h.jobs.wait(id)).toMatchObject({
    state: 'FAILED',
    attempt: 3,
    failures: 3,
    error: { name: 'Error', message: 'boom', code: 'E_BOOM' },
  })
})

it('takes a job again that is retried at once, though its new entry comes before the answer to the retry', async () => {
  // With a second slot the worker reads on while the attempt runs, and no reaper is there to help.
  const { enqueue } = await start(
    () => {
      throw new Error('boom')
    },
    { concurrency: 2 },
  )
  const id = await enqueue({ maxAttempts: 100 })
  expect(await h.jobs.wait(id, { signal: AbortSignal.timeout(20_000) })).toMatchObject({ attempt: 100 })
})

it('fails an attempt whose result does not fit its schema', async () => {
  const { enqueue } = await start(() => 'text', {}, z.number())
  expect(await h.jobs.wait(await enqueue({ maxAttempts: 1 }))).toMatchObject({
    error: { code: 'INVALID_RESULT' },
  })
})

it('refuses progress that is too large, where it is reported', async () => {
  const { enqueue } = await start((job) => job.progress('x'.repeat(10_000)))
  expect(await h.jobs.wait(await enqueue({ maxAttempts: 1 }))).toMatchObject({ error: { code: 'TOO_LARGE' } })
})

it('coalesces progress: the last value wins and is always written', async () => {
  const { enqueue } = await start((job) => {
    for (let i = 1; i <= 1_000; i++) job.progress(i)
  })
  const id = await enqueue()
  expect(await h.jobs.wait(id)).toMatchObject({ state: 'COMPLETED', progress: 1_000 })
  const reports = (await h.history(id)).filter(({ type }) => type === 'progress')
  expect(reports.length).toBeLessThan(5)
})

it('writes every log line once and in order, however fast they come', async () => {
  const { enqueue } = await start(
    async (job) => {
      for (let i = 0; i < 300; i++) {
        job.log(`line ${i}`)
        job.progress(i)
        if (i % 20 === 0) await new Promise((resolve) => setTimeout(resolve, 1))
      }
    },
    { progressIntervalMs: 0 },
  )
  const id = await enqueue()
  expect(await h.jobs.wait(id)).toMatchObject({ state: 'COMPLETED', progress: 299 })
  const lines = (await h.history(id)).flatMap((event) => (event.type === 'log' ? [event.line] : []))
  expect(lines).toEqual(Array.from({ length: 300 }, (_, i) => `line ${i}`))
})

it('ends a job although memory is full for its reports', async () => {
  const client = h.redis.client()
  const { enqueue } = await start(async (job) => {
    await client.config('SET', 'maxmemory', '1mb')
    job.log('a line')
    return 'done'
  })
  const id = await enqueue()
  const ended = await h.jobs.wait(id)
  await client.config('SET', 'maxmemory', '0')
  expect(ended).toMatchObject({ state: 'COMPLETED', result: 'done' })
})

it('fires the signal when the job is cancelled, and ends it as CANCELLED', async () => {
  let reason: unknown
  const { worker, enqueue } = await start(
    (job) =>
      new Promise((_, reject) => {
        job.signal.addEventListener('abort', () => {
          reason = job.signal.reason
          reject(job.signal.reason)
        })
      }),
    { leaseMs: 900, heartbeatMs: 100 },
  )
  const active = once(worker, 'active')
  const id = await enqueue()
  await active
  await h.jobs.cancel(id)
  expect(await h.jobs.wait(id)).toMatchObject({ state: 'CANCELLED' })
  expect(reason).toBeInstanceOf(StateError)
  expect(reason).toMatchObject({ code: 'CANCEL_REQUESTED' })
})

it('runs as many at a time as its concurrency says', async () => {
  let now = 0
  let most = 0
  const { enqueue } = await start(
    async () => {
      most = Math.max(most, ++now)
      await new Promise((resolve) => setImmediate(resolve))
      now--
    },
    { concurrency: 3 },
  )
  const ids = await Promise.all(Array.from({ length: 50 }, () => enqueue()))
  await Promise.all(ids.map((id) => h.jobs.wait(id)))
  expect(most).toBeLessThanOrEqual(3)
})

it('runs no more than its concurrency when jobs wait in every partition', async () => {
  const jobs = new Jobs({ url: h.redis.url, namespace: `${h.jobs.namespace}-p`, partitions: 8 })
  const definition = defineJob({ name: 'spread' })
  let now = 0
  let most = 0
  // The first waits for company, so that the concurrency is used whatever the machine does.
  let meet: () => void = () => undefined
  const met = new Promise<void>((resolve) => {
    meet = resolve
  })
  const worker = new Worker(
    jobs,
    definition,
    async () => {
      most = Math.max(most, ++now)
      if (now === 2) meet()
      await met
      await new Promise((resolve) => setImmediate(resolve))
      now--
    },
    { concurrency: 2 },
  )
  const ids: string[] = []
  for (let i = 0; i < 40; i++) ids.push((await jobs.enqueue(definition, i)).id)
  await worker.start()
  for (const id of ids) expect(await jobs.wait(id)).toMatchObject({ state: 'COMPLETED', attempt: 1 })
  expect(most).toBe(2)
  await worker.stop()
  await jobs.close()
})

it('refuses a heartbeat that is too slow for its lease', () => {
  expect(
    () => new Worker(h.jobs, defineJob({ name: 'x' }), () => 1, { leaseMs: 1_000, heartbeatMs: 500 }),
  ).toThrow('at most a third')
})

it('gives a result once, whichever reply or request is cut off', async () => {
  const proxy = await startProxy(h.redis.port)
  const jobs = new Jobs({ url: `redis://127.0.0.1:${proxy.port}`, namespace: h.jobs.namespace })
  for (const when of ['before', 'after'] as const)
    for (const what of ['enqueue', 'claim', 'log', 'progress', 'complete']) {
      const definition = defineJob({ name: `cut${kinds++}` })
      const worker = new Worker(
        jobs,
        definition,
        async (job) => {
          job.log('a line')
          await job.progress(1)
          return 'done'
        },
        { progressIntervalMs: 0 },
      )
      await worker.start()
      // Blocked in its read, so that the job comes by `claim`.
      await until(async () => /flags=b .*cmd=xreadgroup/.test(String(await h.redis.client().client('LIST'))))
      const cut = proxy.cutOn((chunk) => chunk.includes(`\r\n${what}\r\n`), when)
      const { id } = await jobs.enqueue(definition, 1)
      await cut
      expect(await h.jobs.wait(id)).toMatchObject({ state: 'COMPLETED', attempt: 1, result: 'done' })
      const events = await h.history(id)
      expect(events.filter(({ type }) => type === 'log')).toHaveLength(1)
      expect(events.map(({ seq }) => seq)).toEqual(events.map((_, i) => i + 1))
      await worker.stop()
    }
  await jobs.close()
  await proxy.close()
})

it('survives SCRIPT FLUSH and the loss of every connection', async () => {
  const { enqueue } = await start(
    async (job) => {
      for (let i = 0; i < 5; i++) {
        job.log(`line ${i}`)
        await new Promise((resolve) => setImmediate(resolve))
      }
    },
    { concurrency: 5 },
  )
  const client = h.redis.client()
  const ids: string[] = []
  for (let i = 0; i < 20; i++) {
    ids.push(await enqueue())
    await client.script('FLUSH')
    if (i % 5 === 0) await client.call('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes')
  }
  for (const id of ids) expect(await h.jobs.wait(id)).toMatchObject({ state: 'COMPLETED' })
})

it('runs no more than its concurrency when one read finds jobs of every priority', async () => {
  let reads = 0
  let reading: () => void = () => undefined
  const aboutToRead = new Promise<void>((resolve) => {
    reading = resolve
  })
  let enqueued: () => void = () => undefined
  const allThere = new Promise<void>((resolve) => {
    enqueued = resolve
  })
  const jobs = new Jobs({
    url: h.redis.url,
    namespace: h.jobs.namespace,
    // The first read is of what was delivered before, the second of what comes.
    fault: (point, command) => {
      if (point === 'after' || command !== 'XREADGROUP' || ++reads !== 2) return
      reading()
      return allThere
    },
  })
  const definition = defineJob({ name: `kind${kinds++}` })
  let now = 0
  let most = 0
  const worker = new Worker(jobs, definition, async () => {
    most = Math.max(most, ++now)
    await new Promise((resolve) => setImmediate(resolve))
    now--
  })
  await worker.start()
  await aboutToRead
  const ids: string[] = []
  for (const priority of ['low', 'normal', 'high'] as const)
    ids.push((await jobs.enqueue(definition, 1, { priority })).id)
  enqueued()
  for (const id of ids) expect(await jobs.wait(id)).toMatchObject({ state: 'COMPLETED', attempt: 1 })
  expect(most).toBe(1)
  await worker.stop()
  await jobs.close()
})

describe('a job whose hash is broken', () => {
  const hash = (id: string) => h.jobs.transitions.keysFor(id).job(id)
  const breakOptions = (id: string, text: string) => h.jobs.link.call('HSET', hash(id), 'options', text)

  it.each<[string, (id: string) => Promise<unknown>]>([
    ['options that are no JSON', (id) => breakOptions(id, '{"maxAttempts":')],
    ['options that only Lua reads', (id) => breakOptions(id, '{"maxAttempts":0x5}')],
    // In one step: a job that is gone for a moment is let go of.
    ['another type', (id) => h.jobs.link.call('SET', hash(id), 'no hash')],
  ])('holds up no other, and is told of once: %s', async (_, spoil) => {
    // Some wait before the worker comes, and are taken; some come while it waits for them.
    const definition = defineJob({ name: `kind${kinds++}` })
    const enqueue = async () => (await h.jobs.enqueue(definition, 1)).id
    const first = [await enqueue(), await enqueue(), await enqueue()]
    await spoil(first[1] as string)
    const worker = new Worker(h.jobs, definition, () => 1, { concurrency: 2 })
    workers.push(worker as Worker<unknown, unknown, unknown>)
    const errors: StateError[] = []
    worker.on('error', (error) => errors.push(error))
    await worker.start()
    for (const id of [first[0], first[2]])
      expect(await h.jobs.wait(id as string)).toMatchObject({ attempt: 1 })
    await h.jobs.pause(definition.name)
    const later = await enqueue()
    await spoil(later)
    await h.jobs.resume(definition.name)
    await until(() => errors.length >= 2, { what: 'both being told of' })
    for (let i = 0; i < 20; i++) expect(await h.jobs.wait(await enqueue())).toMatchObject({ attempt: 1 })
    expect(errors.map(({ code }) => code)).toEqual(['REDIS_REFUSED', 'REDIS_REFUSED'])
    for (const [i, id] of [first[1], later].entries()) expect(errors[i]?.message).toContain(id)
  })

  it('is tried again by the default where its backoff is none', async () => {
    const definition = defineJob({ name: `kind${kinds++}` })
    const { id } = await h.jobs.enqueue(definition, 1, { backoff: { delayMs: 1 } })
    await breakOptions(id, '{"maxAttempts":2,"backoff":"no json"}')
    const worker = new Worker(h.jobs, definition, () => Promise.reject(new Error('once more')))
    workers.push(worker as Worker<unknown, unknown, unknown>)
    const retrying = once(worker, 'retrying')
    await worker.start()
    await retrying
    const job = await h.jobs.get(id)
    expect(job?.state).toBe('SCHEDULED')
    expect((job?.runAt ?? 0) - (job?.updatedAt ?? 0)).toBeGreaterThanOrEqual(750)
  })

  it('runs once it is mended', async () => {
    const { worker, enqueue } = await start(() => 'fine')
    await h.jobs.pause()
    const id = await enqueue()
    const before = (await h.jobs.link.call('HGET', hash(id), 'options')) as string
    await breakOptions(id, '{')
    const told = once(worker, 'error')
    await h.jobs.resume()
    await told
    await breakOptions(id, before)
    expect(await h.jobs.wait(id)).toMatchObject({ state: 'COMPLETED', attempt: 1 })
  })

  it('costs a take nothing: neither the others’ grants, nor a start of their rate', async () => {
    const definition = defineJob({ name: `kind${kinds++}` })
    const ids: string[] = []
    for (let i = 0; i < 5; i++) ids.push((await h.jobs.enqueue(definition, i)).id)
    const [broken = '', ...good] = ids
    await breakOptions(broken, '{')
    const by = { worker: 'w', nonce: 'n', leaseMs: 60_000, rate: { max: 3, perMs: 60_000 } }
    const keys = h.jobs.transitions.keysFor(broken)
    const take = () => h.jobs.transitions.take(keys, definition.name, 10, by)
    const [first, second, third] = [await take(), await take(), await take()]
    expect(first.grants.map(({ id }) => id)).toEqual(good.slice(0, 2))
    expect(first.broken).toEqual([[broken, expect.stringMatching(/^\d+-\d+$/)]])
    expect(second.grants.map(({ id }) => id)).toEqual(good.slice(2, 3))
    expect(third.grants).toEqual([])
    expect(third.retryInMs).toBeGreaterThan(0)
    // It is in the worker's hands still.
    const held = (await h.jobs.link.call('XPENDING', keys.work(definition.name), 'workers')) as [number]
    expect(held[0]).toBe(4)
  })

  it('spends nothing of the rate of its key', async () => {
    const definition = defineJob({ name: `kind${kinds++}` })
    const { id: broken } = await h.jobs.enqueue(definition, 1, { rateKey: 'one' })
    const { id: good } = await h.jobs.enqueue(definition, 2, { rateKey: 'one' })
    const keys = h.jobs.transitions.keysFor(broken)
    await h.jobs.link.call('SET', keys.events(broken), 'no stream')
    const by = { worker: 'w', nonce: 'n', leaseMs: 60_000, ratePerKey: { max: 1, perMs: 60_000 } }
    const taken = await h.jobs.transitions.take(keys, definition.name, 10, by)
    expect(taken.broken).toMatchObject([[broken, expect.any(String)]])
    expect(taken.grants.map(({ id }) => id)).toEqual([good])
  })
})
