// Counts of a tag's jobs by state: what they say after every move and as time passes, and how whoever reads once and
// then listens keeps them without reading again.
import {
  countChange,
  type Keys,
  noCounts,
  readTagCounts,
  type StateCounts,
  Subscriber,
  type TagChange,
  tagChangeOf,
} from '@jobs/state'
import { until } from '@jobs/testkit'
import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest'
import { redisTime } from '../src/redis.ts'
import { shift } from '../src/testing/time.ts'
import { type Harness, startHarness } from './harness.ts'

const HOUR = 3_600_000

let h: Harness
let keys: Keys
let heard: TagChange[]
let subscriber: Subscriber
beforeAll(async () => {
  h = await startHarness()
  keys = h.jobs.transitions.keys[0] as Keys
  subscriber = new Subscriber(h.jobs.options, {
    onMessage: (_, message) => heard.push(tagChangeOf(message) as TagChange),
    onRecovered: () => undefined,
  })
  await until(() => subscriber.alive)
})
beforeEach(async () => {
  await h.redis.client().flushall()
  heard = []
})
afterAll(async () => {
  subscriber.close()
  await h.stop()
})

const counted = (some: Partial<StateCounts>): StateCounts => ({ ...noCounts(), ...some })
const counts = () => h.jobs.counts({ tag: 'red' })

it('a tag that no job carries has counts of 0, and one that is none is refused', async () => {
  expect(await counts()).toEqual(noCounts())
  await expect(h.jobs.counts({ tag: 'a:b' })).rejects.toMatchObject({ code: 'INVALID_OPTIONS' })
})

it('each change of state is counted and told, once, with where it came from', async () => {
  await subscriber.subscribe(keys.tagStates('red'))
  const kept = noCounts()
  let taken = 0
  /** Counts what was told since the last time, and expects what Redis says. */
  const expectCounts = async (some: Partial<StateCounts>) => {
    const read = await readTagCounts(h.jobs.link, keys, 'red')
    await until(() => heard.at(-1)?.version === read.version)
    for (; taken < heard.length; taken++) countChange(kept, heard[taken] as TagChange)
    expect([read.counts, kept]).toEqual([counted(some), counted(some)])
  }
  const { transitions } = h.jobs
  const id = await h.enqueue({ tags: ['red', 'big'], owner: 'ann', delayMs: HOUR })
  await expectCounts({ SCHEDULED: 1 })
  await h.jobs.reschedule(id, { delayMs: 2 * HOUR })
  await h.jobs.reschedule(id, { delayMs: 0 })
  await expectCounts({ QUEUED: 1 })
  const held = await h.claim(id)
  await transitions.progress(held, 1, '1')
  await expectCounts({ PROCESSING: 1 })
  await h.jobs.cancel(id)
  await expectCounts({ PROCESSING: 1 })
  await transitions.abort(held)
  await expectCounts({ CANCELLED: 1 })
  await h.jobs.rerun(id)
  await transitions.retry(await h.claim(id), '{"name":"Error","message":"no"}', HOUR)
  await expectCounts({ SCHEDULED: 1 })
  await h.jobs.reschedule(id, { delayMs: 0 })
  await transitions.release(await h.claim(id))
  await expectCounts({ QUEUED: 1 })
  const crashed = await h.enqueue({ tags: ['red'], maxCrashes: 0 })
  await transitions.fail(await h.claim(crashed), '{"name":"Error","message":"no"}')
  await expectCounts({ QUEUED: 1, FAILED: 1 })
  await transitions.complete(await h.claim(id), '1')
  await expectCounts({ COMPLETED: 1, FAILED: 1 })
  await h.jobs.remove(crashed)
  await expectCounts({ COMPLETED: 1 })
  expect(await h.jobs.counts({ tag: 'big' })).toEqual(counted({ COMPLETED: 1 }))

  const first = heard[0]?.version ?? 0
  expect(heard.map(({ version }) => version - first)).toEqual(heard.map((_, i) => i))
  expect(heard.map(({ from, to }) => `${from}>${to}`)).toEqual([
    ...['null>SCHEDULED', 'SCHEDULED>QUEUED', 'QUEUED>PROCESSING', 'PROCESSING>CANCELLED'],
    ...['CANCELLED>QUEUED', 'QUEUED>PROCESSING', 'PROCESSING>SCHEDULED', 'SCHEDULED>QUEUED'],
    ...['QUEUED>PROCESSING', 'PROCESSING>QUEUED', 'null>QUEUED', 'QUEUED>PROCESSING', 'PROCESSING>FAILED'],
    ...['QUEUED>PROCESSING', 'PROCESSING>COMPLETED', 'FAILED>null'],
  ])
  expect(heard.map((change) => change.first)).toEqual(heard.map((_, i) => i === 0))
  const events = await h.history(id)
  for (const { job, seq, to } of heard.filter((change) => change.job === id))
    expect([job, events[seq - 1]]).toMatchObject([id, { state: to }])
})

it('nothing is told or kept of a job without tags, nor of an owner', async () => {
  const { id } = await h.jobIn('COMPLETED')
  await h.enqueue({ owner: 'ann' })
  expect(await h.jobs.get(id)).toMatchObject({ state: 'COMPLETED' })
  expect(await h.redis.client().keys('*:states')).toEqual([])
})

it('an ended job counts until its retention has passed, one that has not ended for ever; then nothing is left', async () => {
  const states = keys.tagStates('red')
  const ttl = () => h.redis.client().pttl(states)
  const short = await h.enqueue({ tags: ['red'], retentionMs: HOUR })
  const long = await h.enqueue({ tags: ['red'], retentionMs: 3 * HOUR })
  const waiting = await h.enqueue({ tags: ['red'], retentionMs: HOUR, delayMs: 1_000 * HOUR })
  for (const id of [long, short]) await h.jobs.transitions.complete(await h.claim(id), '1')
  await shift(h.jobs, '59m')
  expect(await counts()).toEqual(counted({ COMPLETED: 2, SCHEDULED: 1 }))
  await shift(h.jobs, '2m')
  expect(await counts()).toEqual(counted({ COMPLETED: 1, SCHEDULED: 1 }))
  expect(await ttl()).toBe(-1)
  await h.jobs.cancel(waiting)
  expect(await counts()).toEqual(counted({ COMPLETED: 1, CANCELLED: 1 }))
  // As long as the one that is kept longest.
  expect(await ttl()).toBeGreaterThan(HOUR)
  await h.jobs.rerun(waiting)
  expect(await ttl()).toBe(-1)
  await h.jobs.cancel(waiting)
  await shift(h.jobs, '4h')
  expect(await counts()).toEqual(noCounts())
  expect(await h.redis.client().keys('*:tag:*')).toEqual([])
})

it('a job of a release without such sets goes without leaving one', async () => {
  const id = await h.enqueue({ tags: ['red'] })
  await h.jobs.cancel(id)
  await h.redis.client().del(keys.tagStates('red'))
  await h.jobs.remove(id)
  expect(await h.redis.client().exists(keys.tagStates('red'))).toBe(0)
})

it('a set that is made anew counts on from no number that another has had', async () => {
  const once = async () => {
    const id = await h.enqueue({ tags: ['red'] })
    await h.jobs.cancel(id)
    return (await readTagCounts(h.jobs.link, keys, 'red')).version
  }
  const before = await once()
  await h.redis.client().del(keys.tagStates('red'))
  await until(async () => (await redisTime(h.jobs.link, keys.prefix)) > before)
  expect(await once()).toBeGreaterThan(before)
})

it('what a release without counts has ended is out of them when the last live job ends', async () => {
  const unseen = await h.enqueue({ tags: ['red'] })
  await h.redis.client().zrem(keys.tag('red'), unseen)
  expect(await counts()).toEqual(counted({ QUEUED: 1 }))
  await h.jobs.cancel(await h.enqueue({ tags: ['red'] }))
  expect(await counts()).toEqual(counted({ CANCELLED: 1 }))
})
