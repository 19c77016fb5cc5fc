// A room on a Redis Cluster: the watcher sees every event once and in order while the job's slot moves and its node dies.
import { Jobs } from '@jobs/state'
import { openWatcher, startApp, startCluster, until } from '@jobs/testkit'
import { expect, it } from 'vitest'
import { anyJob, Follower } from './harness.ts'
import { ended, runBatch, Tally } from './tally.ts'

it('tells a room every event once, whatever node its job is on', async () => {
  const cluster = await startCluster()
  const jobs = new Jobs({ url: cluster.url, namespace: 'rooms', partitions: 16, commandTimeoutMs: 1_000 })
  const gateway = await startApp('apps/gateway/src/main.ts', {
    ...{ REDIS_URL: cluster.url, JOBS_NAMESPACE: 'rooms', JOBS_PARTITIONS: '16' },
    ...{ GATEWAY_PORT: '0', GATEWAY_OPS_PORT: '0' },
  })
  try {
    const { transitions } = jobs
    const { id } = await jobs.enqueue(anyJob, {})
    const keys = transitions.keysFor(id)
    const { grants } = await transitions.take(keys, 'any', 1, { worker: 'w', nonce: 'n', leaseMs: 60_000 })
    const [held] = grants
    if (!held) throw new Error('the job was not taken')
    const follower = new Follower(id, '0-0')
    const watcher = await openWatcher(`ws://127.0.0.1:${gateway.port}/v1/ws`)
    follower.subscribe(watcher)
    let op = 0
    const report = async (count: number) => {
      for (const end = op + count; op < end; ) await transitions.progress(held, ++op, `{"done":${op}}`)
      await until(
        () => {
          follower.take()
          return follower.seq === op + 2
        },
        { what: 'every event being told' },
      )
    }
    await report(20)
    await cluster.moveSlotOf(keys.prefix)
    await report(20)
    const { master } = await cluster.holders(keys.prefix)
    await master.server.kill('SIGKILL')
    await report(20)
    await transitions.complete(held, '"end"')
    await watcher.next('complete')
    follower.take()
    expect(follower.told).toEqual(Array.from({ length: op + 3 }, (_, i) => i + 1))
    expect(follower.resets).toEqual([])
    // Probes too go where the slots are now.
    const ready = async () => (await fetch(`http://127.0.0.1:${gateway.opsPort}/readyz`)).status
    await until(async () => (await ready()) === 200, { what: '/readyz green' })
  } finally {
    await gateway.kill('SIGKILL')
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
