// Everything at once on one Redis, by a seed: afterwards every invariant holds. STORM_MS and STORM_SEED run it longer, and
// again as it was.
import { expect, it } from 'vitest'
import { runStorm } from './storm.ts'

const ms = Number(process.env.STORM_MS ?? 8_000)
const seed = Number(process.env.STORM_SEED ?? Date.now() % 1e9)

it(
  'every invariant holds after workers, ghosts, reapers, producers and meddlers at the same time',
  async () => {
    const report = await runStorm({ seed, ms })
    console.log(
      `storm: seed ${seed}, ${ms} ms: ${JSON.stringify({ ...report, violations: report.violations.length })}`,
    )
    expect(report.violations).toEqual([])
    expect(report.troubles).toEqual({})
    // What the storm is for happened.
    for (const state of ['COMPLETED', 'FAILED', 'CANCELLED'] as const)
      expect(report.counts[state]).toBeGreaterThan(0)
    expect(report.reaped.QUEUED).toBeGreaterThan(0)
    expect(report.reaped.FAILED).toBeGreaterThan(0)
    expect(report.reaped.error).toBeUndefined()
  },
  ms + 60_000,
)
