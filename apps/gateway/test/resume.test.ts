// Nothing lost, nothing doubled: through dropped clients, a killed gateway, cut connections, a restarted Redis.
import { type CuttingProxy, startProxy, type TestRedis, until } from '@jobs/testkit'
import { afterEach, expect, it } from 'vitest'
import { Follower, type Harness, startHarness } from './harness.ts'

let h: Harness
let proxy: CuttingProxy | undefined
afterEach(async () => {
  await h.stop()
  await proxy?.close()
  proxy = undefined
})

/** Reports progress until told to end; resolves with the number of events when the job has ended. */
const runJob = (id: string, report: { pauseMs: number }) => {
  let ending = false
  const done = (async () => {
    const held = await h.claim(id)
    let op = 0
    while (!ending) {
      await h.jobs.transitions.progress(held, ++op, `{"done":${op}}`)
      await new Promise((resolve) => setTimeout(resolve, report.pauseMs))
    }
    await h.jobs.transitions.complete(held, '"end"')
    return op + 3
  })()
  return {
    end: () => {
      ending = true
      return done
    },
  }
}

const behindProxy = async ({ port }: TestRedis): Promise<string> => {
  proxy = await startProxy(port)
  return `redis://127.0.0.1:${proxy.port}`
}

const all = (count: number) => Array.from({ length: count }, (_, i) => i + 1)

it('a client that drops and resumes 200 times during a job sees every seq once, in order', async () => {
  h = await startHarness()
  const id = await h.enqueue()
  const job = runJob(id, { pauseMs: 2 })
  const follower = new Follower(id, '0-0')
  for (let drop = 0; drop < 200; drop++) {
    const watcher = await h.watch()
    follower.subscribe(watcher)
    // Some are cut before any answer, some while events flow.
    const enough = drop % 6
    await until(() => watcher.messages.length >= enough, { what: `${enough} messages` })
    watcher.terminate()
    follower.take()
  }
  const count = await job.end()
  const last = await h.watch()
  follower.subscribe(last)
  await last.next('complete')
  follower.take()
  expect(follower.resets).toEqual([])
  expect(follower.told).toEqual(all(count))
})

it('a killed gateway, started again, goes on where each client was', async () => {
  h = await startHarness()
  const id = await h.enqueue()
  // A slow machine starts a gateway in some seconds: what is missed meanwhile stays below what is replayed.
  const job = runJob(id, { pauseMs: 25 })
  const follower = new Follower(id, '0-0')
  for (let round = 0; round < 3; round++) {
    const watcher = await h.watch()
    follower.subscribe(watcher)
    await watcher.next((m) => m.type === 'events' && m.to > follower.seq + 10)
    await h.gateway.kill('SIGKILL')
    await watcher.closed
    follower.take()
    await h.restartGateway()
  }
  const count = await job.end()
  const last = await h.watch()
  follower.subscribe(last)
  await last.next('complete')
  follower.take()
  expect(follower.resets).toEqual([])
  expect(follower.told).toEqual(all(count))
})

it('a watcher on an open socket misses nothing when the connections to Redis are cut', async () => {
  h = await startHarness({ redisUrl: behindProxy })
  const id = await h.enqueue()
  const job = runJob(id, { pauseMs: 3 })
  const watcher = await h.watch()
  const follower = new Follower(id, '0-0')
  follower.subscribe(watcher)
  for (let cut = 0; cut < 5; cut++) {
    follower.take()
    const from = follower.seq
    await until(
      () => {
        follower.take()
        return follower.seq > from + 10
      },
      { what: 'ten more events' },
    )
    const accepted = proxy?.accepted ?? 0
    proxy?.cutAll()
    await until(() => (proxy?.accepted ?? 0) >= accepted + 2, { what: 'both connections anew' })
  }
  const count = await job.end()
  await watcher.next('complete')
  follower.take()
  expect(follower.resets).toEqual([])
  expect(follower.told).toEqual(all(count))
})

it('a half-open connection to Redis is noticed and replaced', async () => {
  h = await startHarness({ redisUrl: behindProxy })
  const id = await h.enqueue()
  const watcher = await h.watch()
  const follower = new Follower(id, '0-0')
  follower.subscribe(watcher)
  await watcher.next('live')
  proxy?.stall(true)
  const held = await h.claim(id)
  const ready = async () => (await fetch(`http://127.0.0.1:${h.gateway.opsPort}/readyz`)).status
  await until(async () => (await ready()) === 503, { what: '/readyz red' })
  proxy?.stall(false)
  proxy?.cutAll()
  await h.jobs.transitions.complete(held, '1')
  await watcher.next('complete')
  follower.take()
  expect(follower.told).toEqual([1, 2, 3])
  await until(async () => (await ready()) === 200, { what: '/readyz green' })
})

it('Redis down: sockets stay, a new subscription is unavailable, /readyz is red; all is well when it is back', async () => {
  h = await startHarness({ appendonly: true })
  const id = await h.enqueue()
  const watcher = await h.watch()
  const follower = new Follower(id, '0-0')
  follower.subscribe(watcher)
  await watcher.next('live')
  await h.redis.kill('SIGKILL')
  const ready = async () => (await fetch(`http://127.0.0.1:${h.gateway.opsPort}/readyz`)).status
  await until(async () => (await ready()) === 503, { what: '/readyz red' })
  expect((await fetch(`http://127.0.0.1:${h.gateway.opsPort}/livez`)).status).toBe(200)
  watcher.send({ type: 'subscribe', job: 'other', id: 'o' })
  expect(await watcher.next('error')).toMatchObject({ code: 'unavailable', retryable: true, id: 'o' })
  await h.redis.restart()
  await h.jobs.transitions.complete(await h.claim(id), '1')
  await watcher.next('complete')
  expect(
    watcher.messages
      .filter((m) => m.type === 'events')
      .flatMap((m) => m.items.map((item: { seq: number }) => item.seq)),
  ).toEqual([1, 2, 3])
  await until(async () => (await ready()) === 200, { what: '/readyz green' })
})

it('a Redis that comes back without its data ends the subscription of a job that is gone', async () => {
  h = await startHarness()
  const id = await h.enqueue()
  const watcher = await h.watch()
  watcher.send({ type: 'subscribe', job: id })
  await watcher.next('live')
  await h.redis.kill('SIGKILL')
  await h.redis.restart()
  expect(await watcher.next('unsubscribed')).toMatchObject({ job: id, code: 'not_found' })
  watcher.terminate()
})

it('a Redis that comes back with an older history resets its watchers', async () => {
  h = await startHarness()
  const id = await h.enqueue()
  const held = await h.claim(id)
  await h.redis.client().save()
  for (let op = 1; op <= 5; op++) await h.jobs.transitions.progress(held, op, `${op}`)
  const watcher = await h.watch()
  watcher.send({ type: 'subscribe', job: id })
  expect(await watcher.next('snapshot')).toMatchObject({ seq: 7, progress: 5 })
  await watcher.next('live')
  await h.redis.kill('SIGKILL')
  await h.redis.restart()
  expect(await watcher.next('reset')).toMatchObject({ job: id, reason: 'redis_recovered' })
  expect(await watcher.next()).toMatchObject({ type: 'snapshot', seq: 2, progress: null })
  expect(await watcher.next()).toMatchObject({ type: 'live' })
  await h.jobs.transitions.complete(held, '1')
  expect(await watcher.next('events')).toMatchObject({ from: 3, to: 3 })
  await watcher.next('complete')
  watcher.terminate()
})

it('a thousand rooms are whole again after the connections to Redis were cut', async () => {
  h = await startHarness({ redisUrl: behindProxy })
  const ids: string[] = []
  for (let i = 0; i < 10; i++)
    ids.push(...(await Promise.all(Array.from({ length: 100 }, () => h.enqueue()))))
  const watchers = await Promise.all(Array.from({ length: 10 }, () => h.watch()))
  const count = (type: string) => watchers.flatMap((w) => w.messages).filter((m) => m.type === type).length
  for (const [i, watcher] of watchers.entries())
    watcher.send({ type: 'subscribe', jobs: ids.slice(i * 100, (i + 1) * 100) })
  await until(() => count('live') === 1_000, { what: 'a thousand subscriptions' })
  proxy?.refuse(true)
  proxy?.cutAll()
  // Nobody hears of these.
  for (let i = 0; i < 10; i++)
    await Promise.all(ids.slice(i * 100, (i + 1) * 100).map((id) => h.jobs.cancel(id)))
  expect(count('complete')).toBe(0)
  proxy?.refuse(false)
  await until(() => count('complete') === 1_000, { what: 'a thousand ends' })
  expect(count('reset')).toBe(0)
  expect(watchers.flatMap((w) => w.messages).filter((m) => m.type === 'events' && m.from !== 2)).toEqual([])
  for (const watcher of watchers) watcher.terminate()
})
