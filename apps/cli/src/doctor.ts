// `jobs doctor`: what is wrong, in words or JSON, and an exit code that says how bad it is.
import { DAMAGES, type Damage, type DoctorReport, examine, type Jobs } from '@jobs/state'
import { print, printJson, report } from './output.ts'

/** Milliseconds between two lines of progress. */
const PROGRESS_MS = 200

const EXITS = { clean: 0, warning: 1, error: 2 } as const
const COULD_NOT_LOOK = 3

const number = (n: number) => n.toLocaleString('en-US')
const some = (n: number, what: string) => `${number(n)} ${what}${n === 1 ? '' : 's'}`

/** A line that is written over, for people who wait. */
const progress = (): { tell: (looked: number, found: number) => void; clear: () => void } => {
  const { stderr } = process
  if (!stderr.isTTY) return { tell: () => undefined, clear: () => undefined }
  let told = 0
  return {
    tell: (looked, found) => {
      if (performance.now() - told < PROGRESS_MS) return
      told = performance.now()
      stderr.write(`\r\x1b[Klooked at ${number(looked)}, found ${number(found)}`)
    },
    clear: () => stderr.write('\r\x1b[K'),
  }
}

const damageLines = ({ code, severity, about, partition, says, outcome }: Damage): string => {
  const { mending } = DAMAGES[code]
  const then =
    outcome === 'mended'
      ? `Mended: ${mending}`
      : outcome === 'left' || mending === null
        ? 'It is left as it is.'
        : `--fix: ${mending}`
  return `${severity.padEnd(7)} ${code}  ${about} (partition ${partition})\n        ${says} ${then}`
}

const summary = ({ looked, counts, server }: DoctorReport): string => {
  const sum = { found: 0, mended: 0, left: 0 }
  for (const each of Object.values(counts))
    for (const outcome of ['found', 'mended', 'left'] as const) sum[outcome] += each[outcome]
  const parts = [
    ...(server.length > 0 ? [`${some(server.length, 'finding')} about the server`] : []),
    ...(sum.found > 0 ? [`${some(sum.found, 'damage')} found; --fix mends what can be mended`] : []),
    ...(sum.mended > 0 ? [`${some(sum.mended, 'damage')} mended`] : []),
    ...(sum.left > 0 ? [`${some(sum.left, 'damage')} left`] : []),
  ]
  return `Looked at ${some(looked, 'thing')}: ${parts.join(', ') || 'nothing is wrong'}.`
}

export const doctor = async (
  run: (action: (jobs: Jobs) => Promise<number>) => Promise<void>,
  fix: boolean,
  json: boolean,
): Promise<void> => {
  try {
    await run(async (jobs) => {
      const { tell, clear } = progress()
      const told = await examine(jobs, {
        fix,
        onProgress: tell,
        onDamage: (damage) => {
          clear()
          if (json) printJson(damage)
          else print(damageLines(damage))
        },
      })
      clear()
      const { damages: _, ...rest } = told
      if (json) printJson(rest)
      else {
        for (const { severity, code, says, fix: remedy } of told.server)
          print(`${severity.padEnd(7)} ${code}  the server\n        ${says} ${remedy}`)
        print(summary(told))
      }
      return EXITS[told.worst]
    })
  } catch (error) {
    report(error, json)
    process.exitCode = COULD_NOT_LOOK
  }
}
