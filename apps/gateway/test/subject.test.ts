// What all tokens of one subject may have together, over sockets and event streams alike; another subject has its own share.
import { openWatcher, until, type Watcher } from '@jobs/testkit'
import { afterAll, beforeAll, expect, it } from 'vitest'
import type { Harness } from './harness.ts'
import { expectNothingTold, type Guarded, sign, startGuarded } from './tokens.ts'

let guarded: Guarded
let h: Harness
beforeAll(async () => {
  guarded = await startGuarded({
    GATEWAY_MAX_CONNECTIONS_PER_SUBJECT: '2',
    GATEWAY_MAX_SUBSCRIPTIONS_PER_SUBJECT: '3',
    GATEWAY_TOKEN_IN_QUERY: 'true',
  })
  h = guarded.h
})
afterAll(() => h.stop())

const bySubprotocol = async (sub: string): Promise<Watcher> =>
  openWatcher(h.url(), ['jobs.v1.json', `bearer.${await sign({ sub })}`])

it('takes as many connections as it may, tells the others limit_exceeded and 4205, and takes one when one has gone', async () => {
  const first = await guarded.welcomed({ sub: 'carl' })
  const second = await bySubprotocol('carl')
  await second.next('welcome')
  for (const beyond of [await guarded.hello(await sign({ sub: 'carl' })), await bySubprotocol('carl')]) {
    expect((await beyond.closed).code).toBe(4205)
    expect(beyond.messages).toMatchObject([{ type: 'error', code: 'limit_exceeded' }])
  }
  const another = await guarded.welcomed({ sub: 'dora' })
  expect(h.gateway.stdout.some((line) => line.includes('"what":"connection"'))).toBe(true)
  second.terminate()
  const third = await until(
    async () => {
      const watcher = await bySubprotocol('carl')
      return (await watcher.next()).type === 'welcome' ? watcher : undefined
    },
    { what: 'room for carl' },
  )
  // A refresh is no further connection.
  third.send([{ type: 'refresh', token: await sign({ sub: 'carl' }) }, { type: 'ping' }])
  await third.next('pong')
  for (const watcher of [first, third, another]) watcher.terminate()
})

it('counts event streams, and answers 429 beyond', async () => {
  const id = await h.enqueue()
  const open = async (sub: string) => guarded.get(`/v1/jobs/${id}/events`, await sign({ sub }))
  const streams = [await open('emma'), await open('emma')]
  expect(streams.map(({ status }) => status)).toEqual([200, 200])
  const beyond = await open('emma')
  expect([beyond.status, beyond.headers.get('retry-after')]).toEqual([429, '1'])
  expect(await beyond.json()).toMatchObject({ code: 'limit_exceeded', retryable: true })
  const socket = await guarded.hello(await sign({ sub: 'emma' }))
  expect((await socket.closed).code).toBe(4205)
  // A look at a job holds nothing.
  expect((await guarded.get(`/v1/jobs/${id}`, await sign({ sub: 'emma' }))).status).toBe(200)
  await streams[0]?.body?.cancel()
  await until(async () => {
    const stream = await open('emma')
    await stream.body?.cancel()
    return stream.status === 200
  })
  await streams[1]?.body?.cancel()
})

it('watches as many jobs and tags as it may, on all of its connections; what ends makes room', async () => {
  const ids = await Promise.all(Array.from({ length: 4 }, () => h.enqueue()))
  const claims = { sub: 'fred', tags: ['t'] }
  const [one, two] = [await guarded.welcomed(claims), await guarded.welcomed(claims)]
  const full = { type: 'error', code: 'limit_exceeded', retryable: true }
  one.send({ type: 'subscribe', jobs: ids.slice(0, 2) })
  await one.next('live')
  await one.next('live')
  two.send({ type: 'subscribe', tag: 't' })
  await two.next('counts')
  two.send({ type: 'subscribe', job: ids[2] })
  expect(await two.next('error')).toMatchObject({ ...full, job: ids[2] })

  one.send({ type: 'unsubscribe', job: ids[0] })
  await one.next('unsubscribed')
  two.send({ type: 'subscribe', job: ids[2] })
  await two.next('live')
  two.send({ type: 'subscribe', job: ids[3] })
  expect(await two.next('error')).toMatchObject({ ...full, job: ids[3] })

  // A job that ends, a job that is not there, a refresh that covers less: none of them is counted any more.
  await h.jobs.cancel(ids[1] as string)
  await one.next('complete')
  one.send({ type: 'subscribe', job: 'nobody' })
  expect(await one.next('error')).toMatchObject({ code: 'not_found' })
  one.send({ type: 'subscribe', job: ids[3] })
  await one.next('live')
  two.send({ type: 'refresh', token: await sign({ sub: 'fred', jobs: [], tags: ['t'] }) })
  await two.next('unsubscribed')
  one.send({ type: 'subscribe', job: ids[2] })
  await one.next('live')

  one.terminate()
  const three = await until(async () => {
    const watcher = await guarded.hello(await sign(claims))
    return (await watcher.next()).type === 'welcome' ? watcher : undefined
  })
  three.send({ type: 'subscribe', jobs: ids.slice(2) })
  await three.next('live')
  await three.next('live')
  for (const watcher of [two, three]) watcher.terminate()
})

it('a token in the URL is taken where that is configured, and still is in no output', async () => {
  const watcher = await openWatcher(`${h.url()}?token=${await sign()}`)
  await watcher.next('welcome')
  watcher.terminate()
  for (const token of ['x.y.z', await sign({ aud: 'others' })])
    expect((await guarded.get(`/v1/jobs/a?token=${token}`)).status).toBe(401)
  expectNothingTold(h)
  const metrics = await (await fetch(`http://127.0.0.1:${h.gateway.opsPort}/metrics`)).text()
  expect(metrics).not.toContain('token=')
})
