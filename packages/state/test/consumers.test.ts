// The names of workers in the groups of the work streams: those of workers that are gone are forgotten.
import { until } from '@jobs/testkit'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { type Harness, startHarness } from './harness.ts'

let h: Harness
beforeAll(async () => {
  h = await startHarness()
})
afterAll(() => h.stop())

/** A worker that is forgotten was given nothing for a hundred times as long; one sweep in 64 looks. */
const IDLE_MS = 15

it('a sweep forgets workers that are gone, and what others hold stays pending', async () => {
  const { transitions, link } = h.jobs
  const [keys] = transitions.keys
  if (!keys) throw new Error('there is no partition')
  const consumers = async () =>
    ((await link.call('XINFO', 'CONSUMERS', keys.work('any'), 'workers')) as string[][])
      .map(([, name = '']) => name)
      .filter((name) => name !== 'reaper')
      .sort()
  const take = async (worker: string) => {
    const by = { worker, nonce: worker, leaseMs: 60_000 }
    return (await transitions.take(keys, 'any', 1, by)).grants
  }
  const ids = [await h.enqueue(), await h.enqueue()]
  const grants = [...(await take('gone')), ...(await take('holds'))]
  expect(grants.map(({ id }) => id)).toEqual(ids)
  const [gone] = grants
  if (gone) await transitions.complete(gone, '1')
  expect(await consumers()).toEqual(['gone', 'holds'])

  await until(
    async () => {
      const step = { cursor: '0-0', count: 20, minIdleMs: IDLE_MS, maxGapMs: 60_000, amnesty: false }
      for (let n = 0; n < 50; n++) await transitions.reap(keys, 'any', step)
      return !(await consumers()).includes('gone')
    },
    { what: 'the end of a name' },
  )
  // With a name what is pending for it would go.
  const pending = (await link.call('XPENDING', keys.work('any'), 'workers', '-', '+', 10)) as string[][]
  expect(pending.map(([entry]) => entry)).toEqual([await h.place(ids[1] as string)])
  expect(await h.jobs.get(ids[1] as string)).toMatchObject({ state: 'PROCESSING', worker: 'holds' })

  // One that was forgotten and lives takes jobs as before.
  const id = await h.enqueue()
  expect(await take('gone')).toMatchObject([{ id }])
})
