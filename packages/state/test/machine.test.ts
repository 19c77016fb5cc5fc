// State × move: every legal move moves, every other is refused with a typed outcome and changes nothing.
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Keys } from '../src/keys.ts'
import { canMove, MOVE_NAMES, MOVES, STATES } from '../src/schema/machine.ts'
import { anyJob, type Harness, isOnCluster, startHarness } from './harness.ts'

let h: Harness
beforeAll(async () => {
  h = await startHarness()
})
afterAll(() => h.stop())

/** Moves over one named job; those that passes over many make have tests of their own. */
const single = MOVE_NAMES.filter((move) => MOVES[move].takes !== null)

describe.each(single)('%s', (move) => {
  for (const state of [null, ...STATES]) {
    const legal = canMove(move, state)
    it(`${legal ? 'moves' : 'is refused for'} ${state ?? 'an unknown job'}`, async () => {
      const job = await h.jobIn(state)
      if (move === 'abort' && legal) await h.jobs.transitions.cancel(job.id)
      const before = await h.redis.digest()
      const outcome = await h.fire(move, job)
      if (legal) {
        expect(outcome.ok).toBe(true)
        const after = await h.jobs.get(job.id)
        if (move === 'remove') return expect(after).toBeNull()
        expect(MOVES[move].to).toContain(after?.state)
        expect(after).toEqual(await h.folded(job.id))
      } else {
        // A cancelled job that is cancelled once more by the same move answers as the first time.
        if (!outcome.ok) expect(outcome).toMatchObject({ ok: false, state })
        else expect(outcome.repeat).toBe(true)
        expect(await h.redis.digest()).toBe(before)
      }
    })
  }
})

const fenced = single.filter((move) => MOVES[move].by === 'worker' && move !== 'claim')

describe('a worker whose fence is not the current one', () => {
  it.each(fenced)('is refused %s, and nothing changes', async (move) => {
    const job = await h.jobIn('PROCESSING')
    const before = await h.redis.digest()
    expect(await h.fire(move, { ...job, fence: '1-stale' })).toEqual({
      ok: false,
      reason: 'fenced',
      state: 'PROCESSING',
    })
    expect(await h.redis.digest()).toBe(before)
  })
})

describe('a reply that got lost', () => {
  it.each(['complete', 'fail', 'retry', 'release', 'cancel', 'rerun'] as const)(
    'is given again for %s, which happens once',
    async (move) => {
      const job = await h.jobIn(move === 'rerun' ? 'FAILED' : move === 'cancel' ? 'QUEUED' : 'PROCESSING')
      const first = await h.fire(move, job)
      const before = await h.redis.digest()
      const second = await h.fire(move, job)
      expect(first).toMatchObject({ ok: true, repeat: false })
      expect(second).toEqual({ ...first, repeat: true })
      expect(await h.redis.digest()).toBe(before)
    },
  )

  it.each(['progress', 'log'] as const)('is given again for %s under the same number', async (move) => {
    const job = await h.jobIn('PROCESSING')
    expect(await h.fire(move, job)).toMatchObject({ ok: true, repeat: false })
    const before = await h.redis.digest()
    expect(await h.fire(move, job)).toMatchObject({ ok: true, repeat: true })
    expect(await h.redis.digest()).toBe(before)
  })

  it.each([
    ['now', 0, undefined],
    ['at a time', 0, 2_000_000_000_000],
  ] as const)('is given again for a reschedule to run %s, which happens once', async (_, delayMs, runAt) => {
    const { id } = await h.jobIn('QUEUED')
    const first = await h.jobs.transitions.reschedule(id, delayMs, runAt)
    const before = await h.redis.digest()
    expect(first).toMatchObject({ ok: true, repeat: false })
    expect(await h.jobs.transitions.reschedule(id, delayMs, runAt)).toEqual({ ...first, repeat: true })
    expect(await h.redis.digest()).toBe(before)
  })

  it('is the same grant for a claim with the same nonce', async () => {
    const { id } = await h.jobIn('QUEUED')
    const entry = await h.place(id)
    const claimant = { worker: 'w', nonce: 'same', leaseMs: 60_000 }
    const first = await h.jobs.transitions.claim(id, entry, claimant)
    expect(first).toMatchObject({ ok: true, attempt: 1, fence: '1-same', payload: '{"n":1}' })
    expect(await h.jobs.transitions.claim(id, entry, claimant)).toEqual(first)
  })

  it('is the same job for an enqueue with the same id, name and payload', async () => {
    const first = await h.jobs.enqueue(anyJob, { n: 1 }, { id: 'mine' })
    const before = await h.redis.digest()
    expect(await h.jobs.enqueue(anyJob, { n: 1 }, { id: 'mine' })).toEqual({ ...first, duplicate: true })
    expect(await h.redis.digest()).toBe(before)
  })
})

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

it('a job that expired and is run again is wanted however late it comes', async () => {
  const { transitions } = h.jobs
  const keys = transitions.keys[0] as Keys
  const id = await h.enqueue({ ttlMs: 3_600_000 })
  await h.redis.client().zadd(keys.deadlines, 1, id)
  expect(await transitions.expire(keys, 10)).toEqual([{ id, outcome: 'FAILED' }])
  await transitions.rerun(id)
  expect(await transitions.expire(keys, 10)).toEqual([])
  expect(await h.claim(id)).toMatchObject({ fence: expect.stringMatching(/^1-/) })
})
