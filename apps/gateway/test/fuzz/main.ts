// `pnpm fuzz [--seconds N] [--seed S] [--tokens]`: longer than the suite does. The seed is printed, and makes the same cases again.
import { parseArgs } from 'node:util'
import { fuzz, startFuzzed } from './fuzz.ts'

const { values } = parseArgs({
  options: {
    seconds: { type: 'string', default: '60' },
    seed: { type: 'string' },
    tokens: { type: 'boolean', default: false },
  },
})
const seconds = Number(values.seconds)
const seed = values.seed === undefined ? Date.now() >>> 0 : Number(values.seed)
if (!(seconds > 0) || !Number.isInteger(seed)) {
  console.error('pnpm fuzz [--seconds N] [--seed S] [--tokens], the first two numbers')
  process.exit(2)
}
console.log(`seed ${seed}, ${seconds} s`)
const { tokens } = values
const h = await startFuzzed({ tokens })
const { cases, ends, faults } = await fuzz(h, { seed, seconds, tokens })
await h.stop()
for (const [end, count] of Object.entries(ends).sort()) console.log(`${String(count).padStart(8)}  ${end}`)
console.log(`${cases} cases, ${faults.length} faults`)
for (const why of faults) console.error(why)
if (faults.length > 0)
  console.error(`Again: pnpm fuzz --seed ${seed} --seconds ${seconds}${tokens ? ' --tokens' : ''}`)
process.exit(faults.length > 0 ? 1 : 0)
