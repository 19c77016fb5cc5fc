// Random moves over a few jobs, beside a model of one job: outcomes and jobs are as foretold, and every invariant holds.
// MODEL_RUNS and MODEL_SEED run more, and again as it was.
import fc from 'fast-check'
import { afterAll, beforeAll, it } from 'vitest'
import { type Harness, startHarness } from './harness.ts'
import { anyOptions, anySteps, play } from './world.ts'

let h: Harness
beforeAll(async () => {
  h = await startHarness()
})
afterAll(() => h.stop())

it('holds for any sequence of moves', async () => {
  await fc.assert(
    fc.asyncProperty(anySteps, anyOptions, (steps, first) => play(h, steps, first)),
    {
      numRuns: Number(process.env.MODEL_RUNS ?? 120),
      seed: Number(process.env.MODEL_SEED ?? Date.now() % 1e9),
    },
  )
})
