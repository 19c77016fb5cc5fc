// Jobs on a Redis Cluster: while slots of busy partitions move and masters die, no job is lost, doubled or stuck.
import { Jobs, partitionOf, reaperOf, type StateError, Subscriber } from '@jobs/state'
import { type ClusterNode, startCluster, type TestCluster, until } from '@jobs/testkit'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { anyJob } from './harness.ts'
import { type Load, startLoad } from './load.ts'

let cluster: TestCluster
let load: Load | undefined
beforeAll(async () => {
  cluster = await startCluster()
})
const open: { close(): unknown }[] = []
const connect = (namespace: string, more: { deadlineMs?: number; commandTimeoutMs?: number } = {}) => {
  const jobs = new Jobs({ url: cluster.url, namespace, partitions: 16, ...more })
  open.push(jobs)
  return jobs
}
afterEach(async () => {
  await load?.stop()
  load = undefined
  await Promise.all(open.splice(0).map((each) => each.close()))
})
afterAll(() => cluster.stop())

it('ends every job once while the slots of busy partitions move', async () => {
  load = await startLoad(cluster.url, { partitions: 16 })
  await load.progress(200)
  for (const keys of load.keys.slice(0, 6)) {
    await cluster.moveSlotOf(keys.prefix)
    await load.progress(50)
  }
  expect(await load.check()).toMatchObject({ lost: 0, resets: 0, rewritten: 0, told: [] })
})

it('ends every job once while a master is killed and comes back', async () => {
  load = await startLoad(cluster.url, { partitions: 16 })
  await load.progress(200)
  const { master } = await cluster.holders(load.keys[0]?.prefix ?? '')
  await master.server.kill('SIGKILL')
  await load.progress(60)
  await master.server.restart()
  await cluster.settled()
  await load.progress(100)
  await load.check()
})

/** An id whose partition is held by the node, and one whose is not. */
const idsOnAndOff = async (jobs: Jobs, node: ClusterNode) => {
  const ids: { on?: string; off?: string } = {}
  for (let i = 0; !(ids.on && ids.off); i++) {
    const id = `probe${i}`
    const { master } = await cluster.holders(jobs.transitions.keysFor(id).prefix)
    if (master === node) ids.on ??= id
    else ids.off ??= id
  }
  return ids as { on: string; off: string }
}

describe('a slot that is moved key by key', () => {
  it('has no move made in it until it has arrived, and loses nothing', async () => {
    const jobs = connect('half')
    const hasty = connect('half', { deadlineMs: 300 })
    const ids = Array.from({ length: 20 }, (_, i) => `job${i}`).filter(
      (id, _, all) => partitionOf(id, 16) === partitionOf(all[0] as string, 16),
    )
    for (const id of ids) await jobs.enqueue(anyJob, { id }, { id })
    const [first = ''] = ids
    const before = await Promise.all(ids.map((id) => jobs.get(id)))
    const patient: Promise<unknown>[] = []
    await cluster.moveSlotOf(jobs.transitions.keysFor(first).prefix, async () => {
      // Each of them would find some of the keys it needs on neither node.
      for (const id of [...ids, 'absent0'].filter((each) => partitionOf(each, 16) === partitionOf(first, 16)))
        await expect(hasty.enqueue(anyJob, { other: 1 }, { id })).rejects.toMatchObject({
          message: expect.stringMatching(/refused a command: (ASK|TRYAGAIN|MOVED)/),
        })
      patient.push(jobs.cancel(first), jobs.get(first))
    })
    const [cancelled, read] = await Promise.all(patient)
    expect(cancelled).toMatchObject({ ok: true, state: 'CANCELLED', repeat: false })
    expect(read).toMatchObject({ id: first })
    const after = await Promise.all(ids.map((id) => jobs.get(id)))
    expect(after.slice(1)).toEqual(before.slice(1))
  })
})

describe('a subscriber', () => {
  it('hears every channel again after its slot has moved and after its node has died', async () => {
    const jobs = connect('heard')
    const channels = jobs.transitions.keys.map(({ events }) => events('job'))
    const heard = new Set<string>()
    let recovered = 0
    const subscriber = new Subscriber(
      { url: cluster.url },
      { onMessage: (channel) => heard.add(channel), onRecovered: () => recovered++ },
    )
    open.push(subscriber)
    await Promise.all(channels.map((channel) => subscriber.subscribe(channel)))
    // What is not heard is told of as a gap.
    const hearsAll = async () => {
      while (heard.size < channels.length) {
        const told = recovered
        heard.clear()
        for (const channel of channels) await jobs.link.call('SPUBLISH', channel, 'hello')
        await until(() => heard.size === channels.length || recovered > told, {
          what: 'every channel being heard',
        })
      }
      heard.clear()
    }
    await hearsAll()

    const [moving = ''] = channels
    await cluster.moveSlotOf(moving)
    await until(() => recovered > 0, { what: 'the gap being told' })
    await hearsAll()

    const told = recovered
    const { master } = await cluster.holders(moving)
    await master.server.kill('SIGKILL')
    await until(() => recovered > told && subscriber.alive, { what: 'the gap being told' })
    await hearsAll()
    await master.server.restart()
    await cluster.settled()
  })
})

describe('a node that falls silent', () => {
  it('keeps nobody from the partitions of the others, and no call past its deadline', async () => {
    const jobs = connect('silent', { deadlineMs: 6_000, commandTimeoutMs: 500 })
    await jobs.enqueue(anyJob, {}, { id: 'warm' })
    const { master } = await cluster.holders(jobs.transitions.keysFor('warm').prefix)
    const { on, off } = await idsOnAndOff(jobs, master)
    await jobs.enqueue(anyJob, {}, { id: off })
    await master.server.kill('SIGSTOP')
    const began = performance.now()
    const stuck = jobs.enqueue(anyJob, {}, { id: on }).then(
      () => 'accepted',
      (error: StateError) => error.code,
    )
    let slowestMs = 0
    let over = false
    void stuck.then(() => {
      over = true
    })
    while (!over) {
      const sent = performance.now()
      await jobs.get(off)
      slowestMs = Math.max(slowestMs, performance.now() - sent)
    }
    expect(slowestMs).toBeLessThan(500)
    expect(await stuck).toBe('accepted')
    expect(performance.now() - began).toBeLessThan(6_500)
    await master.server.kill('SIGCONT')
    await cluster.settled()
    expect(await jobs.get(on)).toMatchObject({ state: 'QUEUED' })
  })

  it('keeps no reaper from the partitions of the others, and has its own swept when it answers again', async () => {
    const jobs = connect('swept', { deadlineMs: 2_000, commandTimeoutMs: 500 })
    await jobs.enqueue(anyJob, {}, { id: 'warm' })
    const { master, replicas } = await cluster.holders(jobs.transitions.keysFor('warm').prefix)
    const { on, off } = await idsOnAndOff(jobs, master)
    const reaped = new Set<string>()
    let failed = 0
    const reaper = reaperOf(jobs, { intervalMs: 100, onTrouble: () => failed++ })
    const sweeps = (async () => {
      while (!reaped.has(on) || !reaped.has(off)) {
        const report = await reaper.sweep()
        for (const { id, outcome } of report.reaped) if (outcome === 'QUEUED') reaped.add(id)
        await new Promise((resolve) => setTimeout(resolve, 100))
      }
    })()
    const nobodys = async (id: string) => {
      await jobs.enqueue(anyJob, {}, { id })
      const by = { worker: 'dead', nonce: 'dead', leaseMs: 1_000 }
      await jobs.transitions.take(jobs.transitions.keysFor(id), anyJob.name, 10, by)
    }
    await nobodys(on)
    // Its replica too: nobody takes over.
    for (const { server } of [master, ...replicas]) await server.kill('SIGSTOP')
    await nobodys(off)
    await until(() => reaped.has(off), { what: 'the job of the dead worker being recovered' })
    expect(reaped.has(on)).toBe(false)
    await until(() => failed > 0, { what: 'the silent partition being told of' })
    await until(() => reaper.unswept(1_000).includes(partitionOf(on, 16)))
    expect(reaper.unswept(1_000)).not.toContain(partitionOf(off, 16))
    for (const { server } of [master, ...replicas]) await server.kill('SIGCONT')
    await sweeps
    expect(reaped).toContain(on)
    expect(reaper.unswept(1_000)).not.toContain(partitionOf(on, 16))
    await cluster.settled()
  })
})
