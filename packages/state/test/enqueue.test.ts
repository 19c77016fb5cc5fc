// What a backend may say of a new job, and what becomes of it: ids, keys, times, priorities, labels, lifetimes.
import { defineJob, type EnqueueOptions, Jobs, LIMITS } from '@jobs/state'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { z } from 'zod'
import { newId } from '../src/enqueue.ts'
import { redisTime } from '../src/redis.ts'
import { type Stage, startStage } from './stage.ts'

let stage: Stage
beforeAll(async () => {
  stage = await startStage({ partitions: 3 })
})
afterAll(() => stage.stop())

const job = defineJob({ name: 'plain' })

describe('an id', () => {
  it('is made sortable by time, unique, and long enough not to be guessed', () => {
    const first = newId()
    const many = Array.from({ length: 2_000 }, newId)
    const last = newId()
    expect(new Set(many).size).toBe(many.length)
    for (const id of many) expect(id).toMatch(/^[A-Za-z0-9_-]{29}$/)
    const stamps = [first, ...many, last].map((id) => id.slice(0, 7))
    expect(stamps).toEqual([...stamps].sort())
  })

  it('sorts by time at every digit', () => {
    vi.useFakeTimers({ toFake: ['Date'] })
    try {
      const ids = [1, 63, 64, 4_095, 4_096, 2 ** 40, 2 ** 41 + 1, 64 ** 7 - 1].map((now) => {
        vi.setSystemTime(now)
        return newId()
      })
      expect(ids).toEqual([...ids].sort())
      expect(new Set(ids.map((id) => id.slice(0, 7))).size).toBe(ids.length)
    } finally {
      vi.useRealTimers()
    }
  })

  it('may be given: a repeat with the same name and payload is the same job, whatever became of it', async () => {
    const { jobs } = stage
    const first = await jobs.enqueue(job, { n: 1 }, { id: 'order-1' })
    expect(first).toMatchObject({ id: 'order-1', state: 'QUEUED', duplicate: false })
    expect(await jobs.enqueue(job, { n: 1 }, { id: 'order-1' })).toEqual({ ...first, duplicate: true })
    await jobs.cancel('order-1')
    expect(await jobs.enqueue(job, { n: 1 }, { id: 'order-1' })).toMatchObject({
      state: 'CANCELLED',
      duplicate: true,
    })
    await expect(jobs.enqueue(job, { n: 2 }, { id: 'order-1' })).rejects.toMatchObject({
      code: 'ID_CONFLICT',
    })
    await expect(
      jobs.enqueue(defineJob({ name: 'another' }), { n: 1 }, { id: 'order-1' }),
    ).rejects.toMatchObject({ code: 'ID_CONFLICT' })
  })

  it('that was made for the call is no duplicate when only the reply was lost', async () => {
    let cuts = 0
    const { jobs, redis } = stage
    const shaky = new Jobs({
      url: redis.url,
      namespace: jobs.namespace,
      partitions: 3,
      fault: (point, command) => {
        if (point === 'after' && command === 'apply' && cuts++ === 0) throw new Error('the reply is lost')
      },
    })
    const before = (await jobs.counts()).QUEUED
    expect(await shaky.enqueue(job, 1)).toMatchObject({ state: 'QUEUED', duplicate: false })
    cuts = 0
    expect(await shaky.enqueue(job, 1, { key: 'lost reply' })).toMatchObject({ duplicate: false })
    expect(cuts).toBe(2)
    expect((await jobs.counts()).QUEUED).toBe(before + 2)
    await shaky.close()
  })
})

describe('an idempotency key', () => {
  const enqueue = (key: string, payload: unknown = { n: 1 }, more: EnqueueOptions = {}) =>
    stage.jobs.enqueue(job, payload, { key, ...more })

  it('is one job, in whatever state it is', async () => {
    const { jobs } = stage
    const first = await enqueue('a key: with spaces, {braces} & ünïcode')
    expect(first).toMatchObject({ state: 'QUEUED', duplicate: false })
    const again = await enqueue('a key: with spaces, {braces} & ünïcode')
    expect(again).toEqual({ ...first, duplicate: true })
    await jobs.cancel(first.id)
    expect(await enqueue('a key: with spaces, {braces} & ünïcode')).toMatchObject({
      id: first.id,
      state: 'CANCELLED',
      duplicate: true,
    })
  })

  it('is one job however many ask at once', async () => {
    const all = await Promise.all(Array.from({ length: 50 }, () => enqueue('at once')))
    expect(new Set(all.map(({ id }) => id)).size).toBe(1)
    expect(all.filter(({ duplicate }) => !duplicate)).toHaveLength(1)
  })

  it('is refused for another payload or another name, and changes nothing', async () => {
    const { jobs, redis } = stage
    await enqueue('contested')
    const before = await redis.digest()
    await expect(enqueue('contested', { n: 2 })).rejects.toMatchObject({ code: 'KEY_CONFLICT' })
    await expect(
      jobs.enqueue(defineJob({ name: 'another' }), { n: 1 }, { key: 'contested' }),
    ).rejects.toMatchObject({ code: 'KEY_CONFLICT' })
    expect(await redis.digest()).toBe(before)
  })

  it('outlives its job: then there is no state to tell', async () => {
    const first = await enqueue('outliving', 1, { retentionMs: 1_000, keyWindowMs: 3_600_000 })
    await stage.jobs.cancel(first.id)
    await stage.jobs.step('2s')
    expect(await stage.jobs.get(first.id)).toBeNull()
    expect(await enqueue('outliving', 1)).toEqual({
      id: first.id,
      state: null,
      cursor: '0-0',
      duplicate: true,
      ack: 'memory',
    })
  })

  it('is free again after its window, even for another payload', async () => {
    const first = await enqueue('windowed', 1, { keyWindowMs: 60_000 })
    await stage.jobs.step('1m')
    const second = await enqueue('windowed', 2, { keyWindowMs: 60_000 })
    expect(second).toMatchObject({ state: 'QUEUED', duplicate: false })
    expect(second.id).not.toBe(first.id)
  })
})

describe('when it runs', () => {
  it('is at once, after a delay, or at a time', async () => {
    const { jobs } = stage
    const now = await redisTime(jobs.link, jobs.transitions.keys[0]?.prefix ?? '')
    expect((await jobs.enqueue(job, 1)).state).toBe('QUEUED')
    const delayed = await jobs.get((await jobs.enqueue(job, 1, { delayMs: 60_000 })).id)
    expect(delayed?.state).toBe('SCHEDULED')
    expect(delayed?.runAt).toBe((delayed?.createdAt ?? 0) + 60_000)
    const at = now + 120_000
    for (const runAt of [new Date(at), at])
      expect(await jobs.get((await jobs.enqueue(job, 1, { runAt })).id)).toMatchObject({
        state: 'SCHEDULED',
        runAt: at,
      })
  })

  it('is now for a time that has passed', async () => {
    for (const runAt of [new Date(0), 0, new Date(Date.now() - 60_000)])
      expect(await stage.jobs.enqueue(job, 1, { runAt })).toMatchObject({ state: 'QUEUED' })
  })

  it('comes in the order of the due times', async () => {
    // One partition: each has queues of its own.
    const { jobs, workOff, stop } = await startStage()
    const timed = defineJob({ name: 'timed' })
    const ids: string[] = []
    for (const delayMs of [30_000, 10_000, 20_000])
      ids.push((await jobs.enqueue(timed, delayMs, { delayMs })).id)
    await jobs.step('30s')
    const seen: unknown[] = []
    await workOff(timed, ({ payload }) => void seen.push(payload), ids)
    expect(seen).toEqual([10_000, 20_000, 30_000])
    await stop()
  })
})

describe('bad options', () => {
  it.each<[string, object]>([
    ['an id and a key', { id: 'a', key: 'b' }],
    ['a delay and a time', { delayMs: 5, runAt: 5 }],
    ['a negative delay', { delayMs: -1 }],
    ['half a millisecond', { delayMs: 0.5 }],
    ['a date that is none', { runAt: new Date('nonsense') }],
    ['a priority that is none', { priority: 'urgent' }],
    ['a tag with a space', { tags: ['a b'] }],
    ['an owner with a brace', { owner: '{a}' }],
    ['too many tags', { tags: Array.from({ length: LIMITS.tagsPerJob + 1 }, (_, i) => `t${i}`) }],
    ['no attempts', { maxAttempts: 0 }],
    ['fewer than no crashes', { maxCrashes: -1 }],
    ['a backoff that is none', { backoff: { type: 'linear' } }],
    ['a jitter above 1', { backoff: { jitter: 2 } }],
    ['a key that is empty', { key: '' }],
    ['a retention below a second', { retentionMs: 10 }],
    ['an option that is none', { priorty: 'high' }],
  ])('are refused before Redis hears of them: %s', async (_, options) => {
    const before = await stage.redis.digest()
    await expect(stage.jobs.enqueue(job, 1, options as never)).rejects.toMatchObject({
      code: 'INVALID_OPTIONS',
    })
    expect(await stage.redis.digest()).toBe(before)
  })
})

describe('a payload', () => {
  it('takes the defaults of its schema, and loses what the schema does not know', async () => {
    const withDefault = defineJob({
      name: 'with-default',
      payload: z.object({ n: z.number().default(7), at: z.coerce.date().optional() }),
    })
    const at = new Date(1_700_000_000_000)
    const { jobs } = stage
    const { id } = await jobs.enqueue(withDefault, { at, extra: 'secret' } as { at: Date })
    expect(await jobs.payload(id)).toEqual({ n: 7, at: at.toISOString() })
    expect(await jobs.payload(id, { of: withDefault })).toEqual({ n: 7, at })
    const { job: ended } = await jobs.run(withDefault, ({ payload }) => payload.at?.getTime(), { at })
    expect(ended.result).toBe(at.getTime())
  })

  it.each([
    ['a Map', new Map()],
    ['a Date without a schema', { deep: [new Date()] }],
    ['NaN', { n: Number.NaN }],
    ['a function', () => 1],
    ['a BigInt', 1n],
    ['undefined in a list', [undefined]],
  ])('is refused where JSON would lose something: %s', async (_, payload) => {
    await expect(stage.jobs.enqueue(job, payload)).rejects.toMatchObject({ code: 'INVALID_PAYLOAD' })
  })
})

it('hands tags, owner, trace, name and budgets to the handler, and tells them to readers', async () => {
  const trace = '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01'
  const options = { tags: ['a', 'b', 'a'], owner: 'ada', trace, maxAttempts: 5, maxCrashes: 7 }
  let told: unknown
  const labelled = defineJob({ name: 'labelled' })
  const { job: ended } = await stage.jobs.run(
    labelled,
    ({ tags, owner, trace, name, maxAttempts, attempt, payload, checkpoint }) => {
      told = { tags, owner, trace, name, maxAttempts, attempt, payload, checkpoint }
    },
    { n: 1 },
    options,
  )
  expect(told).toEqual({
    tags: ['a', 'b'],
    owner: 'ada',
    trace,
    name: 'labelled',
    maxAttempts: 5,
    attempt: 1,
    payload: { n: 1 },
    checkpoint: null,
  })
  expect(ended).toMatchObject({ tags: ['a', 'b'], owner: 'ada', maxAttempts: 5, maxCrashes: 7 })
  await stage.jobs.run(
    labelled,
    ({ tags, owner, trace, maxAttempts }) => {
      told = { tags, owner, trace, maxAttempts }
    },
    1,
  )
  expect(told).toEqual({ tags: [], owner: null, trace: null, maxAttempts: 3 })
})

describe('a time to live', () => {
  it('ends a job that waited longer, as FAILED with EXPIRED, also before its delay is over', async () => {
    const { jobs } = stage
    const queued = await jobs.enqueue(job, 1, { ttlMs: 5_000 })
    const delayed = await jobs.enqueue(job, 1, { ttlMs: 5_000, delayMs: 60_000 })
    const { expired } = await jobs.step('5s')
    expect(expired.map(({ id }) => id).sort()).toEqual([queued.id, delayed.id].sort())
    for (const { id } of [queued, delayed])
      expect(await jobs.get(id)).toMatchObject({ state: 'FAILED', attempt: 0, error: { code: 'EXPIRED' } })
  })

  it('holds when no reaper is there: a worker does not start what is over its time', async () => {
    const { jobs, redis } = stage
    const brief = defineJob({ name: 'brief' })
    const { id } = await jobs.enqueue(brief, 1, { ttlMs: 1 })
    await jobs.until(id, ({ createdAt }) => Date.now() > createdAt + 1)
    const worker = await jobs.work(brief, () => 'ran')
    expect(await jobs.wait(id)).toMatchObject({ state: 'FAILED', attempt: 0, error: { code: 'EXPIRED' } })
    expect(await redis.client().zscore(jobs.transitions.keysFor(id).deadlines, id)).toBeNull()
    await worker.stop()
  })

  it('is only for the first attempt: retries and running jobs are not bound by it', async () => {
    const { job: ended } = await stage.jobs.run(
      defineJob({ name: 'bound' }),
      async ({ attempt }) => {
        await stage.jobs.step('1m')
        if (attempt === 1) throw new Error('once')
        return 'done'
      },
      1,
      { ttlMs: 30_000, backoff: { type: 'fixed', delayMs: 60_000, maxMs: 60_000 } },
    )
    expect(ended).toMatchObject({ state: 'COMPLETED', attempt: 2 })
  })

  it('is no more when the job is run again: it is wanted however late it comes', async () => {
    const { jobs } = stage
    const { id } = await jobs.enqueue(job, 1, { ttlMs: 60_000 })
    await jobs.step('1m')
    expect(await jobs.get(id)).toMatchObject({ state: 'FAILED' })
    await jobs.rerun(id)
    await jobs.step('1h')
    expect(await jobs.get(id)).toMatchObject({ state: 'QUEUED' })
    await stage.workOff(job, () => 'ran', [id])
    expect(await jobs.get(id)).toMatchObject({ state: 'COMPLETED' })
    const second = await jobs.enqueue(job, 1, { ttlMs: 60_000 })
    await jobs.cancel(second.id)
    await jobs.rerun(second.id)
    await jobs.step('1m')
    expect(await jobs.get(second.id)).toMatchObject({ state: 'QUEUED' })
    await jobs.cancel(second.id)
  })
})

it('keeps an ended job as long as its retention says, and the list it stands in a quarter longer', async () => {
  const { jobs, redis } = stage
  const client = redis.client()
  const { job: ended } = await jobs.run(job, () => 'x', 1, { retentionMs: 90_000, tags: ['r'], owner: 'ret' })
  const keys = jobs.transitions.keysFor(ended.id)
  const longest = [
    [keys.job(ended.id), 90_000],
    [keys.events(ended.id), 90_000],
    [keys.endedAs('COMPLETED:90000'), 112_500],
  ] as const
  for (const [key, ms] of longest) {
    const ttl = await client.pttl(key)
    expect(ttl, key).toBeGreaterThan(60_000)
    expect(ttl, key).toBeLessThanOrEqual(ms)
  }
  const { job: plain } = await jobs.run(job, () => 'x', 1)
  expect(await client.pttl(jobs.transitions.keysFor(plain.id).job(plain.id))).toBeGreaterThan(86_000_000)
})

describe('priority', () => {
  it('lets high go before normal before low, and the older first within one', async () => {
    // One partition: each has queues of its own.
    const { jobs, workOff, stop } = await startStage()
    const ranked = defineJob({ name: 'ranked' })
    const ids: string[] = []
    for (const priority of ['low', 'normal', 'high', 'low', 'normal', 'high'] as const)
      ids.push((await jobs.enqueue(ranked, `${priority}-${ids.length}`, { priority })).id)
    const seen: unknown[] = []
    await workOff(ranked, ({ payload }) => void seen.push(payload), ids)
    // One take in eight begins with a lower priority, so that those are not starved: the order within one is exact.
    for (const priority of ['low', 'normal', 'high'])
      expect(seen.filter((each) => String(each).startsWith(priority))).toEqual(
        ['low-0', 'normal-1', 'high-2', 'low-3', 'normal-4', 'high-5'].filter((each) =>
          each.startsWith(priority),
        ),
      )
    await stop()
  })

  it('prefers the high ones by far, and still never starves the low ones', async () => {
    const { jobs, stop } = await startStage()
    const ranked = defineJob({ name: 'ranked' })
    const many = (priority: 'high' | 'low') =>
      jobs.enqueueMany(
        ranked,
        Array.from({ length: 500 }, () => ({ payload: priority, options: { priority } })),
      )
    await many('low')
    await many('high')
    const seen: unknown[] = []
    const worker = await jobs.work(ranked, ({ payload }) => void seen.push(payload))
    await jobs.until(
      (await jobs.list({ state: 'QUEUED', limit: 1 })).jobs[0]?.id ?? '',
      () => seen.length >= 200,
    )
    await worker.stop()
    const low = seen.slice(0, 200).filter((each) => each === 'low').length
    // Two turns in sixteen are theirs: 25 of 200 are to be expected, and 1 in 10^11 such runs has none.
    expect(low).toBeGreaterThan(0)
    expect(low).toBeLessThan(100)
    await stop()
  })
})
