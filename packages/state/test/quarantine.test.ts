// Jobs that kill their workers: listed with each crash, run again or deleted, one by one and all at once.
import { defineJob, type keysOf } from '@jobs/state'
import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest'
import { type Harness, startHarness } from './harness.ts'
import { reapOnce } from './reaper.ts'

let h: Harness
beforeAll(async () => {
  h = await startHarness()
})
afterAll(() => h.stop())
beforeEach(() => h.jobs.link.call('FLUSHALL'))

const keys = () => h.jobs.transitions.keys[0] as ReturnType<typeof keysOf>

/** Worker after worker takes what waits of a name, and dies of it, until all are taken out. */
const killWith = async (name: string, worker: string) => {
  for (let attempt = 1; attempt <= 2; attempt++) {
    const claimant = { worker: `${worker}-${attempt}-abcdef`, nonce: 'n', leaseMs: 60_000 }
    const { grants } = await h.jobs.transitions.take(keys(), name, 1_000, claimant)
    expect(grants.length).toBeGreaterThan(0)
    for (const { id } of grants) await h.lapse(id)
    await reapOnce(h.jobs, { minIdleMs: 0, maxGapMs: 0 })
  }
}

const poison = async (name: string, count: number): Promise<string[]> => {
  const items = Array.from({ length: count }, (_, n) => ({ payload: n, options: { maxCrashes: 1 } }))
  const made = await h.jobs.enqueueMany(defineJob({ name }), items)
  await killWith(name, 'box')
  return made.flatMap((item) => (item.ok ? [item.id] : []))
}

it('lists a poison job with worker, host and time of each crash; others that failed are not among them', async () => {
  const [id = ''] = await poison('any', 1)
  await h.jobIn('FAILED')
  const { jobs, cursor } = await h.jobs.quarantine.list()
  expect(cursor).toBeNull()
  expect(jobs).toMatchObject([
    {
      job: { id, state: 'FAILED', error: { code: 'CRASHED' } },
      crashes: [
        { attempt: 1, worker: 'box-1-abcdef', host: 'box', pid: 1 },
        { attempt: 2, worker: 'box-2-abcdef', host: 'box', pid: 2 },
      ],
    },
  ])
  for (const { startedAt, foundAt } of jobs[0]?.crashes ?? [])
    expect(foundAt).toBeGreaterThanOrEqual(startedAt)
})

it('pages through more than a page, by name', async () => {
  await poison('other', 1)
  const ids = await poison('any', 5)
  const listed: string[] = []
  for (let cursor: string | null | undefined; cursor !== null; ) {
    const page = await h.jobs.quarantine.list({ name: 'any', limit: 2, ...(cursor ? { cursor } : {}) })
    listed.push(...page.jobs.map(({ job }) => job.id))
    cursor = page.cursor
  }
  expect(listed.sort()).toEqual(ids.sort())
})

it('runs all of a name again, batch by batch, with fresh budgets; a later crash trail begins anew', async () => {
  const [other = ''] = await poison('other', 1)
  const ids = await poison('any', 250)
  const progress: number[] = []
  const outcome = await h.jobs.quarantine.retry({ name: 'any', onProgress: (done) => progress.push(done) })
  expect(outcome).toEqual({ done: 250, refused: [] })
  expect(progress).toEqual([200, 250])
  expect(await h.jobs.counts()).toMatchObject({ QUEUED: 250, FAILED: 1 })
  expect((await h.jobs.get(other))?.state).toBe('FAILED')
  await killWith('any', 'later')
  const { jobs } = await h.jobs.quarantine.list({ name: 'any', limit: 1 })
  expect(ids).toContain(jobs[0]?.job.id)
  expect(jobs[0]?.crashes).toMatchObject([
    { attempt: 3, host: 'later' },
    { attempt: 4, host: 'later' },
  ])
})

it('deletes those that are named, and refuses what is not in quarantine', async () => {
  const [first = '', second = ''] = await poison('any', 2)
  const { id: failed } = await h.jobIn('FAILED')
  expect(await h.jobs.quarantine.delete({ ids: [first, failed, 'nobody'] })).toEqual({
    done: 1,
    refused: [failed, 'nobody'],
  })
  expect(await h.jobs.get(first)).toBeNull()
  expect((await h.jobs.quarantine.list()).jobs.map(({ job }) => job.id)).toEqual([second])
})
