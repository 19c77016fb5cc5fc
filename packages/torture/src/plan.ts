// What a run does, made from its seed alone: a list of faults with their times and targets. It can be kept, shortened and
// run again; only how the processes interleave is not in it.
import { z } from 'zod'
import { randomOf } from '../../state/test/random.ts'
import { FAULT_NAMES, type FaultName, faultOf } from './faults.ts'
import { MUTANT_NAMES } from './mutants.ts'
import { MODES, type Mode } from './store.ts'

const Step = z.object({
  window: z.int().min(0),
  /** Milliseconds after the beginning of the window. */
  at: z.int().min(0),
  fault: z.enum(FAULT_NAMES as [FaultName, ...FaultName[]]),
  target: z.string(),
  forMs: z.int().min(0),
})
export type Step = z.infer<typeof Step>

export const Plan = z.object({
  seed: z.int(),
  /** What Redis is: one server, or a cluster. */
  mode: z.enum(MODES).default('single'),
  /** Times of load, each of which ends healed, drained and checked. */
  windows: z.int().min(1),
  /** Milliseconds of load of each. */
  windowMs: z.int().min(1_000),
  mutant: z.enum(MUTANT_NAMES as [(typeof MUTANT_NAMES)[number], ...typeof MUTANT_NAMES]).optional(),
  steps: z.array(Step),
})
export type Plan = z.infer<typeof Plan>

const WINDOW_MS = 20_000
/** What a window takes with its end, about. */
const WHOLE_WINDOW_MS = 27_000
/** Milliseconds of load after the last fault of a window has begun, so that it does something. */
const TAIL_MS = 4_500
/** Milliseconds between the beginnings of two faults, at most; at least a sixth of it. */
const GAP_MS = 1_400

export interface PlanOptions {
  mode?: Mode
  mutant?: Plan['mutant']
}

export const planOf = (
  seed: number,
  minutes: number,
  { mode = 'single', mutant }: PlanOptions = {},
): Plan => {
  const random = randomOf(seed)
  const windowMs = Math.min(WINDOW_MS, Math.max(5_000, Math.round(minutes * 60_000)))
  const windows = Math.max(1, Math.round((minutes * 60_000) / WHOLE_WINDOW_MS))
  const names = FAULT_NAMES.filter((name) => faultOf(name).targets[mode].length > 0)
  const bag = names.flatMap((name) => Array.from({ length: faultOf(name).weight }, () => name))
  const steps: Step[] = []
  for (let window = 0; window < windows; window++) {
    const busyUntil = new Map<string, number>()
    for (let at = 300; at < windowMs - TAIL_MS; at += Math.round(GAP_MS / 6) + random.below(GAP_MS)) {
      const fault = random.pick(bag)
      const { targets, ms } = faultOf(fault)
      const target = random.pick(targets[mode])
      const forMs = ms[0] + random.below(ms[1] - ms[0] + 1)
      // Its own draws come first: what is left out changes nothing of what follows.
      if ((busyUntil.get(struckWith(target)) ?? 0) > at) continue
      busyUntil.set(struckWith(target), at + forMs + 500)
      steps.push({ window, at, fault, target, forMs })
    }
  }
  return { seed, mode, windows, windowMs, ...(mutant ? { mutant } : {}), steps }
}

/** What is under repair with it: of a cluster one master at a time. */
const struckWith = (target: string): string => (target.startsWith('partition-') ? 'cluster' : target)
