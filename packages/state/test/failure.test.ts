// What is kept of a failure, how long the next attempt waits, and when there is none.
import { defineJob, FinalError, LIMITS } from '@jobs/state'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { Backoff, backoffMs } from '../src/backoff.ts'
import { jobErrorOf } from '../src/failure.ts'
import { gate, type Stage, startStage } from './stage.ts'

let stage: Stage
beforeAll(async () => {
  stage = await startStage()
})
afterAll(() => stage.stop())

let kinds = 0
const kind = () => defineJob({ name: `failing${kinds++}` })

describe('a backoff', () => {
  const plain = { jitter: 0 }
  it.each([
    [
      'exponential by default, from a second on, to half a minute',
      plain,
      [1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000],
    ],
    [
      'exponential from its own delay to its own limit',
      { ...plain, delayMs: 50, maxMs: 300 },
      [50, 100, 200, 300],
    ],
    ['fixed', { ...plain, type: 'fixed', delayMs: 70 }, [70, 70, 70]],
    ['never above its limit', { ...plain, type: 'fixed', delayMs: 900, maxMs: 200 }, [200, 200]],
    ['nothing', { delayMs: 0 }, [0, 0, 0]],
  ])('is %s', (_, given, expected) => {
    const backoff = Backoff.parse(given)
    expect(expected.map((__, i) => backoffMs(backoff, i + 1))).toEqual(expected)
  })

  it('stays a number after a thousand failures', () => {
    expect(backoffMs(Backoff.parse({ jitter: 0, delayMs: 2_592_000_000 }), 1_000)).toBe(30_000)
  })

  it('is spread by its jitter, evenly around the delay, and never goes beyond the limit', () => {
    const backoff = Backoff.parse({ type: 'fixed', delayMs: 1_000, jitter: 0.5 })
    expect([0, 0.5, 1].map((random) => backoffMs(backoff, 1, random))).toEqual([750, 1_000, 1_250])
    const limited = Backoff.parse({ type: 'fixed', delayMs: 1_000, maxMs: 1_000, jitter: 1 })
    const at = [0, 0.25, 0.5, 0.75, 1].map((random) => backoffMs(limited, 1, random))
    expect(at).toEqual([500, 750, 1_000, 750, 500])
  })

  it('is what the job waits, and what its event and snapshot tell', async () => {
    const { jobs } = stage
    const definition = kind()
    const worker = await jobs.work(definition, () => {
      throw new Error('no')
    })
    const { id } = await jobs.enqueue(definition, 1, {
      backoff: { type: 'fixed', delayMs: 60_000, maxMs: 60_000, jitter: 0 },
    })
    const { runAt, updatedAt, error } = await jobs.until(id, 'SCHEDULED')
    expect(runAt).toBe(updatedAt + 60_000)
    expect(error).toMatchObject({ message: 'no' })
    await jobs.step('59s')
    expect(await jobs.get(id)).toMatchObject({ attempt: 1 })
    await jobs.step('1s')
    expect(await jobs.until(id, ({ failures }) => failures === 2)).toMatchObject({ attempt: 2 })
    await worker.stop()
  })
})

describe('an error', () => {
  it('keeps name, code, message, stack and cause', () => {
    const cause = Object.assign(new RangeError('too far'), { code: 'E_RANGE' })
    const error = jobErrorOf(Object.assign(new TypeError('bad', { cause }), { code: 'E_BAD' }))
    expect(error).toMatchObject({
      name: 'TypeError',
      code: 'E_BAD',
      message: 'bad',
      cause: { name: 'RangeError', code: 'E_RANGE', message: 'too far' },
    })
    expect(error.stack).toContain('failure.test.ts')
    expect(error.cause?.stack).toContain('failure.test.ts')
  })

  it.each([
    ['a text', 'boom', { name: 'Error', message: 'boom' }],
    ['nothing', undefined, { name: 'Error', message: 'undefined' }],
    ['a number as code', Object.assign(new Error('x'), { code: 404 }), { code: '404' }],
    [
      'an object like an error, as of another realm',
      { name: 'Far', message: 'm', code: 'C' },
      { name: 'Far', message: 'm', code: 'C' },
    ],
    ['another object', { status: 500 }, { name: 'Error', message: '{"status":500}' }],
    [
      'an object that can be told in no way',
      Object.assign(Object.create(null), { n: 1n }),
      { name: 'Error' },
    ],
    [
      'an error whose message is none',
      Object.assign(new Error('x'), { message: { deep: 1 } }),
      { name: 'Error' },
    ],
  ])('is told of whatever is thrown: %s', (_, thrown, expected) => {
    const error = jobErrorOf(thrown)
    expect(error).toMatchObject(expected)
    expect(typeof error.message).toBe('string')
  })

  it('is cut to its limit, with as much of each part as fits', () => {
    const long = (depth: number): Error =>
      new Error('é'.repeat(50_000), depth > 0 ? { cause: long(depth - 1) } : {})
    for (const depth of [0, 3, 50]) {
      const error = jobErrorOf(long(depth))
      expect(Buffer.byteLength(JSON.stringify(error))).toBeLessThanOrEqual(LIMITS.errorBytes)
      expect(error.message.length).toBeGreaterThanOrEqual(100)
      expect(error.stack).toBeDefined()
    }
    const circular = new Error('round')
    circular.cause = circular
    expect(jobErrorOf(circular)).toMatchObject({ cause: { cause: { message: 'round' } } })
  })

  it('is what wait, events and attempts tell, and a later success takes it away', async () => {
    const { job, events, attempts } = await stage.jobs.run(
      kind(),
      ({ attempt }) => {
        if (attempt === 1) throw Object.assign(new Error('once'), { code: 'E_ONCE' })
        return 1
      },
      1,
    )
    expect(job).toMatchObject({ state: 'COMPLETED', error: null, failures: 1 })
    const told = events.flatMap((event) => (event.type === 'state' && event.error ? [event.error.code] : []))
    expect(told).toEqual(['E_ONCE'])
    expect(attempts).toMatchObject([{ outcome: 'retrying', error: { code: 'E_ONCE' } }, { error: null }])
  })

  it('of any kind ends the attempt and never the process', async () => {
    const definition = kind()
    for (const thrown of [undefined, null, 0, Object.create(null), Symbol('x')]) {
      const { job } = await stage.jobs.run(
        definition,
        () => {
          throw thrown
        },
        1,
        { maxAttempts: 1 },
      )
      expect(job).toMatchObject({ state: 'FAILED', error: { name: 'Error' } })
    }
  })
})

describe('budgets', () => {
  it('of failures are spent by errors, one by default three', async () => {
    for (const [maxAttempts, options] of [
      [1, { maxAttempts: 1 }],
      [3, {}],
      [5, { maxAttempts: 5 }],
    ] as const) {
      const { job } = await stage.jobs.run(
        kind(),
        () => {
          throw new Error('no')
        },
        1,
        options,
      )
      expect(job).toMatchObject({ state: 'FAILED', attempt: maxAttempts, failures: maxAttempts, crashes: 0 })
    }
  })

  it('of crashes are spent by deaths, and leave failures alone', async () => {
    const { jobs } = stage
    for (const [maxCrashes, options] of [
      [0, { maxCrashes: 0 }],
      [3, {}],
    ] as const) {
      const { job, attempts } = await jobs.run(kind(), ({ id }) => jobs.crash(id), 1, options)
      expect(job).toMatchObject({
        state: 'FAILED',
        attempt: maxCrashes + 1,
        crashes: maxCrashes + 1,
        failures: 0,
        error: { name: 'WorkerLost', code: 'CRASHED' },
      })
      expect(attempts.every(({ outcome }) => outcome === 'crashed')).toBe(true)
    }
  })

  it('are not looked at for a FinalError, or for whatever says of itself that it can not be retried', async () => {
    for (const thrown of [
      new FinalError('no use', { cause: new Error('why') }),
      Object.assign(new Error('no use'), { retryable: false }),
    ]) {
      const { job, attempts } = await stage.jobs.run(
        kind(),
        () => {
          throw thrown
        },
        1,
        { maxAttempts: 9 },
      )
      expect(job).toMatchObject({
        state: 'FAILED',
        attempt: 1,
        error: { name: thrown.name, message: 'no use' },
      })
      expect(attempts).toMatchObject([{ outcome: 'failed' }])
    }
  })
})

describe('the time of an attempt', () => {
  it('ends a handler that heeds its signal, with TIMED_OUT, and counts as a failure', async () => {
    const { job, attempts } = await stage.jobs.run(
      kind(),
      ({ signal }) =>
        new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason))),
      1,
      { timeoutMs: 20, maxAttempts: 2 },
    )
    expect(job).toMatchObject({ state: 'FAILED', failures: 2, error: { code: 'TIMED_OUT' } })
    expect(attempts.map(({ outcome }) => outcome)).toEqual(['retrying', 'failed'])
  })

  it('ends one that ignores its signal too, and what it does later changes nothing', async () => {
    const { jobs } = stage
    const late = gate()
    const written = gate()
    const { job } = await jobs.run(
      kind(),
      async ({ attempt, progress, saveCheckpoint }) => {
        if (attempt > 1) return 'second'
        await late.opened
        await progress('late')
        await saveCheckpoint('late').catch(() => undefined)
        written.open()
        return 'first'
      },
      1,
      { timeoutMs: 20, backoff: { delayMs: 0 } },
    )
    expect(job).toMatchObject({ state: 'COMPLETED', attempt: 2, failures: 1, result: 'second' })
    late.open()
    await written.opened
    expect(await jobs.get(job.id)).toEqual(job)
  })

  it('is kept by the reaper when the worker is alive and hangs', async () => {
    const { jobs } = stage
    const definition = kind()
    const worker = await jobs.work(definition, () => new Promise(() => undefined))
    const { id } = await jobs.enqueue(definition, 1, { timeoutMs: 600_000, maxAttempts: 2 })
    await jobs.until(id, 'PROCESSING')
    expect((await jobs.step('600s')).expired).toEqual([])
    expect((await jobs.step('5s')).expired).toMatchObject([
      {
        id,
        outcome: 'QUEUED',
        says: expect.stringContaining('did not end within 600 s. Attempt 2 is queued'),
      },
    ])
    expect(await jobs.attempts(id)).toMatchObject([{ outcome: 'timed_out', error: { code: 'TIMED_OUT' } }])
    expect(await jobs.get(id)).toMatchObject({ failures: 1, crashes: 0 })
    await jobs.cancel(id)
    await worker.stop({ graceMs: 0 })
  })

  it('is nobody’s when the attempt ends within it', async () => {
    const { jobs, redis } = stage
    const { job } = await jobs.run(kind(), () => 'soon', 1, { timeoutMs: 60_000 })
    const { deadlines } = jobs.transitions.keysFor(job.id)
    expect(await redis.client().zscore(deadlines, job.id)).toBeNull()
    await jobs.step('1h')
    expect(await jobs.get(job.id)).toMatchObject({ state: 'COMPLETED' })
  })
})

describe('a checkpoint', () => {
  it('is handed to the next attempt, after an error as after a crash, and is gone after the end', async () => {
    const { jobs, redis } = stage
    const seen: unknown[] = []
    const { job } = await jobs.run(
      kind(),
      async ({ id, attempt, checkpoint, saveCheckpoint }) => {
        seen.push(checkpoint)
        await saveCheckpoint({ done: attempt })
        if (attempt === 1) throw new Error('again')
        if (attempt === 2) await jobs.crash(id)
        return 'done'
      },
      1,
    )
    expect(job).toMatchObject({ state: 'COMPLETED', attempt: 3 })
    expect(seen).toEqual([null, { done: 1 }, { done: 2 }])
    const key = jobs.transitions.keysFor(job.id).job(job.id)
    expect(await redis.client().hexists(key, 'checkpoint')).toBe(0)
    await jobs.rerun(job.id)
    await jobs.cancel(job.id)
  })

  it('is refused where JSON would lose something, or when it is too large', async () => {
    const { job } = await stage.jobs.run(
      kind(),
      async ({ saveCheckpoint }) => [
        await saveCheckpoint(new Map()).catch((error) => error.code),
        await saveCheckpoint('x'.repeat(70_000)).catch((error) => error.code),
      ],
      1,
    )
    expect(job.result).toEqual(['INVALID_CHECKPOINT', 'TOO_LARGE'])
  })
})

describe('attempts', () => {
  it('tells each run: who, when, and how it ended', async () => {
    const { jobs } = stage
    const definition = kind()
    const { id } = await jobs.enqueue(definition, 1)
    expect(await jobs.attempts(id)).toEqual([])
    const first = await jobs.work(
      definition,
      ({ signal }) =>
        new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason))),
      { workerId: 'first' },
    )
    const { updatedAt } = await jobs.until(id, 'PROCESSING')
    expect(await jobs.attempts(id)).toEqual([
      { attempt: 1, worker: 'first', startedAt: updatedAt, endedAt: null, outcome: 'running', error: null },
    ])
    await first.stop({ graceMs: 0 })
    const second = await jobs.work(definition, () => 'done', { workerId: 'second' })
    await jobs.wait(id)
    await jobs.rerun(id)
    const ended = await jobs.until(id, ({ attempt, state }) => attempt === 3 && state === 'COMPLETED')
    const attempts = await jobs.attempts(id)
    expect(attempts.map(({ attempt, worker, outcome }) => ({ attempt, worker, outcome }))).toEqual([
      { attempt: 1, worker: 'first', outcome: 'released' },
      { attempt: 2, worker: 'second', outcome: 'completed' },
      { attempt: 3, worker: 'second', outcome: 'completed' },
    ])
    expect(attempts[2]?.endedAt).toBe(ended.endedAt)
    expect(await jobs.attempts('nobody')).toEqual([])
    await second.stop()
  })

  it('tells an attempt that failed or was handed back after a cancel as that, and not as one with a successor', async () => {
    const { jobs } = stage
    for (const [end, outcome] of [
      ['retry', 'failed'],
      ['release', 'cancelled'],
    ] as const) {
      const definition = kind()
      const { id } = await jobs.enqueue(definition, 1)
      const [keys] = jobs.transitions.keys
      if (!keys) throw new Error('no partition')
      const { grants } = await jobs.transitions.take(keys, definition.name, 1, {
        worker: 'by-hand',
        nonce: 'n',
        leaseMs: 60_000,
      })
      const [grant] = grants
      if (!grant) throw new Error('nothing taken')
      await jobs.cancel(id)
      if (end === 'retry') await jobs.transitions.retry(grant, '{"name":"Error","message":"no"}', 1_000)
      else await jobs.transitions.release(grant)
      expect(await jobs.get(id)).toMatchObject({ state: 'CANCELLED' })
      expect(await jobs.attempts(id)).toMatchObject([{ outcome }])
    }
  })
})
