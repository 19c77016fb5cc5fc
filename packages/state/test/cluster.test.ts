// Jobs on a Redis Cluster: while slots of busy partitions move and masters die, no job is lost, doubled or stuck.
import { defineJob, fold, type JobEvent, Jobs, type Snapshot, Worker } from '@jobs/state'
import { startCluster, type TestCluster, until } from '@jobs/testkit'
import { afterAll, beforeAll, expect, it } from 'vitest'

let cluster: TestCluster
beforeAll(async () => {
  cluster = await startCluster()
})
afterAll(() => cluster.stop())

it('smoke', async () => {
  const trouble: string[] = []
  const jobs = new Jobs({ url: cluster.url, namespace: 's', partitions: 16, onTrouble: (e) => trouble.push(e.message) })
  const definition = defineJob({ name: 'smoke' })
  const worker = new Worker(jobs, definition, async () => 7, { concurrency: 4 })
  worker.on('error', (e) => trouble.push(`w ${e.message}`))
  await worker.start()
  const t = performance.now()
  const ids = await Promise.all(Array.from({ length: 100 }, (_, i) => jobs.enqueue(definition, { i }).then(({ id }) => id)))
  const ends = await Promise.all(ids.map((id) => jobs.wait(id)))
  expect(ends.every(({ state }) => state === 'COMPLETED')).toBe(true)
  console.log('100 jobs', performance.now() - t)
  const lat = []
  for (let i = 0; i < 50; i++) {
    const t0 = performance.now()
    const { id } = await jobs.enqueue(definition, { i })
    await jobs.wait(id)
    lat.push(performance.now() - t0)
  }
  lat.sort((a, b) => a - b)
  console.log('latency', lat[25], lat[45], lat[49], trouble)
  console.log(await jobs.counts(), await jobs.queues(), (await jobs.list({ limit: 5 })).jobs.length, await jobs.workers())
  await worker.stop()
  await jobs.close()
})
