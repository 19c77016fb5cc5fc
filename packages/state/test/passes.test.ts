// What a reaper's passes do where something is wrong: silences of Redis, reapers of several intervals, jobs that can't be
// read, queues without a group, entries out of their order, and more over its time than one pass ends.
import { defineJob, type Grant, reaperOf } from '@jobs/state'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { anyJob, type Harness, startHarness } from './harness.ts'

let h: Harness
beforeAll(async () => {
  h = await startHarness()
})
beforeEach(() => h.redis.client().flushall())
afterAll(() => h.stop())

const redis = () => h.redis.client()
const keysOfAll = () => {
  const [keys] = h.jobs.transitions.keys
  if (!keys) throw new Error('there is no partition')
  return keys
}
const enqueue = (count: number, options = {}, job = anyJob) =>
  h.jobs.enqueueMany(
    job,
    Array.from({ length: count }, () => ({ payload: 1, options })),
  )
const take = async (worker: string, count: number, leaseMs: number, name = anyJob.name): Promise<Grant[]> =>
  (await h.jobs.transitions.take(keysOfAll(), name, count, { worker, nonce: `of-${worker}`, leaseMs })).grants
/** Long past its lease, and no heartbeat came. */
const lapse = async ({ id, leaseMs }: Grant) => {
  await redis().hset(keysOfAll().job(id), 'run', `1 ${leaseMs}`)
  await redis().del(keysOfAll().heartbeat(id))
}
const step = async (maxGapMs: number, silenceMs?: number): Promise<Record<string, string>> => {
  const args = { cursor: '0-0', count: 100, minIdleMs: 0, amnesty: false, whole: true }
  const { reaped } = await h.jobs.transitions.reap(keysOfAll(), anyJob.name, {
    ...args,
    maxGapMs,
    ...(silenceMs === undefined ? {} : { silenceMs }),
  })
  return Object.fromEntries(reaped.map(({ id, outcome }) => [id, outcome]))
}
/** Sets a time in the record of sweeps back. */
const ago = (field: 'at' | 'silentUntil', ms: number) =>
  redis().hset(keysOfAll().sweep, field, Date.now() - ms)

describe('a silence of Redis', () => {
  it('forgives jobs whose lease it is long for, until a lease after it, and no others', async () => {
    await enqueue(2)
    const [long] = (await take('w', 1, 5_000)) as [Grant]
    const [short] = (await take('w', 1, 600)) as [Grant]
    await step(10_000)
    await redis().hset(keysOfAll().sweep, 'amnestyUntil', 0)
    for (const grant of [long, short]) await lapse(grant)
    await ago('at', 400)
    expect(await step(10_000, 200)).toEqual({ [long.id]: 'QUEUED', [short.id]: 'rearmed' })
    // Its worker may not have come back yet.
    await lapse(short)
    expect(await step(10_000, 200)).toEqual({ [short.id]: 'rearmed' })
    await lapse(short)
    await ago('silentUntil', 700)
    expect(await step(10_000, 200)).toEqual({ [short.id]: 'QUEUED' })
  })

  it('of an hour, or before a clock that stepped back, does not outlast its lease', async () => {
    await enqueue(1)
    const [short] = (await take('w', 1, 600)) as [Grant]
    await step(1_000, 200)
    const forget = () => redis().hset(keysOfAll().sweep, 'amnestyUntil', 0)
    await ago('at', 3_600_000)
    await step(1_000, 200)
    // Long past it, a short one counts.
    await forget()
    await ago('silentUntil', 3_000)
    await ago('at', 400)
    await lapse(short)
    expect(await step(1_000, 200)).toEqual({ [short.id]: 'rearmed' })
    await forget()
    await ago('silentUntil', -3_600_000)
    await lapse(short)
    expect(await step(1_000, 200)).toEqual({ [short.id]: 'QUEUED' })
  })

  it('is not cut short by a reaper with a shorter interval than the one that noticed it', async () => {
    await enqueue(1)
    const [grant] = (await take('w', 1, 5_000)) as [Grant]
    await lapse(grant)
    expect(await step(2_000)).toEqual({ [grant.id]: 'rearmed' })
    await lapse(grant)
    expect(await step(1_000)).toEqual({ [grant.id]: 'rearmed' })
    // A window that no interval opens is a mistake.
    await lapse(grant)
    await redis().hset(keysOfAll().sweep, 'amnestyUntil', Date.now() + 3_600_000)
    expect(await step(1_000)).toEqual({ [grant.id]: 'QUEUED' })
  })
})

it('jobs over their time that can not be read hold up none behind them, however many', async () => {
  await enqueue(120, { ttlMs: 1 })
  const ids = await redis().zrange(keysOfAll().deadlines, '0', '-1')
  const [last = '', ...broken] = ids.toReversed()
  for (const id of broken) {
    await redis().hset(keysOfAll().job(id), 'options', 'no json')
    await redis().zadd(keysOfAll().deadlines, 1, id)
  }
  await redis().zadd(keysOfAll().deadlines, 1_000, last)
  const { expired } = await reaperOf(h.jobs, { intervalMs: 100 }).expire()
  expect(expired.filter(({ outcome }) => outcome === 'error')).toHaveLength(119)
  expect(expired.find(({ id }) => id === last)).toMatchObject({ outcome: 'FAILED' })
  expect((await reaperOf(h.jobs, { intervalMs: 100 }).expire()).expired).toEqual([])
})

it('an avalanche of jobs over their time is ended in parts', async () => {
  for (let n = 0; n < 11; n++) await enqueue(1_000, { ttlMs: 1 })
  const reaper = reaperOf(h.jobs, { intervalMs: 100 })
  const first = await reaper.expire()
  expect([first.expired.length, first.more]).toEqual([10_000, true])
  const second = await reaper.expire()
  expect([second.expired.length, second.more]).toEqual([1_000, false])
})

it.each([
  ['has no group', (work: string) => redis().xgroup('DESTROY', work, 'workers')],
  [
    'is a key of another type',
    async (work: string) => {
      await redis().del(work)
      await redis().set(work, 'alien')
    },
  ],
])('a queue that %s holds up no other queue', async (_, harm) => {
  const names = ['aa', 'bb', 'cc', 'dd', 'ee', 'ff']
  const held: Grant[] = []
  for (const name of names) {
    await enqueue(1, {}, defineJob({ name }))
    held.push(...(await take('w', 1, 1, name)))
  }
  const troubles: unknown[] = []
  const reaper = reaperOf(h.jobs, { intervalMs: 60_000, onTrouble: (error) => troubles.push(error) })
  await reaper.sweep(0)
  await redis().hset(keysOfAll().sweep, 'amnestyUntil', 0)
  await harm(keysOfAll().work('cc'))
  await Promise.all(held.map(lapse))
  const { reaped } = await reaper.sweep(0)
  const recovered = reaped.filter(({ outcome }) => outcome === 'QUEUED').map(({ id }) => id)
  expect(recovered.sort()).toEqual(
    held
      .filter(({ id }) => id !== held[2]?.id)
      .map(({ id }) => id)
      .sort(),
  )
  expect(troubles.length).toBeLessThanOrEqual(3)
})

it('ending many jobs at once removes none that waits, where one in hands stands behind it', async () => {
  await enqueue(10)
  const held = await take('w', 10, 60_000)
  await enqueue(50)
  const work = keysOfAll().work(anyJob.name)
  // As a repair puts back an entry that somebody has deleted.
  const [odd, ...others] = held as [Grant, ...Grant[]]
  const place = await h.place(odd.id)
  await redis().xdel(work, place)
  await redis().xack(work, 'workers', place)
  const entry = String(await redis().xadd(work, '*', 'id', odd.id))
  await redis().xclaim(work, 'workers', 'w', 0, entry, 'FORCE', 'JUSTID')
  await redis().hset(keysOfAll().job(odd.id), 'place', entry)
  await Promise.all(others.map((grant) => h.jobs.transitions.complete(grant, '1')))
  expect(await redis().xlen(work)).toBe(51)
  expect(await take('v', 100, 60_000)).toHaveLength(50)
})
