// What a run was and what came of it, as a table for people.

import { FAULT_NAMES, faultOf } from './faults.ts'
import { RECOVERY_MS } from './job.ts'
import type { Report } from './run.ts'

const percentile = (of: number[], part: number): number =>
  of.toSorted((a, b) => a - b)[Math.min(of.length - 1, Math.floor(of.length * part))] ?? 0

/** By the number of the promise. */
export const CHECKS = ['', 'jobs and fences', 'events', 'watchers', 'leaks', 'recovery']

export const tableOf = (report: Report): string => {
  const { plan, faults, violations, recoveries, disturbed } = report
  const rows = FAULT_NAMES.flatMap((name) => {
    const row = faults[name]
    return row ? [[name, String(row.injected), String(row.survived), faultOf(name).says]] : []
  })
  const sum = (of: 'injected' | 'survived') =>
    String(Object.values(faults).reduce((all, row) => all + row[of], 0))
  const table = [
    ['fault', 'injected', 'survived', ''],
    ...rows,
    ['all', sum('injected'), sum('survived'), ''],
  ]
  const width = (column: number) => Math.max(...table.map((row) => row[column]?.length ?? 0))
  const lines = table.map(([name = '', injected = '', survived = '', says = '']) =>
    `${name.padEnd(width(0))}  ${injected.padStart(width(1))}  ${survived.padStart(width(2))}  ${says}`.trimEnd(),
  )
  const ended = Object.entries(report.ended).map(([state, n]) => `${n} ${state}`)
  return [
    ...lines,
    '',
    `seed ${plan.seed}, ${plan.mode}${plan.mutant ? `, mutant ${plan.mutant}` : ''}: ${report.windows} of ${plan.windows} windows in ${(report.ms / 1_000).toFixed()} s`,
    `${report.accepted} jobs accepted (${ended.join(', ')}), ${report.attempts} attempts, ${report.events} events, each job watched to its end`,
    `dead workers' jobs recovered: ${recoveries.length}, within ${percentile(recoveries, 0.5)} ms (median), ${percentile(recoveries, 1)} ms (most; promised ${RECOVERY_MS} ms on an idle machine); ${disturbed} more while Redis or a reaper was struck`,
    violations.length === 0 ? 'no promise was broken' : `${violations.length} VIOLATIONS`,
    ...violations.slice(0, 20).map(({ check, says }) => `  ${CHECKS[check] ?? check}: ${says}`),
  ].join('\n')
}
