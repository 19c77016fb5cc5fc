// `pnpm torture`: runs plans by seed, or one from a file; minimises what fails; and shows that the checks can fail.
import { readFileSync, writeFileSync } from 'node:fs'
import { join, relative } from 'node:path'
import { parseArgs } from 'node:util'
import { workspaceRoot } from '@jobs/provision'
import { minimise } from './minimise.ts'
import { MUTANT_NAMES, MUTANTS, type MutantName } from './mutants.ts'
import { Plan, planOf } from './plan.ts'
import { CHECKS, tableOf } from './report.ts'
import { type Report, runPlan } from './run.ts'
import { MODES, type Mode } from './store.ts'

const HELP = `Usage: pnpm torture [--mode MODE] [--minutes N] [--seed S | --seeds A..B] [--minimise MINUTES]
       pnpm torture --replay FILE
       pnpm torture --mutants

Runs real workers, reapers, gateways, backends and watchers on a real Redis, injects faults at random by the seed,
and checks what is promised while it runs and at the end. Prints the faults injected and survived.

  --minutes N           of each run (default 2)
  --mode MODE           what Redis is: single (default), one server; cluster, three masters with a replica each
  --seed S              default: by the clock
  --seeds A..B          one run for each seed, one after another; all are run whatever comes of them
  --minimise MINUTES    looks so long for a smaller plan that fails too (default 10; 0 does not)
  --replay FILE         runs a plan that was kept: .torture/<run>/plan.json or minimal.json
  --mutant NAME         runs with a deliberate bug: ${MUTANT_NAMES.join(', ')}
  --mutants             runs each of them, by up to three seeds, and fails unless each is caught
  --json FILE           writes the reports as JSON

The history of each run is kept in .torture. Exit codes: 0 no promise broken (--mutants: each caught), 1 else,
2 wrong arguments.`

const wrong = (why: string): never => {
  console.error(`${why}\n\n${HELP}`)
  process.exit(2)
}

const values = (() => {
  try {
    return parseArgs({
      options: {
        minutes: { type: 'string', default: '2' },
        mode: { type: 'string', default: 'single' },
        seed: { type: 'string' },
        seeds: { type: 'string' },
        minimise: { type: 'string', default: '10' },
        replay: { type: 'string' },
        mutant: { type: 'string' },
        mutants: { type: 'boolean', default: false },
        json: { type: 'string' },
        help: { type: 'boolean', default: false },
      },
    }).values
  } catch (error) {
    return wrong((error as Error).message)
  }
})()
if (values.help) {
  console.log(HELP)
  process.exit(0)
}

const number = (name: 'minutes' | 'minimise', least: number): number => {
  const value = Number(values[name])
  return Number.isFinite(value) && value >= least
    ? value
    : wrong(`--${name} takes a number from ${least} on.`)
}
const minutes = number('minutes', 0.1)
const minimiseMinutes = number('minimise', 0)
const mode = values.mode as Mode
if (!MODES.includes(mode)) wrong(`There is no mode ${mode}: take one of ${MODES.join(', ')}.`)
const mutant = values.mutant as MutantName | undefined
if (mutant !== undefined && !MUTANT_NAMES.includes(mutant))
  wrong(`There is no mutant ${mutant}: take one of ${MUTANT_NAMES.join(', ')}.`)

const seedsGiven = (): number[] => {
  const { seed, seeds } = values
  if (seed !== undefined && seeds !== undefined) return wrong('Give --seed or --seeds, not both.')
  if (seeds !== undefined) {
    const [, from, to] = /^(\d+)\.\.(\d+)$/.exec(seeds) ?? wrong('--seeds takes two numbers, as 1..20.')
    if (Number(to) < Number(from)) wrong('--seeds takes the lower number first.')
    return Array.from({ length: Number(to) - Number(from) + 1 }, (_, i) => Number(from) + i)
  }
  if (seed !== undefined && !/^\d+$/.test(seed)) wrong('--seed takes a whole number.')
  return [seed === undefined ? Date.now() % 1e9 : Number(seed)]
}

const planFrom = (file: string): Plan => {
  try {
    return Plan.parse(JSON.parse(readFileSync(file, 'utf8')))
  } catch (error) {
    return wrong(`${file} holds no plan: ${(error as Error).message}`)
  }
}

const history = join(workspaceRoot(), '.torture')
const shown = (path: string) => relative(process.cwd(), path)
const folderOf = ({ seed, mode: of, mutant: bug }: Plan): string =>
  join(
    history,
    `${new Date().toISOString().slice(0, 19).replace(/[:T]/g, '-')}-${of}-seed-${seed}${bug ? `-${bug}` : ''}`,
  )
const tell = (line: string) => console.log(`  ${line}`)

/** Runs one plan, and looks for a smaller one where it fails. */
const run = async (plan: Plan): Promise<Report> => {
  const folder = folderOf(plan)
  console.log(
    `seed ${plan.seed}, ${plan.mode}: ${plan.windows} windows, ${plan.steps.length} faults; history in ${shown(folder)}`,
  )
  const report = await runPlan(plan, folder, tell)
  console.log(`\n${tableOf(report)}\n`)
  const [first] = report.violations
  if (!first || values.mutants || minimiseMinutes === 0) return report
  const until = performance.now() + minimiseMinutes * 60_000
  let n = 0
  const smallest = await minimise(
    { ...plan, windows: report.windows, steps: plan.steps.filter(({ window }) => window < report.windows) },
    {
      until,
      fails: async (smaller) => {
        const { violations } = await runPlan(smaller, join(folder, `smaller-${++n}`))
        const fails = violations.some(({ check }) => check === first.check)
        tell(`with ${smaller.steps.length} faults: ${fails ? 'fails too' : 'does not fail'}`)
        return fails
      },
    },
  )
  const file = join(folder, 'minimal.json')
  writeFileSync(file, `${JSON.stringify(smallest, null, 1)}\n`)
  console.log(`${smallest.steps.length} faults are enough: pnpm torture --replay ${shown(file)}\n`)
  return report
}

/** Seeds that a mutant gets to be caught. */
const MUTANT_TRIES = 3

// An exit ends every process of the fleet; a signal by itself would leave them.
for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, () => process.exit(1))

const reports: Report[] = []
let failed = false
if (values.mutants) {
  const lines: string[] = []
  for (const name of MUTANT_NAMES) {
    let caught = 'NOT CAUGHT'
    const seed = seedsGiven()[0] as number
    // A plan by chance has few zombies: the next seed's may have more.
    for (let tries = 0; tries < MUTANT_TRIES && caught === 'NOT CAUGHT'; tries++) {
      const report = await run(planOf(seed + tries, minutes, { mode, mutant: name }))
      reports.push(report)
      const [first] = report.violations
      if (first)
        caught = `caught after ${Math.round(report.ms / 1_000)} s by ${CHECKS[first.check]}, seed ${seed + tries}`
    }
    failed ||= caught === 'NOT CAUGHT'
    lines.push(`${name} (${MUTANTS[name].says}): ${caught}`)
  }
  console.log(lines.join('\n'))
} else {
  const plans = values.replay
    ? [planFrom(values.replay)]
    : seedsGiven().map((seed) => planOf(seed, minutes, { mode, mutant }))
  for (const plan of plans) reports.push(await run(plan))
  failed = reports.some(({ violations }) => violations.length > 0)
  if (reports.length > 1) {
    const bad = reports.filter(({ violations }) => violations.length > 0).map(({ plan }) => plan.seed)
    console.log(
      `${reports.length} runs, ${bad.length} of which broke a promise${bad.length > 0 ? `: seeds ${bad.join(', ')}` : ''}`,
    )
  }
}
if (values.json) writeFileSync(values.json, `${JSON.stringify(reports, null, 1)}\n`)
process.exit(failed ? 1 : 0)
