// A room on a Redis Cluster: the watcher sees every event once and in order while the job's slot moves and its node dies.
import { Jobs } from '@jobs/state'
import { openWatcher, startApp, startCluster, type TestApp, type TestCluster, until } from '@jobs/testkit'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { anyJob, followThrough } from './harness.ts'
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

describe('with all of its nodes', () => {
  let cluster: TestCluster
  let jobs: Jobs
  let gateway: TestApp
  beforeAll(async () => {
    cluster = await startCluster()
    jobs = new Jobs({ url: cluster.url, namespace: 'tags', partitions: 16, commandTimeoutMs: 1_000 })
    gateway = await startApp('apps/gateway/src/main.ts', {
      ...{ REDIS_URL: cluster.url, JOBS_NAMESPACE: 'tags', JOBS_PARTITIONS: '16' },
      ...{ GATEWAY_PORT: '0', GATEWAY_OPS_PORT: '0' },
    })
  })
  afterAll(async () => {
    await gateway.kill('SIGKILL')
    await jobs.close()
    await cluster.stop()
  })
  const watch = () => openWatcher(`ws://127.0.0.1:${gateway.port}/v1/ws`)

  it('counts the jobs of a tag exactly while a slot of theirs moves', async () => {
    const tally = new Tally('batch')
    tally.subscribe(await watch())
    const batch = runBatch(jobs, 'batch', 40)
    await until(() => tally.take() && tally.told.jobs > 10)
    await cluster.moveSlotOf(jobs.transitions.keysFor('batch-1').prefix)
    await batch
    expect(ended(await tally.agrees(jobs))).toBe(40)
  })

  it('tells the jobs of the other nodes while one is away, and its own once it is back', async () => {
    const holders = (id: string) => cluster.holders(jobs.transitions.keysFor(id).prefix)
    const { master, replicas } = await holders('here')
    let other = ''
    for (let i = 0; other === ''; i++) if ((await holders(`other${i}`)).master !== master) other = `other${i}`
    const ids = ['here', other]
    for (const id of ids) await jobs.enqueue(anyJob, {}, { id })
    const watcher = await watch()
    watcher.send({ type: 'subscribe', jobs: ids })
    for (const _ of ids) await watcher.next('live')
    // Nobody takes its place.
    for (const { server } of [...replicas, master]) await server.kill('SIGKILL')
    expect(await watcher.next('redis')).toMatchObject({ available: false })
    await jobs.cancel(other)
    expect(await watcher.next('complete')).toMatchObject({ job: other })
    expect((await fetch(`http://127.0.0.1:${gateway.opsPort}/readyz`)).status).toBe(200)
    await master.server.restart()
    await until(() => jobs.cancel('here').catch(() => undefined))
    // Whichever is told first.
    const told = watcher.messages
    const isSaid = () => told.findLast(({ type }) => type === 'redis')?.available === true
    await until(() => isSaid() && told.some(({ type, job }) => type === 'complete' && job === 'here'))
    watcher.terminate()
  })
})
