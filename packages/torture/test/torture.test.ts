// The torture itself, for a short while, and its parts: `pnpm torture --minutes 60` runs it longer.
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { FAULT_NAMES, faultOf } from '../src/faults.ts'
import { SPARED } from '../src/fleet.ts'
import { minimise } from '../src/minimise.ts'
import { type Plan, planOf } from '../src/plan.ts'
import { tableOf } from '../src/report.ts'
import { runPlan } from '../src/run.ts'
import { MODES } from '../src/store.ts'

const SECONDS = 12
const seed = Number(process.env.TORTURE_SEED ?? Date.now() % 1e9)

it('a fleet of processes keeps every promise under random faults', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'jobs-torture-'))
  const report = await runPlan(planOf(seed, SECONDS / 60), folder)
  console.log(tableOf(report))
  expect(report.violations).toEqual([])
  expect(report.accepted).toBeGreaterThan(20)
  expect(report.events).toBeGreaterThan(200)
  expect(Object.keys(report.faults).length).toBeGreaterThan(2)
  // Of a run that failed the history is kept.
  rmSync(folder, { recursive: true })
}, 240_000)

it('a seed is a plan, and another seed is another', () => {
  expect(planOf(7, 2)).toEqual(planOf(7, 2))
  expect(planOf(8, 2).steps).not.toEqual(planOf(7, 2).steps)
})

describe.each(MODES)('a plan for a Redis that is %s', (mode) => {
  const { steps } = planOf(seed, 60, { mode })

  it('strikes no target with two faults at once, and of a cluster one master at a time', () => {
    const busyUntil = new Map<string, number>()
    for (const { window, at, target, forMs } of steps) {
      const struck = `${window} ${target.startsWith('partition-') ? 'a master' : target}`
      expect(at).toBeGreaterThanOrEqual(busyUntil.get(struck) ?? 0)
      busyUntil.set(struck, at + forMs)
    }
  })

  it('has every fault of the mode within an hour, and none of the other', () => {
    const fits = FAULT_NAMES.filter((name) => faultOf(name).targets[mode].length > 0)
    expect(new Set(steps.map(({ fault }) => fault))).toEqual(new Set(fits))
    expect(steps.filter(({ fault, target }) => !faultOf(fault).targets[mode].includes(target))).toEqual([])
  })

  it('ends none of those whose memory is judged, and strikes them otherwise', () => {
    for (const name of SPARED) {
      const faults = new Set(steps.filter(({ target }) => target === name).map(({ fault }) => fault))
      expect(faults).not.toContain('process-killed')
      expect(faults).not.toContain('deploy')
      expect(faults).toContain('process-frozen')
    }
  })
})

it('of a plan that fails the faults that matter are left', async () => {
  const plan = planOf(7, 2)
  const last = plan.steps.filter(({ window }) => window === plan.windows - 1)
  const [a, b] = [last[2], last.at(-2)]
  const has = (of: Plan, step: typeof a) =>
    of.steps.some(({ at, fault }) => at === step?.at && fault === step.fault)
  let runs = 0
  const fails = async (smaller: Plan) => {
    runs++
    return has(smaller, a) && has(smaller, b)
  }
  const smallest = await minimise(plan, { fails, until: Number.POSITIVE_INFINITY, tries: 1 })
  expect(smallest.windows).toBe(1)
  expect(smallest.steps.map(({ at }) => at)).toEqual([a?.at, b?.at])
  expect(runs).toBeLessThan(60)
})
