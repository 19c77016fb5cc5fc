// A plan that fails, made as small as it can be and still fails: halves of its faults are left out, then quarters, and so
// on (delta debugging). Processes never interleave twice the same, so each smaller plan gets more than one try.
import type { Plan, Step } from './plan.ts'

export interface MinimiseOptions {
  /** Whether the plan fails in the same way. */
  fails: (plan: Plan) => Promise<boolean>
  /** Milliseconds (performance.now) after which the smallest found so far is the answer. */
  until: number
  tries?: number
}

export const minimise = async (plan: Plan, { fails, until, tries = 2 }: MinimiseOptions): Promise<Plan> => {
  let best = plan
  const isSmaller = async (steps: Step[], windows: number): Promise<boolean> => {
    const smaller = { ...best, steps, windows }
    for (let n = 0; n < tries && performance.now() < until; n++)
      if (await fails(smaller)) {
        best = smaller
        return true
      }
    return false
  }

  // What failed was found at the end of the last window: mostly it is enough to run that one.
  const last = Math.max(0, ...best.steps.map(({ window }) => window))
  if (last > 0) {
    const alone = best.steps.filter(({ window }) => window === last).map((step) => ({ ...step, window: 0 }))
    await isSmaller(alone, 1)
  }
  for (let parts = 2; best.steps.length > 1 && performance.now() < until; ) {
    const size = Math.ceil(best.steps.length / parts)
    let shrunk = false
    for (let from = 0; from < best.steps.length && performance.now() < until; ) {
      const without = [...best.steps.slice(0, from), ...best.steps.slice(from + size)]
      if (without.length > 0 && (await isSmaller(without, best.windows))) shrunk = true
      else from += size
    }
    if (shrunk) parts = Math.max(2, parts - 1)
    else if (size === 1) break
    else parts = Math.min(best.steps.length, parts * 2)
  }
  return best
}
