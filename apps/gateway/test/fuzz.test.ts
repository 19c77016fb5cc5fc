// A few seconds of what `pnpm fuzz` does for longer; another seed each time, which a failure tells.
import { afterAll, beforeAll, expect, it } from 'vitest'
import { caseOf } from './fuzz/cases.ts'
import { fuzz, startFuzzed } from './fuzz/fuzz.ts'
import { randomOf } from './fuzz/random.ts'
import type { Harness } from './harness.ts'

let h: Harness
beforeAll(async () => {
  h = await startFuzzed()
})
afterAll(() => h.stop())

it('lives through bytes of every kind, says nothing outside the contract, keeps nothing, and harms no other', async () => {
  const seed = Number(process.env.FUZZ_SEED ?? Date.now() >>> 0)
  const { cases, ends, faults } = await fuzz(h, { seed, seconds: 4 })
  expect({ seed, faults }).toEqual({ seed, faults: [] })
  expect(cases).toBeGreaterThan(300)
  // Some were good, some were bad, and each kind was there.
  for (const end of ['message null', 'frame 1002', 'upgrade 101', 'upgrade 400'])
    expect(ends).toHaveProperty([end])
})

it('asking for tokens lives through them too, and tells nobody what is not granted', async () => {
  const guarded = await startFuzzed({ tokens: true })
  const seed = Number(process.env.FUZZ_SEED ?? Date.now() >>> 0)
  // Until some were taken and asked for more than they grant, and some were not.
  const unseen = () =>
    ['job', 'token'].filter(
      (what) => !guarded.gateway.stdout.some((line) => line.includes(`"what":"${what}"`)),
    )
  const seen: Record<string, number> = {}
  for (let n = 0; n === 0 || (n < 10 && unseen().length > 0); n++) {
    const { ends, faults } = await fuzz(guarded, { seed: seed + n, seconds: 1, tokens: true })
    expect({ seed: seed + n, faults }).toEqual({ seed: seed + n, faults: [] })
    Object.assign(seen, ends)
  }
  expect(unseen()).toEqual([])
  await guarded.stop()
  for (const end of ['upgrade 101', 'upgrade 401']) expect(seen).toHaveProperty([end])
})

it('makes the same cases of the same seed', () => {
  const cases = () =>
    Array.from({ length: 50 }, (_, i) => caseOf(randomOf(7 + i), { names: ['a'], tokens: ['a.b.c'] }))
  // But for the masks, which are of the moment.
  expect(cases().map(({ kind, bytes, closes }) => [kind, bytes.length, closes])).toEqual(
    cases().map(({ kind, bytes, closes }) => [kind, bytes.length, closes]),
  )
})
