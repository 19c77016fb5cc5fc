// Redis away for a minute, twice at the same time: killed and started again, and frozen. Jobs that ran, ended and waited
// meanwhile each have one result, and nobody had to help.
import { until } from '@jobs/testkit'
import { afterAll, expect, it } from 'vitest'
import { type Harness, startHarness } from './harness.ts'
import { sturdyJob } from './sturdy-worker.ts'

const OUTAGE_MS = 60_000
const JOBS = 50
const CONCURRENCY = 20

const harnesses: Harness[] = []
afterAll(() => Promise.all(harnesses.map((h) => h.stop())))

/** Bytes of live objects, after a collection. */
const heapOf = async (worker: Awaited<ReturnType<Harness['process']>>) => {
  const told = worker.stdout.length
  worker.write('heap\n')
  await worker.line((line) => worker.stdout.indexOf(line, told) >= 0 && line.startsWith('heap'))
  return Number(worker.stdout.findLast((line) => line.startsWith('heap'))?.split(' ')[1])
}

it.concurrent.each([
  ['down', 'SIGKILL'],
  ['frozen', 'SIGSTOP'],
] as const)(
  'no result is lost or doubled while Redis is %s for a minute',
  async (_, signal) => {
    const h = await startHarness({ appendonly: true })
    harnesses.push(h)
    const job = sturdyJob('sturdy')
    const [, worker] = await Promise.all([
      h.reaper(),
      h.process(
        'apps/reaper/test/sturdy-worker.ts',
        { NAME: 'sturdy', OPTIONS: JSON.stringify({ concurrency: CONCURRENCY }) },
        ['--expose-gc'],
      ),
    ])
    // The first twenty run when Redis goes: half of them end while it is away, half when it is back. The rest wait.
    const ids: string[] = []
    for (let i = 0; i < JOBS; i++) {
      const ms = i >= CONCURRENCY ? 200 : i % 2 ? 10_000 + i * 2_000 : OUTAGE_MS + 5_000
      ids.push((await h.jobs.enqueue(job, { ms, block: false })).id)
    }
    await Promise.all(ids.slice(0, CONCURRENCY).map((id) => worker.line((line) => line === `ran ${id}`)))
    await h.redis.kill(signal)
    // The outage itself is the subject.
    await new Promise((resolve) => setTimeout(resolve, OUTAGE_MS / 3))
    const before = await heapOf(worker)
    await new Promise((resolve) => setTimeout(resolve, (OUTAGE_MS * 2) / 3))
    const after = await heapOf(worker)
    if (signal === 'SIGKILL') await h.redis.restart()
    else await h.redis.thaw()

    const ended = await Promise.all(ids.map((id) => h.jobs.wait(id)))
    expect(ended.map(({ state, attempt, crashes }) => ({ state, attempt, crashes }))).toEqual(
      ids.map(() => ({ state: 'COMPLETED', attempt: 1, crashes: 0 })),
    )
    for (const id of ids) {
      expect(await h.jobs.attempts(id)).toMatchObject([{ outcome: 'completed' }])
      expect(worker.stdout.filter((line) => line === `ran ${id}`)).toHaveLength(1)
    }
    expect(worker.stdout.filter((line) => /^(unhandled|uncaught|lost)/.test(line))).toEqual([])
    // What may wait for Redis is full by the first look; hundreds of thousands of reports later it is no more.
    expect(after - before).toBeLessThan(10_000_000)
    // And it is well: it takes the next job, and ends in good order.
    const { id } = await h.jobs.enqueue(job, { ms: 0, block: false })
    expect(await h.jobs.wait(id)).toMatchObject({ state: 'COMPLETED' })
    await worker.kill('SIGTERM')
    expect(await worker.exited).toEqual({ code: 0, signal: null })
  },
  120_000,
)

it.concurrent('a Redis that is killed and back within a second takes no job from a worker with a short lease', async () => {
  const h = await startHarness({ appendonly: true })
  harnesses.push(h)
  const job = sturdyJob('tight')
  const worker = { NAME: 'tight', OPTIONS: JSON.stringify({ concurrency: 3, leaseMs: 600 }) }
  await Promise.all([
    h.reaper({ REAPER_INTERVAL_MS: '100' }),
    h.process('apps/reaper/test/sturdy-worker.ts', worker),
  ])
  const ids: string[] = []
  for (let i = 0; i < 3; i++) ids.push((await h.jobs.enqueue(job, { ms: OUTAGE_MS / 3, block: false })).id)
  const beats = ids.map((id) => h.jobs.transitions.keysFor(id).heartbeat(id))
  const allBeat = () => until(async () => (await h.redis.client().exists(...beats)) === ids.length)
  for (const awayMs of [0, 100, 200, 300, 400, 500, 700]) {
    await allBeat()
    await h.redis.kill('SIGKILL')
    await new Promise((resolve) => setTimeout(resolve, awayMs))
    await h.redis.restart()
  }
  await allBeat()
  const ended = await Promise.all(ids.map((id) => h.jobs.wait(id)))
  expect(ended.map(({ state, attempt, crashes }) => ({ state, attempt, crashes }))).toEqual(
    ids.map(() => ({ state: 'COMPLETED', attempt: 1, crashes: 0 })),
  )
}, 120_000)
