// Many jobs in one call: one round trip per partition, all of a partition or none, an answer for each.
import { defineJob, Jobs, LIMITS, partitionOf } from '@jobs/state'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { z } from 'zod'
import { type Stage, startStage } from './stage.ts'

const PARTITIONS = 4
let stage: Stage
beforeAll(async () => {
  stage = await startStage({ partitions: PARTITIONS })
})
afterAll(() => stage.stop())

const job = defineJob({ name: 'many', payload: z.object({ n: z.number() }) })
const items = (count: number, from = 0) =>
  Array.from({ length: count }, (_, i) => ({ payload: { n: from + i } }))

/** An id of the partition that no test has used. */
let ids = 0
const idIn = (partition: number): string => {
  for (;;) {
    const id = `batch-${ids++}`
    if (partitionOf(id, PARTITIONS) === partition) return id
  }
}

it('takes 1,000 jobs in one call per partition, and answers in their order', async () => {
  const { jobs, redis } = stage
  // The script is known to Redis afterwards.
  for (const item of await jobs.enqueueMany(job, items(50))) expect(item.ok).toBe(true)
  const client = redis.client()
  const before = (await jobs.counts()).QUEUED
  await client.config('RESETSTAT')
  const made = await jobs.enqueueMany(job, items(LIMITS.batchJobs))
  const stats = await client.info('commandstats')
  expect(/cmdstat_evalsha:calls=(\d+)/.exec(stats)?.[1]).toBe(String(PARTITIONS))
  expect(stats).not.toContain('cmdstat_eval:')
  expect(made).toHaveLength(1_000)
  expect(new Set(made.map(({ id }) => id)).size).toBe(1_000)
  for (const [i, item] of made.entries())
    if (i % 97 === 0) {
      expect(item).toMatchObject({ ok: true, state: 'QUEUED', duplicate: false })
      expect(await jobs.payload(item.id ?? '')).toEqual({ n: i })
    }
  expect((await jobs.counts()).QUEUED).toBe(before + 1_000)
})

it('gives each job its own options', async () => {
  const { jobs } = stage
  const made = await jobs.enqueueMany(job, [
    { payload: { n: 1 }, options: { delayMs: 60_000, tags: ['x'] } },
    { payload: { n: 2 }, options: { priority: 'high', owner: 'ada' } },
    { payload: { n: 3 } },
  ])
  const [first, second, third] = await Promise.all(made.map(({ id }) => jobs.get(id ?? '')))
  expect(first).toMatchObject({ state: 'SCHEDULED', tags: ['x'], owner: null })
  expect(second).toMatchObject({ state: 'QUEUED', priority: 'high', owner: 'ada' })
  expect(third).toMatchObject({ state: 'QUEUED', priority: 'normal', tags: [] })
})

describe('a batch of which one is refused', () => {
  it('by Redis creates nothing of that partition, and all of the others', async () => {
    const { jobs } = stage
    const taken = idIn(0)
    await jobs.enqueue(job, { n: -1 }, { id: taken })
    const [beside, elsewhere, later] = [idIn(0), idIn(1), idIn(0)]
    const made = await jobs.enqueueMany(job, [
      { payload: { n: 1 }, options: { id: beside } },
      { payload: { n: 2 }, options: { id: taken } },
      { payload: { n: 3 }, options: { id: elsewhere } },
      { payload: { n: 4 }, options: { id: later } },
    ])
    expect(made).toMatchObject([
      { ok: false, id: beside, error: { code: 'BATCH_REFUSED' } },
      { ok: false, id: taken, error: { code: 'ID_CONFLICT' } },
      { ok: true, id: elsewhere },
      { ok: false, id: later, error: { code: 'BATCH_REFUSED' } },
    ])
    expect(await jobs.get(beside)).toBeNull()
    expect(await jobs.get(later)).toBeNull()
    expect(await jobs.get(elsewhere)).toMatchObject({ state: 'QUEUED' })
    expect(await jobs.payload(taken)).toEqual({ n: -1 })
  })

  it('by an idempotency key that another payload has tells so, too', async () => {
    const { jobs } = stage
    await jobs.enqueue(job, { n: 1 }, { key: 'in-batch' })
    const made = await jobs.enqueueMany(job, [{ payload: { n: 2 }, options: { key: 'in-batch' } }])
    expect(made).toMatchObject([{ ok: false, error: { code: 'KEY_CONFLICT' } }])
  })

  it.each<[string, string, unknown, object]>([
    ['its payload', 'INVALID_PAYLOAD', { n: 'x' }, {}],
    ['its size', 'TOO_LARGE', { n: 1, text: 'x'.repeat(1_100_000) }, {}],
    ['its options', 'INVALID_OPTIONS', { n: 1 }, { delayMs: -1 }],
    ['its id', 'INVALID_JOB_ID', { n: 1 }, { id: 'a b' }],
  ])('before Redis hears of it, for %s, creates nothing at all', async (_, code, payload, options) => {
    const { jobs, redis } = stage
    const wide = defineJob({ name: 'many', payload: z.looseObject({ n: z.number() }) })
    const before = await redis.digest()
    const made = await jobs.enqueueMany(wide, [...items(5), { payload: payload as { n: number }, options }])
    expect(made.slice(0, 5).every((item) => !item.ok && item.error.code === 'BATCH_REFUSED')).toBe(true)
    expect(made[5]).toMatchObject({ ok: false, id: null, error: { code } })
    expect(await redis.digest()).toBe(before)
  })

  it('as the second of its id or key, says which', async () => {
    const id = idIn(2)
    for (const options of [{ id }, { key: 'twice' }]) {
      const made = await stage.jobs.enqueueMany(job, [
        { payload: { n: 1 }, options },
        { payload: { n: 1 }, options },
      ])
      expect(made).toMatchObject([
        { ok: false, error: { code: 'BATCH_REFUSED' } },
        { ok: false, error: { code: 'INVALID_OPTIONS' } },
      ])
    }
    expect(await stage.jobs.get(id)).toBeNull()
  })
})

it('is refused as a whole when it is too large', async () => {
  const { jobs } = stage
  await expect(jobs.enqueueMany(job, items(LIMITS.batchJobs + 1))).rejects.toMatchObject({
    code: 'TOO_LARGE',
  })
  const large = defineJob({ name: 'large' })
  const payload = 'x'.repeat(1_000_000)
  await expect(
    jobs.enqueueMany(
      large,
      Array.from({ length: 20 }, () => ({ payload })),
    ),
  ).rejects.toMatchObject({ code: 'TOO_LARGE' })
  expect(await jobs.enqueueMany(job, [])).toEqual([])
})

describe('a repeat', () => {
  it('after a reply that was lost creates nothing twice, and calls nothing a duplicate', async () => {
    const { jobs, redis } = stage
    const before = (await jobs.counts()).QUEUED
    let lost = 0
    const shaky = new Jobs({
      url: redis.url,
      namespace: jobs.namespace,
      partitions: PARTITIONS,
      fault: (point, command) => {
        if (point === 'after' && command === 'apply' && lost++ < PARTITIONS) throw new Error('no reply')
      },
    })
    const made = await shaky.enqueueMany(job, items(40))
    expect(lost).toBeGreaterThan(PARTITIONS)
    expect(made.every((item) => item.ok && !item.duplicate && item.state === 'QUEUED')).toBe(true)
    expect((await jobs.counts()).QUEUED).toBe(before + 40)
    await shaky.close()
  })

  it('by the caller, under the same ids or keys, is the same jobs', async () => {
    const { jobs } = stage
    const batch = items(20).map(({ payload }, i) => ({
      payload,
      options: i % 2 ? { id: `again-${i}` } : { key: `again-${i}` },
    }))
    const first = await jobs.enqueueMany(job, batch)
    const second = await jobs.enqueueMany(job, batch)
    expect(second).toEqual(first.map((item) => ({ ...item, duplicate: true })))
  })
})
