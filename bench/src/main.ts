// `pnpm bench <name>`: runs one bench, prints its table, and exits 0 only when every target is met.
import { writeFileSync } from 'node:fs'
import { cpus } from 'node:os'
import { parseArgs } from 'node:util'
import { fanout } from './fanout/index.ts'
import { lifecycle } from './lifecycle/index.ts'
import { recovery } from './recovery/index.ts'
import { serverVersion } from './server.ts'
import { tableOf } from './table.ts'

const BENCHES = {
  lifecycle: { run: lifecycle, peer: 'BullMQ' },
  fanout: { run: fanout, peer: 'bare ws' },
  recovery: { run: recovery, peer: 'BullMQ', rounds: 10 },
}

const HELP = `Usage: pnpm bench lifecycle|fanout|recovery [--rounds N] [--json FILE] [--verbose]

Measures beside a peer in the same run and says which targets are met.

  lifecycle      the life of jobs beside BullMQ: speed, CPU, memory, latency (about 8 minutes)
  fanout         events to watchers beside a bare ws server and Socket.IO: speed, CPU, memory, latency
  recovery       jobs whose worker is killed or frozen, beside BullMQ: time, losses, double runs, cost (about 15 minutes)

  --rounds N     alternating rounds, of which the median counts (default 5, recovery 10)
  --json FILE    writes the figures, the machine and the versions as JSON
  --verbose      prints every measurement as it comes

Exit codes: 0 every target met, 1 not every target met, 2 wrong arguments.`

const wrong = (why: string): never => {
  console.error(`${why}\n\n${HELP}`)
  process.exit(2)
}

const parsed = (() => {
  try {
    return parseArgs({
      allowPositionals: true,
      options: {
        rounds: { type: 'string' },
        json: { type: 'string' },
        verbose: { type: 'boolean', default: false },
        help: { type: 'boolean', default: false },
      },
    })
  } catch (error) {
    return wrong((error as Error).message)
  }
})()
const { positionals, values } = parsed
if (values.help) {
  console.log(HELP)
  process.exit(0)
}
const [name = ''] = positionals
if (!Object.hasOwn(BENCHES, name)) wrong(name ? `There is no bench ${name}.` : 'Which bench?')
const { run, peer, ...more } = BENCHES[name as keyof typeof BENCHES]
const rounds = Number(values.rounds ?? ('rounds' in more ? more.rounds : 5))
if (!Number.isInteger(rounds) || rounds < 1) wrong('--rounds takes a number from 1 on.')

let count = 0
const rows = await run(rounds, (line) => {
  count++
  if (values.verbose) console.log(line)
  else if (process.stderr.isTTY) process.stderr.write(`\r${count} measured: ${line.slice(0, 40)}\u001b[K`)
})
if (process.stderr.isTTY) process.stderr.write('\r\u001b[K')
const machine = `${cpus().length} × ${cpus()[0]?.model ?? 'unknown'}, Node ${process.versions.node}, Redis ${await serverVersion()}`
console.log(`${tableOf(rows, peer)}\n\n${machine}; medians of ${rounds} alternating rounds.`)
if (values.json)
  writeFileSync(
    values.json,
    `${JSON.stringify({ bench: name, at: new Date().toISOString(), machine, rounds, rows }, null, 2)}\n`,
  )
process.exit(rows.every(({ met }) => met) ? 0 : 1)
