// @jobs/state/testing, as its user meets it.
import { readFileSync } from 'node:fs'
import { defineJob, FinalError, StateError } from '@jobs/state'
import { startTestJobs, type TestJobs } from '@jobs/state/testing'
import { startTestRedis, type TestRedis } from '@jobs/testkit'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { z } from 'zod'

const greet = defineJob({
  name: 'greet',
  payload: z.object({ who: z.string() }),
  progress: z.object({ letters: z.number() }),
  result: z.object({ text: z.string() }),
})
const other = defineJob({ name: 'other' })

let redis: TestRedis
let jobs: TestJobs
beforeAll(async () => {
  redis = await startTestRedis()
  jobs = await startTestJobs({ url: redis.url })
})
afterAll(async () => {
  await jobs.close()
  await redis.stop()
})

const hanging = () => new Promise<never>(() => undefined)

describe('run', () => {
  it('runs a handler as a worker would and answers the ended job, its events and its attempts', async () => {
    const { job, events, attempts } = await jobs.run(
      greet,
      async ({ payload, progress, log }) => {
        progress({ letters: payload.who.length })
        log('greeting')
        return { text: `hello ${payload.who}` }
      },
      { who: 'Ada' },
    )
    expect(job).toMatchObject({ state: 'COMPLETED', result: { text: 'hello Ada' }, progress: { letters: 3 } })
    const moves = events.map((event) => (event.type === 'state' ? event.move : event.type))
    expect(moves[0]).toBe('enqueue')
    expect(moves).toContain('log')
    expect(moves.at(-1)).toBe('complete')
    expect(attempts).toMatchObject([{ attempt: 1, outcome: 'completed' }])
  })

  it('steps over backoffs, so that a day of retries takes a moment', async () => {
    let tries = 0
    const { job, attempts } = await jobs.run(
      greet,
      () => {
        if (++tries < 4) throw new Error(`no ${tries}`)
        return { text: 'at last' }
      },
      { who: 'Ada' },
      { maxAttempts: 4, backoff: { type: 'fixed', delayMs: 86_400_000, maxMs: 86_400_000 } },
    )
    expect(job).toMatchObject({ state: 'COMPLETED', attempt: 4, failures: 3 })
    expect(attempts.map(({ outcome }) => outcome)).toEqual(['retrying', 'retrying', 'retrying', 'completed'])
  })

  it('steps over a delay', async () => {
    const { job } = await jobs.run(other, () => 1, null, { delayMs: 3_600_000 })
    expect(job.state).toBe('COMPLETED')
  })

  it('answers a job that has failed, rather than throwing', async () => {
    const { job } = await jobs.run(
      greet,
      () => {
        throw new FinalError('not even once')
      },
      { who: 'Ada' },
    )
    expect(job).toMatchObject({ state: 'FAILED', result: null, error: { message: 'not even once' } })
  })

  it('runs several at a time, of one name one after the other', async () => {
    const seen: string[] = []
    const runs = ['a', 'b', 'c'].map((who) =>
      jobs.run(
        greet,
        ({ payload }) => {
          seen.push(`${who} ${payload.who}`)
          return { text: who }
        },
        { who },
      ),
    )
    await Promise.all([...runs, jobs.run(other, () => 1, null)])
    expect(seen).toEqual(['a a', 'b b', 'c c'])
  })
})

describe('until', () => {
  it('waits for a state, or for whatever is asked', async () => {
    const { id } = await jobs.enqueue(other, 1)
    const worker = await jobs.work(other, async ({ signal, progress }) => {
      await progress(7)
      await new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason)))
    })
    expect(await jobs.until(id, 'PROCESSING')).toMatchObject({ worker: worker.id })
    expect(await jobs.until(id, ({ progress }) => progress === 7)).toMatchObject({ attempt: 1 })
    await worker.stop({ graceMs: 0 })
    expect(await jobs.until(id, 'QUEUED')).toMatchObject({ failures: 0 })
    await jobs.cancel(id)
  })

  it('says so when the job has ended otherwise', async () => {
    const { job } = await jobs.run(
      other,
      () => {
        throw new TypeError('boom')
      },
      1,
      { maxAttempts: 1 },
    )
    await expect(jobs.until(job.id, 'COMPLETED')).rejects.toThrow(
      `The job ${job.id} is FAILED (TypeError: boom), and was to be COMPLETED.`,
    )
  })
})

describe('step', () => {
  it('makes what is scheduled fall due, and not before its time', async () => {
    const { id } = await jobs.enqueue(other, 1, { delayMs: 3_600_000 })
    await jobs.step('59m')
    const waiting = await jobs.get(id)
    expect(waiting).toMatchObject({ state: 'SCHEDULED' })
    expect(await jobs.step('1m')).toMatchObject({ promoted: 1 })
    expect(await jobs.get(id)).toMatchObject({ state: 'QUEUED' })
    await jobs.cancel(id)
  })

  it('lets a job expire that nobody took', async () => {
    const { id } = await jobs.enqueue(other, 1, { ttlMs: 60_000 })
    await jobs.step('59s')
    expect(await jobs.get(id)).toMatchObject({ state: 'QUEUED' })
    expect(await jobs.step('1s')).toMatchObject({ expired: [{ id, outcome: 'FAILED' }] })
    expect(await jobs.get(id)).toMatchObject({ state: 'FAILED', error: { code: 'EXPIRED' } })
  })

  it('lets a hung attempt run out of its time, though its worker is there', async () => {
    const worker = await jobs.work(other, hanging)
    const { id } = await jobs.enqueue(other, 1, { timeoutMs: 60_000, maxAttempts: 1 })
    await jobs.until(id, 'PROCESSING')
    // The worker itself measures its own time, which nobody moves: the reaper comes a lease later.
    await jobs.step('65s')
    expect(await jobs.wait(id)).toMatchObject({ state: 'FAILED', crashes: 0, error: { code: 'TIMED_OUT' } })
    await worker.stop({ graceMs: 0 })
  })

  it('leaves jobs to workers that are there, whose heartbeats went on', async () => {
    let finish: (value: unknown) => void = () => undefined
    const worker = await jobs.work(other, () => new Promise((resolve) => (finish = resolve)))
    const { id } = await jobs.enqueue(other, 1)
    await jobs.until(id, 'PROCESSING')
    for (const _ of [1, 2]) expect(await jobs.step('1d')).toMatchObject({ reaped: [] })
    expect(await jobs.workers()).toMatchObject([{ id: worker.id }])
    finish('done')
    expect(await jobs.wait(id)).toMatchObject({ state: 'COMPLETED', attempt: 1, crashes: 0 })
    await worker.stop()
  })

  it('takes jobs from workers that are gone', async () => {
    const { id } = await jobs.enqueue(other, 1)
    const [keys] = jobs.transitions.keys
    if (!keys) throw new Error('no partition')
    await jobs.transitions.take(keys, 'other', 1, { worker: 'of-old', nonce: 'n', leaseMs: 5_000 })
    await jobs.step('4s')
    expect(await jobs.get(id)).toMatchObject({ state: 'PROCESSING' })
    await jobs.step('1s')
    expect(await jobs.get(id)).toMatchObject({ state: 'QUEUED', crashes: 1 })
    await jobs.cancel(id)
  })

  it('lets idempotency keys run out', async () => {
    const options = { key: 'one', keyWindowMs: 60_000 }
    const first = await jobs.enqueue(other, 1, options)
    await jobs.step('59s')
    expect(await jobs.enqueue(other, 1, options)).toMatchObject({ id: first.id, duplicate: true })
    await jobs.step('1s')
    const second = await jobs.enqueue(other, 1, options)
    expect(second).toMatchObject({ duplicate: false })
    expect(second.id).not.toBe(first.id)
    await jobs.drain()
  })

  it('lets ended jobs go at the end of their retention, from every list', async () => {
    const before = (await jobs.counts()).COMPLETED
    const { job } = await jobs.run(other, () => 1, 1, { retentionMs: 60_000, tags: ['kept'], owner: 'ada' })
    await jobs.step('59s')
    expect((await jobs.list({ tag: 'kept' })).jobs).toMatchObject([{ id: job.id }])
    expect((await jobs.list({ state: 'COMPLETED' })).jobs.some(({ id }) => id === job.id)).toBe(true)
    expect((await jobs.counts()).COMPLETED).toBe(before + 1)
    await jobs.step('1s')
    expect(await jobs.get(job.id)).toBeNull()
    expect((await jobs.list({ tag: 'kept' })).jobs).toEqual([])
    expect((await jobs.list({ state: 'COMPLETED' })).jobs.some(({ id }) => id === job.id)).toBe(false)
    expect((await jobs.counts()).COMPLETED).toBe(before)
  })

  it('lets a removed or rerun job be found where it stands', async () => {
    const { job } = await jobs.run(other, () => 1, 1)
    await jobs.step('1h')
    expect(await jobs.rerun(job.id)).toMatchObject({ ok: true, state: 'QUEUED' })
    expect((await jobs.list({ state: 'COMPLETED' })).jobs.some(({ id }) => id === job.id)).toBe(false)
    await jobs.cancel(job.id)
  })

  it('refuses what is no time', async () => {
    for (const time of ['1 h', '-1s', Number.NaN, -1, '99999d', 'h'])
      await expect(jobs.step(time as never)).rejects.toMatchObject({ code: 'INVALID_OPTIONS' })
  })
})

describe('crash', () => {
  it('lets a worker die under its job: the next attempt has its checkpoint, and the dead one changes nothing', async () => {
    const { job, attempts } = await jobs.run(
      greet,
      async ({ id, attempt, checkpoint, saveCheckpoint, progress }) => {
        if (attempt === 1) {
          await saveCheckpoint({ page: 7 })
          await jobs.crash(id)
          await progress({ letters: 99 })
        }
        return { text: `attempt ${attempt} from ${JSON.stringify(checkpoint)}` }
      },
      { who: 'Ada' },
    )
    expect(job).toMatchObject({
      state: 'COMPLETED',
      crashes: 1,
      progress: null,
      result: { text: 'attempt 2 from {"page":7}' },
    })
    expect(attempts.map(({ outcome }) => outcome)).toEqual(['crashed', 'completed'])
  })

  it('is refused for a job that nobody runs', async () => {
    const { id } = await jobs.enqueue(other, 1)
    await expect(jobs.crash(id)).rejects.toMatchObject({ code: 'INVALID_STATE' })
    await expect(jobs.crash('nobody')).rejects.toMatchObject({ code: 'UNKNOWN_JOB' })
    await jobs.cancel(id)
  })
})

it('sweeps once, as a reaper does again and again', async () => {
  const { id } = await jobs.enqueue(other, 1, { delayMs: 1 })
  await jobs.until(id, ({ runAt }) => (runAt ?? 0) <= Date.now())
  expect(await jobs.sweep()).toMatchObject({ promoted: 1, expired: [], reaped: [] })
  await jobs.cancel(id)
})

it('touches nothing else of the Redis it is given, and leaves nothing behind', async () => {
  const client = redis.client()
  await client.set('mine', 'stays', 'PX', 600_000)
  const neighbour = await startTestJobs({ url: redis.url, namespace: 'neighbour' })
  expect(neighbour.namespace).toMatch(/^neighbour-[0-9a-f]{16}$/)
  const { id } = await neighbour.enqueue(other, 1, { delayMs: 60_000 })
  const mine = await startTestJobs({ url: redis.url, namespace: 'mine', partitions: 4 })
  await mine.run(greet, () => ({ text: 'x' }), { who: 'Ada' }, { tags: ['a'], key: 'k' })
  await mine.enqueue(other, 1, { delayMs: 1_000 })
  await mine.work(other, hanging)
  await mine.step('1h')
  await mine.close()
  expect((await client.keys('*')).filter((key) => key.includes(mine.namespace))).toEqual([])
  expect(await client.pttl('mine')).toBeGreaterThan(500_000)
  expect(await neighbour.get(id)).toMatchObject({ state: 'SCHEDULED' })
  await neighbour.close()
  expect((await client.keys('*')).filter((key) => key.includes('neighbour'))).toEqual([])
})

it('says which Redis it can not reach', async () => {
  const starting = startTestJobs({ url: 'redis://127.0.0.1:1', deadlineMs: 300 })
  await expect(starting).rejects.toThrow(StateError)
  await expect(starting).rejects.toThrow('127.0.0.1:1')
})

it('is shown in docs/testing.md by an example that runs', () => {
  const text = (path: string) => readFileSync(new URL(path, import.meta.url), 'utf8')
  const [, example = ''] = text('./testing-example.test.ts').split('// The example:\n')
  expect(example.length).toBeGreaterThan(1_000)
  expect(text('../../../docs/testing.md')).toContain(`\`\`\`ts\n${example}\`\`\`\n`)
})
