// "412 of 500 done" from one subscription: counts, then each change of state, exact through dropped clients, a killed
// gateway, cut connections and a Redis that restarts, with and without its data.
import { noCounts, type StateCounts } from '@jobs/state'
import { type CuttingProxy, startProxy, until } from '@jobs/testkit'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { anyJob, type Harness, startHarness } from './harness.ts'
import { ended, runBatch, Tally } from './tally.ts'

/** Another for each test: rooms stay open for a while. */
let tag = ''
let n = 0
beforeEach(() => {
  tag = `batch${++n}`
})

const counted = (some: Partial<StateCounts>): StateCounts => ({ ...noCounts(), ...some })

describe('over 16 partitions', () => {
  let h: Harness
  let proxy: CuttingProxy
  beforeAll(async () => {
    h = await startHarness({
      partitions: 16,
      redisUrl: async ({ port }) => {
        proxy = await startProxy(port)
        return `redis://127.0.0.1:${proxy.port}`
      },
    })
  })
  afterAll(async () => {
    await h.stop()
    await proxy.close()
  })

  it('a watcher is told counts, then each change of state of a job that carries it, and nothing else', async () => {
    const first = (await h.jobs.enqueue(anyJob, 1, { tags: [tag] })).id
    const watcher = await h.watch()
    watcher.send({ type: 'subscribe', tag, id: 't1' })
    const counts = await watcher.next('counts')
    expect(counts).toMatchObject({ tag, id: 't1', counts: counted({ QUEUED: 1 }) })
    await h.enqueue()
    const held = await h.claim(first)
    await h.jobs.transitions.progress(held, 1, '1')
    await h.jobs.transitions.complete(held, '1')
    const second = (await h.jobs.enqueue(anyJob, 1, { tags: ['other', tag], delayMs: 60_000 })).id
    await watcher.next((message) => message.job === second)
    expect(watcher.messages.filter(({ type }) => type === 'job')).toEqual([
      { type: 'job', tag, job: first, from: 'QUEUED', state: 'PROCESSING', seq: 2 },
      { type: 'job', tag, job: first, from: 'PROCESSING', state: 'COMPLETED', seq: 4 },
      { type: 'job', tag, job: second, from: null, state: 'SCHEDULED', seq: 1 },
    ])
    // A job that is removed changes no state: counts tell.
    await h.jobs.remove(first)
    expect((await watcher.next('counts')).counts).toEqual(counted({ SCHEDULED: 1 }))

    watcher.send({ type: 'subscribe', tag, id: 't2' })
    expect(await watcher.next('error')).toMatchObject({ code: 'already_subscribed', tag, id: 't2' })
    watcher.send({ type: 'unsubscribe', tag, id: 't3' })
    expect(await watcher.next('unsubscribed')).toMatchObject({ tag, code: 'requested', id: 't3' })
    watcher.send({ type: 'unsubscribe', tag, id: 't4' })
    expect(await watcher.next('error')).toMatchObject({ code: 'not_found', tag, id: 't4' })
    await h.jobs.cancel(second)
    watcher.send({ type: 'ping' })
    await watcher.next('pong')
    expect(watcher.messages.at(-1)?.type).toBe('pong')
    watcher.terminate()
  })

  it('a watcher may come before any job, and shares the limit of subscriptions with jobs', async () => {
    const watcher = await h.watch()
    const items = await h.jobs.enqueueMany(
      anyJob,
      Array.from({ length: 100 }, (_, payload) => ({ payload })),
    )
    watcher.send({ type: 'subscribe', jobs: items.flatMap((item) => (item.ok ? [item.id] : [])) })
    for (let i = 0; i < 27; i++) watcher.send({ type: 'subscribe', tag: `t${i}` })
    watcher.send({ type: 'subscribe', tag, id: 'mine' })
    expect(await watcher.next(({ id }) => id === 'mine')).toMatchObject({ counts: noCounts() })
    watcher.send({ type: 'subscribe', job: 'any', id: 'more' })
    expect(await watcher.next('error')).toMatchObject({ code: 'limit_exceeded', id: 'more' })
    await h.jobs.enqueue(anyJob, 1, { tags: [tag] })
    expect(await watcher.next('job')).toMatchObject({ tag, state: 'QUEUED' })
    watcher.terminate()
  })

  it('counts are exact for clients that come and go during a batch, over 16 partitions', async () => {
    const batch = runBatch(h.jobs, tag, 120)
    const stays = new Tally(tag)
    stays.subscribe(await h.watch())
    const drops = new Tally(tag)
    let running = true
    void batch.finally(() => {
      running = false
    })
    for (let drop = 0; running; drop++) {
      const watcher = await h.watch()
      drops.subscribe(watcher)
      const enough = 1 + ((drop * 5) % 12)
      await until(() => watcher.messages.length >= enough || !running)
      drops.take()
      watcher.terminate()
    }
    await batch
    drops.subscribe(await h.watch())
    expect(ended(await stays.agrees(h.jobs))).toBe(120)
    await drops.agrees(h.jobs)
    // Nothing broke, so each change was told by itself.
    expect(stays.told.counts).toBe(1)
    expect(stays.told.jobs).toBeGreaterThan(200)
  })

  it('counts are exact through a gateway that is killed', async () => {
    const batch = runBatch(h.jobs, tag, 150, 2)
    const tally = new Tally(tag)
    tally.subscribe(await h.watch())
    await until(() => tally.take() && tally.told.jobs > 20)
    await h.gateway.kill('SIGKILL')
    await h.restartGateway()
    tally.subscribe(await h.watch())
    await batch
    expect(ended(await tally.agrees(h.jobs))).toBe(150)
  })

  it('counts are exact through connections to Redis that are cut again and again: counts come anew', async () => {
    const batch = runBatch(h.jobs, tag, 250, 2)
    const tally = new Tally(tag)
    tally.subscribe(await h.watch())
    for (let cut = 0; cut < 5; cut++) {
      const { counts, jobs } = { ...tally.told }
      await until(() => tally.take() && tally.told.counts > counts - (cut ? 0 : 1) && tally.told.jobs > jobs)
      proxy.cutAll()
    }
    await batch
    expect(ended(await tally.agrees(h.jobs))).toBe(250)
    expect(tally.told.counts).toBeGreaterThan(1)
  })
})

it.each([
  ['with its data', true],
  ['without', false],
])('counts are exact through a Redis that is killed and comes back %s', async (_, appendonly) => {
  const h = await startHarness({ appendonly })
  const tally = new Tally(tag)
  tally.subscribe(await h.watch())
  await runBatch(h.jobs, tag, 30)
  await tally.agrees(h.jobs)
  const before = tally.told.counts
  await h.redis.kill('SIGKILL')
  await h.redis.restart()
  await until(() => tally.take() && tally.told.counts > before, { what: 'counts anew' })
  expect(ended(await tally.agrees(h.jobs))).toBe(appendonly ? 30 : 0)
  // Goes on where it is now.
  await until(() => h.jobs.enqueue(anyJob, 1, { id: 'later', tags: [tag] }).catch(() => null))
  expect(await tally.agrees(h.jobs)).toMatchObject({ QUEUED: 1 })
  await h.stop()
})
