// Redis in trouble, seen through the gateway: it notices, says so, and tells everything once Redis is well again.
import {
  type CuttingProxy,
  openWatcher,
  startProxy,
  type TestRedis,
  until,
  type Watcher,
} from '@jobs/testkit'
import { afterEach, expect, it } from 'vitest'
import { Follower, type Harness, type Held, startHarness } from './harness.ts'
import { JWT, sign } from './tokens.ts'

let h: Harness
let proxy: CuttingProxy | undefined
afterEach(async () => {
  await h.stop()
  await proxy?.close()
  proxy = undefined
})

const behindProxy = async ({ port }: TestRedis): Promise<string> => {
  proxy = await startProxy(port)
  return `redis://127.0.0.1:${proxy.port}`
}

const red = () => until(async () => !(await h.ready()), { what: '/readyz red' })
const green = () => until(() => h.ready(), { what: '/readyz green' })

const followed = async (
  open = () => h.watch(),
): Promise<{ held: Held; watcher: Watcher; follower: Follower }> => {
  const held = await h.claim(await h.enqueue())
  const watcher = await open()
  const follower = new Follower(held.id, '0-0')
  follower.subscribe(watcher)
  await watcher.next('live')
  return { held, watcher, follower }
}

/** The end is told, and everything before it once and in order. */
const seesTheEnd = async ({ held, watcher, follower }: Awaited<ReturnType<typeof followed>>) => {
  await h.jobs.transitions.complete(held, '1')
  await watcher.next('complete')
  follower.take()
  const { seq = 0 } = (await h.jobs.get(held.id)) ?? {}
  expect(follower.told).toEqual(Array.from({ length: seq }, (_, i) => i + 1))
  expect(follower.resets).toEqual([])
}

it('notices a subscription that answers and hears nothing, and makes another', async () => {
  h = await startHarness({ redisUrl: behindProxy })
  const one = await followed()
  const accepted = proxy?.accepted ?? 0
  proxy?.swallow((chunk) => chunk.includes('message'))
  await h.jobs.transitions.progress(one.held, 1, '1')
  await red()
  await until(() => (proxy?.accepted ?? 0) > accepted, { what: 'another connection' })
  proxy?.swallow()
  await green()
  await one.watcher.next((m) => m.type === 'events' && m.to === 3)
  await seesTheEnd(one)
  expect((await h.metrics())['jobs_gateway_gaps_total{cause="reconnect"}']).toBeGreaterThan(0)
})

it('tells its clients that Redis is away, newcomers once they are welcome, and when it is back; nothing is lost', async () => {
  h = await startHarness({ env: JWT })
  const token = await sign()
  const one = await followed(() => openWatcher(h.url(), ['jobs.v1.json', `bearer.${token}`]))
  await h.redis.freeze()
  await red()
  const late = await openWatcher(h.url())
  expect(await one.watcher.next('redis')).toMatchObject({ available: false })
  late.send({ type: 'hello', token })
  expect(await late.next()).toMatchObject({ type: 'welcome' })
  expect(await late.next()).toMatchObject({ type: 'redis', available: false })
  await h.redis.thaw()
  for (const watcher of [one.watcher, late])
    expect(await watcher.next('redis')).toMatchObject({ available: true })
  await green()
  await seesTheEnd(one)
  late.terminate()
})

it('does without the right to publish: says what is missing, and keeps asking by PING', async () => {
  h = await startHarness({
    redisUrl: async (redis) => {
      const line =
        'SETUSER old reset on >secret %R~* &*:jobs:* +hello +info +ping +client +multi +exec +subscribe +unsubscribe +hmget +hgetall +xrange +pexpiretime +time'
      await redis.client().call('ACL', ...line.split(' '))
      return redis.url.replace('://', '://old:secret@')
    },
  })
  await h.gateway.line((line) => line.includes('NO_PROBE_RIGHT'))
  await seesTheEnd(await followed())
  expect(await h.ready()).toBe(true)
  expect((await h.metrics()).jobs_gateway_probe_age_seconds).toBe(0)
})

it.each(['normal', 'pubsub'])(
  'keeps up while all %s connections are killed again and again',
  async (kind) => {
    h = await startHarness()
    const one = await followed()
    for (let op = 1; op <= 200; op++) {
      if (op % 10 === 0) await h.redis.client().call('CLIENT', 'KILL', 'TYPE', kind, 'SKIPME', 'yes')
      // The worker's own connection was killed too; its call may be repeated.
      await until(() => h.jobs.transitions.progress(one.held, op, `${op}`).catch(() => undefined))
    }
    await seesTheEnd(one)
  },
)

it('keeps up through a pause of all clients', async () => {
  h = await startHarness()
  const one = await followed()
  await h.redis.client().call('CLIENT', 'PAUSE', '2500', 'ALL')
  for (let op = 1; op <= 20; op++) await h.jobs.transitions.progress(one.held, op, `${op}`)
  await seesTheEnd(one)
})

it('ends the subscription of a job that cannot be read, and leaves the others alone', async () => {
  h = await startHarness()
  const one = await followed()
  const damaged = await h.enqueue()
  one.watcher.send({ type: 'subscribe', job: damaged })
  await one.watcher.next((message) => message.type === 'live' && message.job === damaged)
  const client = h.redis.client()
  const stream = h.jobs.transitions.keysFor(damaged).events(damaged)
  await client.del(stream)
  await client.set(stream, 'by hand')
  await client.call('CLIENT', 'KILL', 'TYPE', 'pubsub')
  expect(await one.watcher.next('error')).toMatchObject({ code: 'internal', job: damaged, retryable: false })
  await green()
  await seesTheEnd(one)
})

it('answers unavailable while a script occupies Redis, and goes on after it', async () => {
  h = await startHarness()
  const one = await followed()
  const client = h.redis.client()
  await client.config('SET', 'busy-reply-threshold', '100')
  // Not for ever: a Redis that is never done does not stop either, when this test fails.
  const occupied = client
    .duplicate()
    .call('EVAL', 'for _ = 1, 5e9 do end', '0')
    .catch((error: Error) => error.message)
  await until(() =>
    client.get('x').then(
      () => false,
      (error: Error) => error.message.startsWith('BUSY'),
    ),
  )
  one.watcher.send({ type: 'subscribe', job: 'other', id: 'o' })
  expect(await one.watcher.next('error')).toMatchObject({ code: 'unavailable', retryable: true, id: 'o' })
  await until(() => client.call('SCRIPT', 'KILL').catch(() => undefined), { what: 'the script killed' })
  await occupied
  await green()
  // `Follower` takes no error for granted.
  one.watcher.messages.splice(
    one.watcher.messages.findIndex(({ type }) => type === 'error'),
    1,
  )
  await seesTheEnd(one)
})
