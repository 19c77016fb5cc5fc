// The state machine on the machine's own Redis: the matrix of state × move, and what an ended job leaves.
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Keys } from '../src/keys.ts'
import { type Harness, isOnCluster, startHarness } from './harness.ts'
import { describeMatrix } from './matrix.ts'

let h: Harness
beforeAll(async () => {
  h = await startHarness()
})
afterAll(() => h.stop())

describeMatrix(() => h)

// Looks into the server itself.
describe.skipIf(isOnCluster())('an ended job', () => {
  it('leaves no key without a time to live, but the fixed ones of its partition', async () => {
    for (const state of ['COMPLETED', 'FAILED', 'CANCELLED'] as const) await h.jobIn(state)
    const client = h.redis.client()
    await client.flushall()
    for (const state of ['COMPLETED', 'FAILED', 'CANCELLED'] as const) await h.jobIn(state)
    const {
      keys: [keys],
    } = h.jobs.transitions
    const lasting = []
    for (const key of await client.keys('*')) if ((await client.pttl(key)) === -1) lasting.push(key)
    expect(lasting.sort()).toEqual([keys?.queues, keys?.stream, keys?.work('any')].sort())
  })

  it('is in exactly one work entry while it waits, and in none when it has ended', async () => {
    const client = h.redis.client()
    await client.flushall()
    const job = await h.jobIn('PROCESSING')
    const work = h.jobs.transitions.keysFor(job.id).work('any')
    expect(await client.xlen(work)).toBe(1)
    await h.fire('complete', job)
    expect(await client.xlen(work)).toBe(0)
    expect(await client.xpending(work, 'workers')).toMatchObject([0, null, null, null])
  })
})

it.skipIf(isOnCluster())('a job that expired and is run again is wanted however late it comes', async () => {
  const { transitions } = h.jobs
  const keys = transitions.keys[0] as Keys
  const id = await h.enqueue({ ttlMs: 3_600_000 })
  await h.redis.client().zadd(keys.deadlines, 1, id)
  expect((await transitions.expire(keys, 10)).expired).toMatchObject([{ id, outcome: 'FAILED' }])
  await transitions.rerun(id)
  expect((await transitions.expire(keys, 10)).expired).toEqual([])
  expect(await h.claim(id)).toMatchObject({ fence: expect.stringMatching(/^1-/) })
})
