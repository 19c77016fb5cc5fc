// A room on a Redis Cluster: the watcher sees every event once and in order while the job's slot moves and its node dies.
import { Jobs } from '@jobs/state'
import { openWatcher, startApp, startCluster, until } from '@jobs/testkit'
import { expect, it } from 'vitest'
import { followThrough } from './harness.ts'
import { ended, runBatch, Tally } from './tally.ts'

it('tells a room every event once, whatever node its job is on', async () => {
  const cluster = await startCluster()
  const jobs = new Jobs({ url: cluster.url, namespace: 'rooms', partitions: 16, commandTimeoutMs: 1_000 })
  try {
    await followThrough(jobs, [
      (prefix) => cluster.moveSlotOf(prefix),
      async (prefix) => (await cluster.holders(prefix)).master.server.kill('SIGKILL'),
    ])
  } finally {
    await jobs.close()
    await cluster.stop()
  }
})

it('counts the jobs of a tag exactly while a slot of theirs moves', async () => {
  const cluster = await startCluster()
  const jobs = new Jobs({ url: cluster.url, namespace: 'tags', partitions: 16, commandTimeoutMs: 1_000 })
  const gateway = await startApp('apps/gateway/src/main.ts', {
    ...{ REDIS_URL: cluster.url, JOBS_NAMESPACE: 'tags', JOBS_PARTITIONS: '16' },
    ...{ GATEWAY_PORT: '0', GATEWAY_OPS_PORT: '0' },
  })
  try {
    const tally = new Tally('batch')
    tally.subscribe(await openWatcher(`ws://127.0.0.1:${gateway.port}/v1/ws`))
    const batch = runBatch(jobs, 'batch', 40)
    await until(() => tally.take() && tally.told.jobs > 10)
    await cluster.moveSlotOf(jobs.transitions.keysFor('batch-1').prefix)
    await batch
    expect(ended(await tally.agrees(jobs))).toBe(40)
  } finally {
    await gateway.kill('SIGKILL')
    await jobs.close()
    await cluster.stop()
  }
})
