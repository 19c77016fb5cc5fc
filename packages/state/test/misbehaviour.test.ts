// Handlers, listeners and schemas may do anything: the worker goes on, the job ends, and no rejection is left to nobody.
import { once } from 'node:events'
import { defineJob, type JobContext, type StateError, Worker, type WorkerOptions } from '@jobs/state'
import { afterAll, afterEach, beforeAll, expect, it, vi } from 'vitest'
import { z } from 'zod'
import { type Harness, startHarness } from './harness.ts'

let h: Harness
const workers: Worker<unknown, unknown, unknown>[] = []
const unhandled: unknown[] = []
const keep = (reason: unknown) => unhandled.push(reason)
beforeAll(async () => {
  process.on('unhandledRejection', keep)
  process.on('uncaughtException', keep)
  h = await startHarness()
})
afterEach(async () => {
  await Promise.all(workers.splice(0).map((worker) => worker.stop({ graceMs: 0 })))
  // A rejection counts as unhandled once the tick is over.
  await new Promise((resolve) => setImmediate(resolve))
  expect(unhandled).toEqual([])
})
afterAll(async () => {
  process.off('unhandledRejection', keep)
  process.off('uncaughtException', keep)
  await h.stop()
})

let kinds = 0
const start = async (
  handler: (job: JobContext<unknown, unknown>) => unknown,
  { payload, ...options }: WorkerOptions & { payload?: z.ZodType<unknown> } = {},
) => {
  const name = `kind${kinds++}`
  const worker = new Worker(
    h.jobs,
    defineJob({ name, ...(payload ? { payload } : {}) }),
    handler as (job: JobContext<unknown, unknown>) => unknown,
    options,
  )
  workers.push(worker)
  const errors: StateError[] = []
  worker.on('error', (error) => errors.push(error))
  await worker.start()
  return {
    worker,
    errors,
    // A backend that knows no schema.
    enqueue: async (payload: unknown = null, more = {}) =>
      (await h.jobs.enqueue(defineJob({ name }), payload, { maxAttempts: 1, ...more })).id,
  }
}
const trap = (what: string): never => {
  throw new Error(`${what} was read`)
}

it.each<[string, () => unknown, string]>([
  ['undefined', () => undefined, 'undefined'],
  ['null', () => null, 'null'],
  ['a text', () => 'a text', 'a text'],
  ['a symbol', () => Symbol('odd'), 'Symbol(odd)'],
  ['an object of no class', () => Object.create(null), '{}'],
  [
    'an object whose getters throw',
    () => ({
      get message() {
        return trap('message')
      },
      get retryable() {
        return trap('retryable')
      },
      toString: () => trap('toString'),
    }),
    'What was thrown throws again when it is read.',
  ],
  [
    'an error whose getters throw',
    () =>
      Object.defineProperty(new Error('hidden'), 'stack', {
        get: () => trap('stack'),
      }),
    'What was thrown throws again when it is read.',
  ],
  [
    'an error whose name and message are none',
    () => Object.assign(new Error(), { name: 1, message: {} }),
    '{"name":1,"message":{}}',
  ],
  [
    'a proxy that refuses everything',
    () => new Proxy({}, { get: () => trap('it'), getPrototypeOf: () => trap('its class') }),
    'What was thrown throws again when it is read.',
  ],
])('a handler that throws %s fails its job', async (_, thrown, message) => {
  const { enqueue } = await start(() => {
    throw thrown()
  })
  expect(await h.jobs.wait(await enqueue())).toMatchObject({ state: 'FAILED', error: { message } })
})

it('a schema that throws fails its own job for good, and no other', async () => {
  const payload = z.unknown().refine((value) => (value === 'poison' ? trap('poison') : true))
  const { enqueue } = await start(() => 'fine', { payload, concurrency: 3 })
  await h.jobs.pause()
  const ids = await Promise.all(['a', 'poison', 'b'].map((each) => enqueue(each, { maxAttempts: 3 })))
  await h.jobs.resume()
  const [a, poison, b] = await Promise.all(ids.map((id) => h.jobs.wait(id)))
  expect(poison).toMatchObject({ state: 'FAILED', attempt: 1, error: { code: 'INVALID_PAYLOAD' } })
  expect([a, b]).toMatchObject([{ state: 'COMPLETED' }, { state: 'COMPLETED' }])
})

it('a payload of another job that a handler could not enqueue is an error like any: the attempt is repeated', async () => {
  const { enqueue } = await start(async ({ attempt }) => {
    if (attempt === 1)
      await h.jobs.enqueue(defineJob({ name: 'other', payload: z.number() }), 'text' as never)
    return 'fine'
  })
  expect(await h.jobs.wait(await enqueue(null, { maxAttempts: 2, backoff: { delayMs: 0 } }))).toMatchObject({
    state: 'COMPLETED',
    attempt: 2,
  })
})

it('listeners that throw or reject cost no job, and are told of as errors', async () => {
  const { worker, errors, enqueue } = await start(() => 'fine')
  worker.on('active', () => trap('active'))
  worker.on('completed', async () => trap('completed'))
  expect(await h.jobs.wait(await enqueue())).toMatchObject({ state: 'COMPLETED' })
  await vi.waitFor(() => expect(errors).toHaveLength(2))
  expect(errors.map(({ cause }) => (cause as Error).message)).toEqual([
    'active was read',
    'completed was read',
  ])
})

it('a listener of errors that throws or rejects is told of on the console', async () => {
  const { worker, enqueue } = await start(() => 'fine')
  const printed = vi.spyOn(console, 'error').mockImplementation(() => undefined)
  try {
    worker.on('error', async () => trap('error, later,'))
    worker.on('error', () => trap('error'))
    worker.on('completed', () => trap('completed'))
    expect(await h.jobs.wait(await enqueue())).toMatchObject({ state: 'COMPLETED' })
    await vi.waitFor(() => expect(printed).toHaveBeenCalledTimes(2))
  } finally {
    printed.mockRestore()
  }
})

it('what a handler reports after it has returned is moot, and throws nowhere', async () => {
  let late: () => void = () => undefined
  const { enqueue } = await start((job) => {
    late = () => {
      void job.progress(() => 'no JSON')
      void job.progress('late')
      job.log('late')
    }
    setImmediate(late)
    return 'fine'
  })
  const id = await enqueue()
  const ended = await h.jobs.wait(id)
  late()
  expect(ended).toMatchObject({ state: 'COMPLETED', progress: null })
  expect(await h.jobs.get(id)).toEqual(ended)
})

it('a checkpoint that nobody waits for and that can’t be kept is told as an error', async () => {
  const { errors, enqueue } = await start((job) => {
    void job.saveCheckpoint('x'.repeat(100_000))
    return 'fine'
  })
  expect(await h.jobs.wait(await enqueue())).toMatchObject({ state: 'COMPLETED' })
  expect(errors.map(({ code }) => code)).toEqual(['TOO_LARGE'])
})

it('a handler that reports while it is out of time, and rejects later, has failed once', async () => {
  const { worker, enqueue } = await start(
    ({ signal, progress }) =>
      new Promise((_, reject) =>
        signal.addEventListener('abort', () => {
          void progress('late')
          setImmediate(() => reject(new Error('later')))
        }),
      ),
  )
  const failed = once(worker, 'failed')
  const id = await enqueue(null, { timeoutMs: 50 })
  expect(await h.jobs.wait(id)).toMatchObject({ state: 'FAILED', error: { code: 'TIMED_OUT' } })
  await failed
})

it.each([
  ['takes too long', { timeoutMs: 800 }],
  ['reports nothing', { stallMs: 800 }],
])(
  'a handler that ignores its cancel and %s gives its slot back, and its job is cancelled',
  async (_, limit) => {
    let noticed: (reason: unknown) => void = () => undefined
    const asked = new Promise((resolve) => {
      noticed = resolve
    })
    const { worker, enqueue } = await start(
      ({ payload, signal }) =>
        payload === 'hang'
          ? new Promise(() => signal.addEventListener('abort', () => noticed(signal.reason)))
          : 'fine',
      { leaseMs: 300 },
    )
    const active = once(worker, 'active')
    const cancelled = once(worker, 'cancelled', { signal: AbortSignal.timeout(8_000) })
    const id = await enqueue('hang', limit)
    await active
    await h.jobs.cancel(id)
    expect(await asked).toMatchObject({ code: 'CANCEL_REQUESTED' })
    // By its worker: no reaper is here.
    expect(await cancelled).toEqual([{ id, attempt: 1 }])
    expect(await h.jobs.get(id)).toMatchObject({ state: 'CANCELLED', failures: 0 })
    expect(await h.jobs.wait(await enqueue())).toMatchObject({ state: 'COMPLETED' })
  },
)

it('a handler that hangs on though its job is lost gives its slot back when its time is up', async () => {
  let noticed: () => void = () => undefined
  const lost = new Promise<void>((resolve) => {
    noticed = resolve
  })
  const { worker, enqueue } = await start(
    ({ payload, signal }) =>
      payload === 'hang' ? new Promise(() => signal.addEventListener('abort', () => noticed())) : 'fine',
    { leaseMs: 300 },
  )
  const active = once(worker, 'active')
  const told = once(worker, 'lost', { signal: AbortSignal.timeout(8_000) })
  const id = await enqueue('hang', { timeoutMs: 800 })
  await active
  await h.jobs.link.call('DEL', h.jobs.transitions.keysFor(id).job(id))
  await lost
  expect(await told).toEqual([{ id, attempt: 1 }])
  expect(await h.jobs.wait(await enqueue())).toMatchObject({ state: 'COMPLETED' })
})
