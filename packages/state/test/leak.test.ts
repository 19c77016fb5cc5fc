// Nothing is left behind: some hundred jobs of every outcome, kept for a few seconds after their end, and then exactly the
// fixed keys of each partition are there.
import { expect, it } from 'vitest'
import { PRIORITIES } from '../src/schema/machine.ts'
import { runStorm } from './storm.ts'

const seed = Number(process.env.STORM_SEED ?? Date.now() % 1e9)

it('after every job has ended and its retention has passed only the fixed keys are left', async () => {
  const { violations, left, accepted, counts } = await runStorm({ seed, ms: 3_000, retentionMs: 4_000 })
  console.log(`leak: seed ${seed}: ${JSON.stringify({ accepted, counts })}`)
  expect(violations).toEqual([])
  expect(accepted).toBeGreaterThan(20)
  // A slow machine may come to no cancel.
  for (const state of ['COMPLETED', 'FAILED'] as const) expect(counts[state]).toBeGreaterThan(0)
  const queues = ['a', 'b'].flatMap((name) =>
    PRIORITIES.map((priority) => (priority === 'normal' ? name : `${name}:${priority}`)),
  )
  const fixed = ['queues', 'stream', 'sweep', ...queues.map((queue) => `work:${queue}`)]
  expect(left.map((key) => key.replace(/^\{[^:]+:/, '{'))).toEqual(
    [0, 1].flatMap((partition) => fixed.map((key) => `{${partition}}:${key}`)).sort(),
  )
})
