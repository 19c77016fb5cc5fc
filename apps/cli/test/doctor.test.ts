// `jobs doctor` and `jobs quarantine` as their user runs them: lines, JSON, exit codes.
import { defineJob, Jobs, type keysOf } from '@jobs/state'
import { fromSource, startProcess, startTestRedis, type TestRedis } from '@jobs/testkit'
import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest'

const NAMESPACE = 'doctor'

let redis: TestRedis
let jobs: Jobs
beforeAll(async () => {
  redis = await startTestRedis({ appendonly: true })
  jobs = new Jobs({ url: redis.url, namespace: NAMESPACE })
})
afterAll(async () => {
  await jobs.close()
  await redis.stop()
})

const keys = () => jobs.transitions.keys[0] as ReturnType<typeof keysOf>
beforeEach(async () => {
  await redis.client().flushall()
})

const run = async (...args: string[]) => {
  const command = startProcess(process.execPath, [...fromSource('apps/cli/src/main.ts'), ...args], {
    env: { REDIS_URL: redis.url, JOBS_NAMESPACE: NAMESPACE },
  })
  command.end()
  const { code } = await command.exited
  return { code, out: command.stdout, err: command.stderr }
}
const lines = (out: string[]) => out.map((line) => JSON.parse(line))

const any = defineJob({ name: 'any' })
const takeOne = async () => {
  const { grants } = await jobs.transitions.take(keys(), 'any', 1, {
    worker: 'host-9-1-abc123',
    nonce: 'n',
    leaseMs: 1,
  })
  const [grant] = grants
  if (!grant) throw new Error('nothing was to be taken')
  return grant
}

/** The worker of every attempt dies, until the job is taken out. */
const poison = async (): Promise<string> => {
  const { id } = await jobs.enqueue(any, { n: 1 }, { maxCrashes: 1 })
  for (const state of ['QUEUED', 'FAILED']) {
    await takeOne()
    await expect
      .poll(async () => {
        const step = { cursor: '0-0', count: 10, minIdleMs: 0, maxGapMs: 0, amnesty: false }
        await jobs.transitions.reap(keys(), 'any', step)
        return (await jobs.get(id))?.state
      })
      .toBe(state)
  }
  return id
}

const sweptNow = async () => {
  const [seconds] = await redis.client().time()
  await redis.client().hset(keys().sweep, 'at', `${seconds}000`)
}

it('exits 0 where nothing is wrong, 1 with warnings, 2 with damage, and 0 when it has mended all', async () => {
  const empty = await run('doctor')
  expect(empty).toMatchObject({ code: 0, out: ['Looked at 0 things: nothing is wrong.'], err: [] })
  expect(await redis.client().keys('*')).toEqual([])

  const { id } = await jobs.enqueue(any, { n: 1 })
  const warned = await run('doctor', '--fix', '--json')
  expect(warned.code).toBe(1)
  expect(lines(warned.out)).toMatchObject([
    { code: 'layout_missing', severity: 'error', outcome: 'mended' },
    { code: 'no_reaper', severity: 'warning', outcome: 'left' },
    { worst: 'warning', counts: { no_reaper: { left: 1 } } },
  ])

  await sweptNow()
  await redis.client().del(keys().work('any'))
  const damaged = await run('doctor')
  expect(damaged.code).toBe(2)
  expect(damaged.out[0]).toMatch(new RegExp(`^error +not_queued +${id} \\(partition 0\\)$`))
  expect(damaged.out[1]).toMatch(/nobody would ever take it\. --fix: It is put at the end of its queue\.$/)
  expect(damaged.out[2]).toMatch(/^Looked at \d+ things: 1 damage found; --fix mends what can be mended\.$/)

  const mended = await run('doctor', '--fix')
  expect(mended.code).toBe(0)
  expect(mended.out[2]).toMatch(/: 1 damage mended\.$/)
  expect((await takeOne()).id).toBe(id)
})

it('exits 3 when it can’t look', async () => {
  await redis.client().hset(keys().layout, 'partitions', 4, 'schema', 1)
  const { code, err } = await run('doctor', '--json')
  expect(code).toBe(3)
  expect(lines(err)).toMatchObject([{ error: { code: 'LAYOUT_MISMATCH' } }])
})

it('lists jobs in quarantine with their crashes, and queues again or deletes one or all of them', async () => {
  const first = await poison()
  const second = await poison()
  const { out } = await run('quarantine', 'list', '--json')
  expect(lines(out)).toMatchObject([
    {
      id: first,
      crashes: 2,
      crashTrail: [
        { attempt: 1, worker: 'host-9-1-abc123', host: 'host-9', pid: 1 },
        { attempt: 2, worker: 'host-9-1-abc123', host: 'host-9', pid: 1 },
      ],
    },
    { id: second },
  ])
  expect((await run('quarantine', 'retry', first, 'nobody')).out).toEqual([
    '1 queued again',
    'nobody is not in quarantine',
  ])
  expect(await jobs.get(first)).toMatchObject({ state: 'QUEUED', crashes: 0 })
  expect(await run('quarantine', 'delete', '--all')).toMatchObject({ code: 0, out: ['1 deleted'] })
  expect(await jobs.get(second)).toBeNull()
})
