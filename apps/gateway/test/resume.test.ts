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
    const enough = Math.floor(Math.random() * 6)
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
  const job = runJob(id, { pauseMs: 5 })
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
