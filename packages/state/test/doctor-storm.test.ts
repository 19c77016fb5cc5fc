// While everything goes on at once the doctor finds nothing, mending or not, and does no harm.
import { type Damage, examine } from '@jobs/state'
import { expect, it } from 'vitest'
import { runStorm } from './storm.ts'

const ms = Number(process.env.STORM_MS ?? 4_000)
const seed = Number(process.env.STORM_SEED ?? Date.now() % 1e9)

it(
  'finds nothing while workers, ghosts, reapers, producers and meddlers are at work, and every invariant holds afterwards',
  async () => {
    const damages: Damage[] = []
    let looks = 0
    const { violations, counts } = await runStorm({
      seed,
      ms,
      fault: async ({ jobs, pause }) => {
        // The reapers have swept, and the layout is written.
        await pause(500)
        await jobs.link.call('HSET', jobs.transitions.keys[0]?.layout as string, 'partitions', 2, 'schema', 1)
        // Mending and not, twice each at least.
        for (const end = Date.now() + ms; Date.now() < end || looks < 4; looks++)
          damages.push(...(await examine(jobs, { fix: looks % 2 === 1 })).damages)
      },
    })
    console.log(`doctor in a storm: seed ${seed}, ${looks} looks, ${JSON.stringify(counts)}`)
    expect(damages).toEqual([])
    expect(violations).toEqual([])
  },
  ms + 60_000,
)
