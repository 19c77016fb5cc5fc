// Idle workers of a cluster are told of a job by a message to all of them: few ask for it, and it does not wait.
import { Jobs, Worker } from '@jobs/state'
import { startCluster, type TestCluster, until } from '@jobs/testkit'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { anyJob } from './harness.ts'

const WORKERS = 20
const JOBS = 60

let cluster: TestCluster
beforeAll(async () => {
  cluster = await startCluster()
})
afterAll(() => cluster.stop())

it('a job that comes to many idle workers is not asked for by all of them, and runs at once', async () => {
  let asked = 0
  const running = new Map<string, { asked: number; at: number }>()
  const connect = () => new Jobs({ url: cluster.url, namespace: 'idle', partitions: 2 })
  const backend = connect()
  const processes = await Promise.all(
    Array.from({ length: WORKERS }, async () => {
      const jobs = connect()
      const { take } = jobs.transitions
      jobs.transitions.take = (...args) => {
        asked++
        return take(...args)
      }
      const worker = new Worker(jobs, anyJob, () => 1)
      worker.on('active', ({ id }) => running.set(id, { asked, at: performance.now() }))
      await worker.start()
      return { jobs, worker }
    }),
  )
  const told: { asked: number; ms: number }[] = []
  for (let i = 0; i < JOBS; i++) {
    const before = asked
    const began = performance.now()
    const { id } = await backend.enqueue(anyJob, i)
    const start = await until(() => running.get(id))
    told.push({ asked: start.asked - before, ms: start.at - began })
    await backend.wait(id)
  }
  // The first ones teach them how many they are.
  const known = told.slice(JOBS / 3)
  const mean = (numbers: number[]) => numbers.reduce((sum, n) => sum + n, 0) / numbers.length
  const figures = {
    asked: mean(known.map((each) => each.asked)),
    latestMs: Math.max(...known.map(({ ms }) => ms)),
  }
  console.log(`of ${WORKERS} idle workers, before the job runs: ${JSON.stringify(figures)}; all ${asked}`)
  expect(figures.asked).toBeLessThan(WORKERS / 2)
  // Not by the look around that every idle worker takes after five seconds.
  expect(figures.latestMs).toBeLessThan(4_000)
  await Promise.all(processes.map(({ worker }) => worker.stop()))
  await Promise.all([backend, ...processes.map(({ jobs }) => jobs)].map((jobs) => jobs.close()))
})
