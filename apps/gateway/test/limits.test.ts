// What one gateway grants, in all and to each address; and that what is beyond harms nobody who is within.
import { connect } from 'node:net'
import { fromSource, startProcess, until } from '@jobs/testkit'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { addressGroup, clientAddress, proxyList } from '../src/http/address.ts'
import { withinDescriptors } from '../src/limits.ts'
import { type Answer, dial } from './dial.ts'
import { type Harness, startHarness } from './harness.ts'

describe('who a client is', () => {
  const proxies = proxyList('10.0.0.0/8, 2001:db8:1::/48 192.0.2.7')

  it.each([
    ['its own address', '198.51.100.1', undefined, '198.51.100.1'],
    ['not what it says itself', '198.51.100.1', '203.0.113.9', '198.51.100.1'],
    ['what a proxy of ours says', '10.1.2.3', '203.0.113.9', '203.0.113.9'],
    ['the right-most that is no proxy', '10.1.2.3', '1.1.1.1, 203.0.113.9, 10.9.9.9', '203.0.113.9'],
    ['the proxy, when it says nothing', '10.1.2.3', undefined, '10.1.2.3'],
    ['the proxy, when it says nonsense', '10.1.2.3', 'unknown', '10.1.2.3'],
    ['the left-most, when all are proxies', '10.1.2.3', '10.0.0.1, 192.0.2.7', '10.0.0.1'],
    ['an IPv4 address that came as IPv6', '::ffff:10.1.2.3', '::ffff:203.0.113.9', '203.0.113.9'],
    ['without the port', '10.1.2.3', '203.0.113.9:4711', '203.0.113.9'],
    ['an IPv6 address without its port', '2001:db8:1::5', '[2001:DB8:2::0:1]:4711', '2001:db8:2::1'],
  ])('is %s', (_, peer, forwarded, address) => {
    expect(clientAddress(peer, forwarded, proxies)).toBe(address)
  })

  it.each([
    ['192.0.2.1', '192.0.2.1'],
    ['2001:db8::1', '2001:db8:0:0::/64'],
    ['2001:db8:0:0:ffff::2', '2001:db8:0:0::/64'],
    ['2001:db8:1:2:3:4:5:6', '2001:db8:1:2::/64'],
    ['::1', '0:0:0:0::/64'],
  ])('counts %s as %s', (address, group) => {
    expect(addressGroup(address)).toBe(group)
  })

  it.each(['10.0.0.0/33', '10.0.0', '2001:db8::/129', '10.0.0.0/8x', '10.0.0.0/'])('refuses %s', (text) => {
    expect(() => proxyList(text)).toThrow(text)
  })

  it('is told as a setting that is wrong', async () => {
    const env = { GATEWAY_TRUSTED_PROXIES: '10.0.0.0/40', GATEWAY_MAX_CONNECTIONS: '-1' }
    const gateway = startProcess(process.execPath, fromSource('apps/gateway/src/main.ts'), { env })
    expect(await gateway.exited).toEqual({ code: 2, signal: null })
    for (const named of Object.keys(env)) expect(gateway.stdout.join()).toContain(named)
  })
})

it('takes fewer connections where there are not enough file descriptors', () => {
  expect(withinDescriptors(10_000, 65_536)).toEqual({ connections: 10_000, handshakes: 4_000, short: false })
  const { connections, handshakes, short } = withinDescriptors(10_000, 1_024)
  expect(short).toBe(true)
  expect(connections + handshakes).toBeLessThanOrEqual(1_024 - 64)
})

describe('a gateway with small limits', () => {
  let h: Harness
  beforeAll(async () => {
    h = await startHarness({
      env: {
        ...{ GATEWAY_MAX_CONNECTIONS: '30', GATEWAY_MAX_CONNECTIONS_PER_ADDRESS: '10' },
        ...{
          GATEWAY_TRUSTED_PROXIES: '127.0.9.0/24',
          GATEWAY_MAX_ROOMS: '4',
          GATEWAY_MAX_SUBSCRIPTIONS: '3',
        },
      },
    })
  })
  afterAll(() => h.stop())
  const open: Answer[] = []
  afterEach(async () => {
    for (const { socket } of open.splice(0)) socket?.destroy()
    await until(async () => (await h.metrics()).jobs_gateway_sockets === 0)
  })
  const dialed = async (count: number, from: string, forwarded?: (i: number) => string) => {
    const answers = await Promise.all(
      Array.from({ length: count }, (_, i) =>
        dial(h.gateway.port, { from, headers: forwarded ? { 'x-forwarded-for': forwarded(i) } : {} }),
      ),
    )
    open.push(...answers)
    return answers
  }
  const accepted = (answers: Answer[]) => answers.filter(({ status }) => status === 101)

  it('gives an address ten sockets, 429 with Retry-After beyond, and room again when one goes', async () => {
    const first = await dialed(12, '127.0.0.2')
    expect(accepted(first)).toHaveLength(10)
    expect(first.filter(({ status }) => status === 429).map(({ retryAfter }) => retryAfter)).toEqual([
      '10',
      '10',
    ])
    expect(accepted(await dialed(1, '127.0.0.3'))).toHaveLength(1)
    accepted(first)[0]?.socket?.destroy()
    await until(async () => accepted(await dialed(1, '127.0.0.2')).length === 1)
    expect(h.gateway.stdout.join()).toContain('"address":"127.0.0.2"')
  })

  it('believes X-Forwarded-For from its proxies only', async () => {
    expect(accepted(await dialed(11, '127.0.0.2', (i) => `203.0.113.${i}`))).toHaveLength(10)
    expect(accepted(await dialed(11, '127.0.9.1', (i) => `198.51.100.${i}, 203.0.113.1`))).toHaveLength(10)
    expect(accepted(await dialed(2, '127.0.9.2', (i) => `198.51.100.${i}`))).toHaveLength(2)
  })

  it('takes thirty in all; the others get 503 with Retry-After', async () => {
    const answers = (await Promise.all([2, 3, 4, 5].map((host) => dialed(10, `127.0.0.${host}`)))).flat()
    expect(accepted(answers)).toHaveLength(30)
    const refused = answers.filter(({ status }) => status === 503)
    expect(refused.map(({ retryAfter }) => retryAfter)).toEqual(Array.from({ length: 10 }, () => '5'))
    expect((await h.metrics())['jobs_gateway_refused_total{reason="connections"}']).toBe(10)
  })

  it('grants a connection what it was configured to, and tells so', async () => {
    const [one, two] = [await h.watch(), await h.watch()]
    expect(await one.next('welcome')).toMatchObject({ limits: { subscriptions: 3 } })
    const ids = await Promise.all(Array.from({ length: 5 }, () => h.enqueue()))
    one.send({ type: 'subscribe', jobs: ids.slice(0, 4) })
    expect(await one.next('error')).toMatchObject({ code: 'limit_exceeded', job: ids[3], retryable: false })
    await until(() => one.messages.filter(({ type }) => type === 'live').length === 3)
    two.send({ type: 'subscribe', job: ids[3] })
    await two.next('live')
    two.send({ type: 'subscribe', job: ids[4] })
    expect(await two.next('error')).toMatchObject({ code: 'limit_exceeded', job: ids[4], retryable: true })
    // A tag takes a room like a job.
    two.send({ type: 'subscribe', tag: 'any' })
    expect(await two.next('error')).toMatchObject({ code: 'limit_exceeded', tag: 'any', retryable: true })
    // A room that is there takes any number.
    two.send({ type: 'subscribe', job: ids[0] })
    await two.next('live')
    // A room whose watchers were told the end is closed like any other.
    await h.jobs.cancel(ids[3] as string)
    await two.next('complete')
    for (const watcher of [one, two]) watcher.terminate()
  })

  it('counts the tags that are watched among its rooms', async () => {
    // Those of the test before are kept for a while.
    await until(async () => (await h.metrics()).jobs_gateway_rooms === 0)
    const [one, two] = [await h.watch(), await h.watch()]
    one.send([1, 2, 3].map((n) => ({ type: 'subscribe', tag: `t${n}` })))
    for (let i = 0; i < 3; i++) await one.next('counts')
    two.send({ type: 'subscribe', tag: 't4' })
    await two.next('counts')
    expect((await h.metrics()).jobs_gateway_rooms).toBe(4)
    two.send({ type: 'subscribe', job: await h.enqueue() })
    expect(await two.next('error')).toMatchObject({ code: 'limit_exceeded', retryable: true })
    for (const watcher of [one, two]) watcher.terminate()
  })
})

it('lets in as many a second as it may; a flood of the others harms nobody', async () => {
  const h = await startHarness({ env: { GATEWAY_ACCEPTS_PER_SECOND: '10' } })
  const watcher = await h.watch()
  const before = (await h.metrics()).process_resident_memory_bytes ?? 0
  let pongs = 0
  const beats = setInterval(() => watcher.send({ type: 'ping' }), 200)
  const began = performance.now()
  const answers: Answer[] = []
  while (answers.length < 1_200)
    answers.push(
      ...(await Promise.all(
        Array.from({ length: 200 }, (_, i) => dial(h.gateway.port, { from: `127.0.1.${i + 1}` })),
      )),
    )
  const seconds = (performance.now() - began) / 1_000
  clearInterval(beats)
  pongs = watcher.messages.filter(({ type }) => type === 'pong').length
  const accepted = answers.filter(({ status }) => status === 101)
  expect(accepted.length).toBeLessThanOrEqual(20 + 10 * seconds + 1)
  const refused = answers.filter(({ status }) => status === 503)
  expect(refused).toHaveLength(answers.length - accepted.length)
  expect(new Set(refused.map(({ retryAfter }) => retryAfter))).toEqual(new Set(['1']))
  expect(pongs).toBeGreaterThan(0)
  const after = (await h.metrics()).process_resident_memory_bytes ?? 0
  expect(after - before).toBeLessThan(100 * 1_048_576)
  for (const { socket } of accepted) socket?.destroy()
  watcher.terminate()
  await h.stop()
})

it('leaves room for others when one address comes and goes all the time', async () => {
  const h = await startHarness({ env: { GATEWAY_ACCEPTS_PER_SECOND: '20' } })
  const answers: Answer[] = []
  let churning = true
  const churn = Promise.all(
    Array.from({ length: 20 }, async () => {
      while (churning) {
        const answer = await dial(h.gateway.port, { from: '127.0.0.2' })
        answer.socket?.destroy()
        answers.push(answer)
      }
    }),
  )
  await until(() => answers.find(({ status }) => status === 429), { what: 'too often' })
  for (let i = 0; i < 5; i++)
    await until(async () => {
      const { status, socket } = await dial(h.gateway.port, { from: '127.0.0.3' })
      socket?.destroy()
      return status === 101
    })
  churning = false
  await churn
  const often = answers.filter(({ status }) => status === 429)
  expect(new Set(often.map(({ retryAfter }) => retryAfter))).toEqual(new Set(['2']))
  await h.stop()
})

it('drops silent connections beyond half of its handshakes from one address, and welcomes another', async () => {
  const h = await startHarness()
  let closed = 0
  const silent = await Promise.all(
    Array.from(
      { length: 2_100 },
      () =>
        new Promise<ReturnType<typeof connect>>((resolve) => {
          const socket = connect({ port: h.gateway.port, host: '127.0.0.1', localAddress: '127.0.0.2' })
          socket.on('error', () => undefined)
          socket.on('close', () => closed++)
          socket.on('connect', () => resolve(socket))
        }),
    ),
  )
  await until(() => closed >= 100, { what: 'the surplus dropped' })
  const { status, socket } = await dial(h.gateway.port, { from: '127.0.0.3' })
  expect(status).toBe(101)
  expect((await h.metrics())['jobs_gateway_refused_total{reason="dropped"}']).toBeGreaterThanOrEqual(100)
  for (const each of silent) each.destroy()
  await until(async () => (await h.metrics()).jobs_gateway_handshakes === 0)
  socket?.destroy()
  await h.stop()
})

it('a storm of a thousand that come back reads each job, not once for each socket', async () => {
  const h = await startHarness()
  const other = await h.anotherGateway()
  const ids = await Promise.all(Array.from({ length: 10 }, () => h.enqueue()))
  const watchAll = async (port: number) => {
    const watchers = await h.watchMany(1_000, port)
    for (const [i, watcher] of watchers.entries()) watcher.send({ type: 'subscribe', job: ids[i % 10] })
    await Promise.all(watchers.map((watcher) => watcher.next('live', 40_000)))
    return watchers
  }
  const before = await watchAll(other.port)
  await other.kill('SIGKILL')
  await Promise.all(before.map(({ closed }) => closed))
  const after = await watchAll(h.gateway.port)
  const metrics = await h.metrics()
  const reads = metrics['jobs_gateway_reads_total{kind="snapshot"}'] ?? 0
  expect(reads + (metrics.jobs_gateway_coalesced_total ?? 0)).toBe(1_000)
  expect(reads).toBeLessThan(500)
  expect(metrics.jobs_gateway_rooms).toBe(10)
  for (const watcher of after) watcher.terminate()
  await h.stop()
})
