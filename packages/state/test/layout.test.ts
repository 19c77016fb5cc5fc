// What a namespace says of its partitions, and that it says so again after Redis lost its data under live processes.
import { connectJobs, defineJob, type Jobs, keysOf, reaperOf } from '@jobs/state'
import { startTestRedis, type TestRedis } from '@jobs/testkit'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'

let redis: TestRedis
beforeAll(async () => {
  redis = await startTestRedis()
})
afterAll(() => redis.stop())

const open: Jobs[] = []
const connect = async (partitions: number) => {
  const jobs = await connectJobs({
    url: redis.url,
    namespace: 'laid',
    partitions,
    onFinding: () => undefined,
  })
  open.push(jobs)
  return jobs
}
let sweep: () => Promise<unknown>
beforeEach(async () => {
  await redis.client().flushall()
  sweep = reaperOf(await connect(2), { intervalMs: 1_000 }).sweep
})
afterEach(() => Promise.all(open.splice(0).map((jobs) => jobs.close())))

const MISMATCH = { code: 'LAYOUT_MISMATCH', message: expect.stringContaining('2 partition(s) in Redis') }

it('keeps out who counts other partitions', async () => {
  await expect(connect(3)).rejects.toMatchObject(MISMATCH)
  await connect(2)
})

it.each([
  ['FLUSHALL', () => redis.client().flushall()],
  [
    'a restart without data',
    async () => {
      await redis.client().config('SET', 'save', '')
      await redis.kill('SIGKILL')
      await redis.restart()
    },
  ],
])('is written again by the first sweep after %s', async (_, lose) => {
  await lose()
  expect(await redis.client().exists(keysOf('laid', 0).layout)).toBe(0)
  await sweep()
  await expect(connect(3)).rejects.toMatchObject(MISMATCH)
})

describe('a reaper that runs', () => {
  it('sweeps no namespace that was made anew with other partitions, and says so', async () => {
    await redis.client().flushall()
    await connect(3)
    await expect(sweep()).rejects.toMatchObject({
      code: 'LAYOUT_MISMATCH',
      message: expect.stringContaining('set JOBS_PARTITIONS=3'),
    })
  })

  it('sweeps while memory is full', async () => {
    const [jobs] = open
    await jobs?.enqueue(defineJob({ name: 'mail' }), {})
    await redis.client().config('SET', 'maxmemory', '1mb')
    await sweep()
    await redis.client().config('SET', 'maxmemory', '0')
  })
})
