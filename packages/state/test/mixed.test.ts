// Two releases at work on one Redis: each frozen one, and one yet to come, beside today's; call by call on the same jobs,
// and worker by worker under the storm. MODEL_RUNS and MODEL_SEED run more, and again as it was.
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { attemptsOf } from '../src/history.ts'
import { connectJobs } from '../src/jobs.ts'
import { fold } from '../src/schema/event.ts'
import { type Harness, startHarness } from './harness.ts'
import { randomOf } from './random.ts'
import { frozenReleases, laterRelease, type Release, runScriptsOf, today } from './releases.ts'
import { runStorm } from './storm.ts'
import { anyOptions, anySteps, play, type World } from './world.ts'

const seed = Number(process.env.MODEL_SEED ?? Date.now() % 1e9)
const numRuns = Number(process.env.MODEL_RUNS ?? 50)

let h: Harness
let running: Release = today
let random = randomOf(seed)
/** Releases that ran a script since the last step, and those to choose from. */
let ran = new Set<string>()
let mix: Release[] = [today]
beforeAll(async () => {
  h = await startHarness()
  runScriptsOf(h.jobs, () => {
    running = random.pick(mix)
    ran.add(running.version)
    return running
  })
})
afterAll(() => h.stop())

/** What of the hash only a later release knows. */
const laterParts = async (
  world: World,
): Promise<Map<string, { hops: number; flag: boolean; field: boolean }>> => {
  const parts = new Map<string, { hops: number; flag: boolean; field: boolean }>()
  for (const { id } of world.jobs) {
    const hash = await h.redis.client().hgetall(h.jobs.transitions.keysFor(id).job(id))
    if (!hash.now) continue
    const [, , , , , flags = '', , , hops] = hash.now.split(' ')
    parts.set(id, { hops: Number(hops ?? 0), flag: flags.includes('z'), field: hash.later === 'kept' })
  }
  return parts
}

describe.each([...frozenReleases(), laterRelease()])('release $version beside today’s', (release) => {
  it('is the same jobs to any sequence of moves, whichever runs each', async () => {
    mix = [today, release]
    const seen = { flag: 0, field: 0, hops: 0 }
    await fc.assert(
      fc.asyncProperty(anySteps, anyOptions, fc.integer(), async (steps, first, salt) => {
        random = randomOf(salt)
        let before = new Map<string, { hops: number; flag: boolean; field: boolean }>()
        await play(h, steps, first, async (world) => {
          const after = await laterParts(world)
          for (const [id, was] of before) {
            const is = after.get(id)
            if (!is) continue
            // What it does not know today's release leaves as it was.
            expect(is).toMatchObject({ flag: was.flag, ...(was.field ? { field: true } : {}) })
            if (!ran.has('later')) expect(is.hops).toBe(was.hops)
            else expect(is.hops).toBeGreaterThanOrEqual(was.hops)
          }
          for (const { hops, flag, field } of after.values()) {
            seen.hops += hops
            seen.flag += flag ? 1 : 0
            seen.field += field ? 1 : 0
          }
          before = after
          ran = new Set()
        })
      }),
      { numRuns, seed },
    )
    if (release.version === 'later')
      for (const times of Object.values(seen)) expect(times).toBeGreaterThan(100)
  })

  it('shares workers, reapers and producers with it under load', async () => {
    let n = 0
    const report = await runStorm({
      seed,
      ms: 2_500,
      prepare: (jobs) => {
        const mine = n++ % 2 === 0 ? today : release
        runScriptsOf(jobs, () => mine)
      },
    })
    const { violations, ...figures } = report
    console.log(`${release.version}, seed ${seed}: ${JSON.stringify(figures)}`)
    expect(violations).toEqual([])
    expect(report.troubles).toEqual({})
    expect(report.counts.COMPLETED).toBeGreaterThan(0)
  })
})

it('an event of a kind that is not known is followed and folded like a report', async () => {
  await h.redis.client().flushall()
  mix = [laterRelease()]
  const { id } = await h.jobIn('COMPLETED')
  mix = [today]
  const types: string[] = []
  for await (const { type } of h.jobs.events(id)) types.push(type)
  expect(types).toEqual(['state', 'state', 'mark', 'state'])
  expect(await h.jobs.attempts(id)).toMatchObject([{ attempt: 1, outcome: 'completed' }])
})

it('a move that is not known is folded to the state it tells, and ends the attempt', async () => {
  await h.redis.client().flushall()
  const { id } = await h.jobIn('PROCESSING')
  const changes = await h.history(id)
  const seq = changes.length + 1
  const later = { seq, at: 5, type: 'state', move: 'yield', state: 'QUEUED', attempt: 1, why: 'new' }
  const before = await h.folded(id)
  expect(fold(before, later as never, id)).toMatchObject({ state: 'QUEUED', attempt: 1, worker: null, seq })
  expect(attemptsOf([...changes, later as never])).toMatchObject([{ endedAt: 5, outcome: 'released' }])
})

it('a namespace in a layout of a later release is refused', async () => {
  const namespace = 'from-later'
  await (await connectJobs({ url: h.redis.url, namespace })).close()
  await h.redis.client().hset(`{${namespace}:0}:layout`, 'schema', '2')
  await expect(connectJobs({ url: h.redis.url, namespace })).rejects.toMatchObject({
    code: 'LAYOUT_MISMATCH',
    message: expect.stringContaining('layout 2'),
  })
})
