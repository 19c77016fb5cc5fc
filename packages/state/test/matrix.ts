// State × move: every legal move moves, every other is refused with a typed outcome and changes nothing; on any engine.
import { describe, expect, it } from 'vitest'
import { canMove, MOVE_NAMES, MOVES, STATES } from '../src/schema/machine.ts'
import { anyJob, type Harness } from './harness.ts'

/** Moves over one named job; those that passes over many make have tests of their own. */
const single = MOVE_NAMES.filter((move) => MOVES[move].takes !== null)

const fenced = single.filter((move) => MOVES[move].by === 'worker' && move !== 'claim')

/** @param h answers the harness, once the tests run */
export const describeMatrix = (h: () => Harness) => {
  describe.each(single)('%s', (move) => {
    for (const state of [null, ...STATES]) {
      const legal = canMove(move, state)
      it(`${legal ? 'moves' : 'is refused for'} ${state ?? 'an unknown job'}`, async () => {
        const job = await h().jobIn(state)
        if (move === 'abort' && legal) await h().jobs.transitions.cancel(job.id)
        const before = await h().redis.digest()
        const outcome = await h().fire(move, job)
        if (legal) {
          expect(outcome.ok).toBe(true)
          const after = await h().jobs.get(job.id)
          if (move === 'remove') return expect(after).toBeNull()
          expect(MOVES[move].to).toContain(after?.state)
          expect(after).toEqual(await h().folded(job.id))
        } else {
          // A cancelled job that is cancelled once more by the same move answers as the first time.
          if (!outcome.ok) expect(outcome).toMatchObject({ ok: false, state })
          else expect(outcome.repeat).toBe(true)
          expect(await h().redis.digest()).toBe(before)
        }
      })
    }
  })

  describe('a worker whose fence is not the current one', () => {
    it.each(fenced)('is refused %s, and nothing changes', async (move) => {
      const job = await h().jobIn('PROCESSING')
      const before = await h().redis.digest()
      expect(await h().fire(move, { ...job, fence: '1-stale' })).toEqual({
        ok: false,
        reason: 'fenced',
        state: 'PROCESSING',
      })
      expect(await h().redis.digest()).toBe(before)
    })
  })

  describe('a reply that got lost', () => {
    it.each(['complete', 'fail', 'retry', 'release', 'cancel', 'rerun'] as const)(
      'is given again for %s, which happens once',
      async (move) => {
        const job = await h().jobIn(move === 'rerun' ? 'FAILED' : move === 'cancel' ? 'QUEUED' : 'PROCESSING')
        const first = await h().fire(move, job)
        const before = await h().redis.digest()
        const second = await h().fire(move, job)
        expect(first).toMatchObject({ ok: true, repeat: false })
        expect(second).toEqual({ ...first, repeat: true })
        expect(await h().redis.digest()).toBe(before)
      },
    )

    it.each(['progress', 'log'] as const)('is given again for %s under the same number', async (move) => {
      const job = await h().jobIn('PROCESSING')
      expect(await h().fire(move, job)).toMatchObject({ ok: true, repeat: false })
      const before = await h().redis.digest()
      expect(await h().fire(move, job)).toMatchObject({ ok: true, repeat: true })
      expect(await h().redis.digest()).toBe(before)
    })

    it.each([
      ['now', 0, undefined],
      ['at a time', 0, 2_000_000_000_000],
    ] as const)(
      'is given again for a reschedule to run %s, which happens once',
      async (_, delayMs, runAt) => {
        const { id } = await h().jobIn('QUEUED')
        const first = await h().jobs.transitions.reschedule(id, delayMs, runAt)
        const before = await h().redis.digest()
        expect(first).toMatchObject({ ok: true, repeat: false })
        expect(await h().jobs.transitions.reschedule(id, delayMs, runAt)).toEqual({ ...first, repeat: true })
        expect(await h().redis.digest()).toBe(before)
      },
    )

    it('is the same grant for a claim with the same nonce', async () => {
      const { id } = await h().jobIn('QUEUED')
      const entry = await h().place(id)
      const claimant = { worker: 'w', nonce: 'same', leaseMs: 60_000 }
      const first = await h().jobs.transitions.claim(id, entry, claimant)
      expect(first).toMatchObject({ ok: true, attempt: 1, fence: '1-same', payload: '{"n":1}' })
      expect(await h().jobs.transitions.claim(id, entry, claimant)).toEqual(first)
    })

    it('is the same job for an enqueue with the same id, name and payload', async () => {
      const first = await h().jobs.enqueue(anyJob, { n: 1 }, { id: 'mine' })
      const before = await h().redis.digest()
      expect(await h().jobs.enqueue(anyJob, { n: 1 }, { id: 'mine' })).toEqual({
        ...first,
        duplicate: true,
      })
      expect(await h().redis.digest()).toBe(before)
    })
  })
}
