// The promises of protocol.md, one by one, by a stranger's client.
import { randomBytes } from 'node:crypto'
import { request } from 'node:http'
import { connect } from 'node:net'
import { clientDoes } from '@jobs/protocol'
import { fromSource, openWatcher, startProcess, until } from '@jobs/testkit'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type Harness, startHarness } from './harness.ts'

let h: Harness
beforeAll(async () => {
  h = await startHarness()
})
afterAll(() => h.stop())

describe('a connection', () => {
  it('is welcomed, and says hello once', async () => {
    const watcher = await h.watch()
    watcher.send({ type: 'hello' })
    expect(await watcher.next('welcome')).toMatchObject({
      heartbeatMs: 25_000,
      limits: { subscriptions: 128 },
    })
    watcher.send({ type: 'hello' })
    expect(await watcher.next('error')).toMatchObject({ code: 'bad_request' })
    watcher.terminate()
  })

  it('gets protocol v1 when it offers none, and never its token back', async () => {
    const plain = await openWatcher(h.url(), [])
    expect(plain.socket.protocol).toBe('')
    const bearer = await openWatcher(h.url(), ['bearer.abc', 'jobs.v1.json'])
    expect(bearer.socket.protocol).toBe('jobs.v1.json')
    plain.terminate()
    bearer.terminate()
  })

  it('is answered pong with the id of its ping', async () => {
    const watcher = await h.watch()
    watcher.send({ type: 'ping', id: 'p1' })
    expect(await watcher.next('pong')).toEqual({ type: 'pong', id: 'p1' })
    watcher.terminate()
  })

  it('may say several things in one frame, each answered', async () => {
    const watcher = await h.watch()
    watcher.send([{ type: 'ping', id: 'a' }, { type: 'dance' }, 7, { type: 'ping', id: 'b' }])
    expect(await watcher.next((m) => m.id === 'b')).toEqual({ type: 'pong', id: 'b' })
    expect(watcher.messages.map((m) => m.code ?? m.type)).toEqual([
      'welcome',
      'pong',
      'bad_request',
      'bad_request',
      'pong',
    ])
    watcher.terminate()
  })

  it('is told rate_limited beyond its burst, then closed with 4204', async () => {
    const watcher = await h.watch()
    for (let i = 0; i < 400; i++) watcher.send({ type: 'ping' })
    expect((await watcher.closed).code).toBe(4204)
    expect(watcher.messages.some((message) => message.code === 'rate_limited')).toBe(true)
  })
})

describe('before the upgrade', () => {
  const ask = (path: string, method = 'GET', headers: Record<string, string> = {}) =>
    new Promise<{ status: number | undefined; body: string }>((resolve, reject) => {
      const asked = request(
        { port: h.gateway.port, host: '127.0.0.1', path, method, headers },
        (response) => {
          let body = ''
          response.on('data', (chunk) => {
            body += chunk
          })
          response.on('end', () => resolve({ status: response.statusCode, body }))
        },
      )
      asked.on('error', reject)
      asked.end()
    })
  const upgrade = (headers: Record<string, string>) =>
    ask('/v1/ws', 'GET', {
      connection: 'upgrade',
      upgrade: 'websocket',
      'sec-websocket-key': randomBytes(16).toString('base64'),
      'sec-websocket-version': '13',
      ...headers,
    })

  it('answers 426 to a plain GET, 404 to another path, 405 to POST', async () => {
    expect((await ask('/v1/ws')).status).toBe(426)
    expect((await ask('/elsewhere')).status).toBe(404)
    expect((await ask('/v1/ws', 'POST')).status).toBe(405)
  })

  it('answers 400 that names the supported subprotocol to one that offers only others', async () => {
    const { status, body } = await upgrade({ 'sec-websocket-protocol': 'graphql-ws' })
    expect(status).toBe(400)
    expect(body).toContain('jobs.v1.json')
  })

  it('answers 426 to version 12, 400 to version 8, 400 to a token in the query', async () => {
    expect((await upgrade({ 'sec-websocket-version': '12' })).status).toBe(426)
    expect((await upgrade({ 'sec-websocket-version': '8' })).status).toBe(400)
    expect((await ask('/v1/ws?token=x')).status).toBe(400)
  })

  it('answers 400 to an upgrade to something else', async () => {
    expect((await upgrade({ upgrade: 'h2c' })).status).toBe(400)
  })

  it('survives garbage and a reset in the middle of a request', async () => {
    for (const text of [
      '\x16\x03\x01\x02\x00\x01',
      'GET /v1/ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n',
    ]) {
      const socket = connect(h.gateway.port, '127.0.0.1')
      socket.on('error', () => undefined)
      await new Promise<void>((resolve) => socket.write(text, () => resolve()))
      socket.resetAndDestroy()
    }
    const watcher = await h.watch()
    await watcher.next('welcome')
    watcher.terminate()
  })
})

describe('a subscription', () => {
  it('gets snapshot, live, events in order, complete; the id echoed in direct answers', async () => {
    const id = await h.enqueue()
    const watcher = await h.watch()
    watcher.send({ type: 'subscribe', job: id, id: 's1' })
    expect(await watcher.next((m) => m.type !== 'welcome')).toMatchObject({
      type: 'snapshot',
      job: id,
      seq: 1,
      state: 'QUEUED',
      attempt: 0,
      progress: null,
      id: 's1',
    })
    expect(await watcher.next()).toMatchObject({ type: 'live', job: id, id: 's1' })
    const held = await h.claim(id)
    await h.jobs.transitions.progress(held, 1, '{"done":1}')
    await h.jobs.transitions.log(held, 2, 'half-way')
    await h.jobs.transitions.complete(held, '{"text":"all"}')
    await watcher.next('complete')
    const events = watcher.messages.filter((m) => m.type === 'events').flatMap((m) => m.items)
    expect(events).toMatchObject([
      { seq: 2, type: 'state', state: 'PROCESSING', attempt: 1 },
      { seq: 3, type: 'progress', progress: { done: 1 } },
      { seq: 4, type: 'log', line: 'half-way' },
      { seq: 5, type: 'state', state: 'COMPLETED', result: { text: 'all' } },
    ])
    watcher.terminate()
  })

  it('of an ended job is snapshot and complete, and can be made again', async () => {
    const id = await h.enqueue()
    await h.jobs.transitions.complete(await h.claim(id), '1')
    const watcher = await h.watch()
    for (let i = 0; i < 2; i++) {
      watcher.send({ type: 'subscribe', job: id })
      expect(await watcher.next('snapshot')).toMatchObject({ state: 'COMPLETED', result: 1 })
      expect(await watcher.next()).toMatchObject({ type: 'complete', job: id, state: 'COMPLETED' })
    }
    watcher.terminate()
  })

  it('from 0-0 gets the whole history', async () => {
    const id = await h.enqueue()
    await h.claim(id)
    const watcher = await h.watch()
    watcher.send({ type: 'subscribe', job: id, cursor: '0-0' })
    expect(await watcher.next('events')).toMatchObject({ from: 1, to: 2 })
    expect(await watcher.next()).toMatchObject({ type: 'live' })
    watcher.terminate()
  })

  it('twice in one list is answered twice', async () => {
    const id = await h.enqueue()
    const watcher = await h.watch()
    watcher.send({ type: 'subscribe', jobs: [id, id] })
    await watcher.next('live')
    expect(watcher.messages.map((m) => m.code ?? m.type).sort()).toEqual([
      'already_subscribed',
      'live',
      'snapshot',
      'welcome',
    ])
    watcher.terminate()
  })

  it('of a large result, many times over, is answered in full', async () => {
    const ids = await Promise.all(Array.from({ length: 12 }, () => h.enqueue()))
    for (const id of ids) await h.jobs.transitions.complete(await h.claim(id), `"${'x'.repeat(900_000)}"`)
    const watcher = await h.watch()
    watcher.send({ type: 'subscribe', jobs: ids })
    await until(() => watcher.messages.filter((m) => m.type === 'complete').length === ids.length, {
      what: 'the end of each',
    })
    watcher.terminate()
  })

  it('of several jobs answers for each', async () => {
    const ids = [await h.enqueue(), await h.enqueue(), 'nope']
    const watcher = await h.watch()
    watcher.send({ type: 'subscribe', jobs: ids, id: 'many' })
    await until(() => watcher.messages.filter((m) => m.id === 'many').length >= 5, {
      what: 'five direct answers',
    })
    expect(
      watcher.messages
        .filter((m) => m.type === 'snapshot')
        .map((m) => m.job)
        .sort(),
    ).toEqual(ids.slice(0, 2).sort())
    expect(watcher.messages.find((m) => m.type === 'error')).toMatchObject({ code: 'not_found', job: 'nope' })
    watcher.terminate()
  })

  it('is refused twice, ended on request, and refused beyond 128', async () => {
    const id = await h.enqueue()
    const watcher = await h.watch()
    watcher.send({ type: 'subscribe', job: id })
    await watcher.next('live')
    watcher.send({ type: 'subscribe', job: id, id: 'again' })
    expect(await watcher.next('error')).toMatchObject({ code: 'already_subscribed', id: 'again' })
    watcher.send({ type: 'unsubscribe', job: id, id: 'u' })
    expect(await watcher.next('unsubscribed')).toMatchObject({ job: id, id: 'u' })
    const ids = await Promise.all(Array.from({ length: 129 }, () => h.enqueue()))
    watcher.send({ type: 'subscribe', jobs: ids.slice(0, 100) })
    watcher.send({ type: 'subscribe', jobs: ids.slice(100) })
    expect(await watcher.next('error')).toMatchObject({ code: 'limit_exceeded' })
    watcher.terminate()
  })

  it.each([
    ['ahead', async (_: string, cursor: string) => `999-${cursor.split('-')[1]}`],
    ['diverged', async (_: string, cursor: string) => `${cursor.split('-')[0]}-1`],
    [
      'trimmed',
      async (id: string) => {
        await h.redis.client().xtrim(h.jobs.transitions.keysFor(id).events(id), 'MAXLEN', 1)
        return '0-0'
      },
    ],
  ] as const)('at a position that is %s is reset with a snapshot', async (reason, cursorOf) => {
    const id = await h.enqueue()
    const held = await h.claim(id)
    for (let op = 1; op <= 3; op++) await h.jobs.transitions.progress(held, op, `${op}`)
    const job = await h.jobs.get(id)
    const watcher = await h.watch()
    watcher.send({ type: 'subscribe', job: id, cursor: await cursorOf(id, job?.cursor ?? ''), id: 'r' })
    expect(await watcher.next((m) => m.type !== 'welcome')).toEqual({
      type: 'reset',
      job: id,
      reason,
      id: 'r',
    })
    expect(await watcher.next()).toMatchObject({ type: 'snapshot', seq: 5, progress: 3 })
    expect(await watcher.next()).toMatchObject({ type: 'live' })
    watcher.terminate()
  })

  it('too far behind is reset', async () => {
    const id = await h.enqueue()
    const held = await h.claim(id)
    for (let op = 1; op <= 310; op++) await h.jobs.transitions.progress(held, op, `${op}`)
    const watcher = await h.watch()
    watcher.send({ type: 'subscribe', job: id, cursor: '0-0' })
    expect(await watcher.next('reset')).toMatchObject({ reason: 'too_far' })
    expect(await watcher.next()).toMatchObject({ type: 'snapshot', seq: 312 })
    watcher.terminate()
  })

  it('with detail state gets state changes only, the rest counted', async () => {
    const id = await h.enqueue()
    const watcher = await h.watch()
    watcher.send({ type: 'subscribe', job: id, detail: 'state' })
    await watcher.next('live')
    const held = await h.claim(id)
    for (let op = 1; op <= 5; op++) await h.jobs.transitions.progress(held, op, `${op}`)
    await h.jobs.transitions.complete(held, '1')
    await watcher.next('complete')
    const events = watcher.messages.filter((m) => m.type === 'events')
    expect(events.flatMap((m) => m.items).every((item) => item.type === 'state')).toBe(true)
    expect(events.reduce((sum, m) => sum + (m.conflated ?? 0), 0)).toBe(5)
    let seq = 1
    for (const m of events) {
      expect(m.from).toBe(seq + 1)
      seq = m.to
    }
    expect(seq).toBe(8)
    watcher.terminate()
  })
})

it('a client that does not read is told less or cut, and harms no other', async () => {
  const id = await h.enqueue()
  const held = await h.claim(id)
  const stalled = await h.watch()
  const prompt = await h.watch()
  for (const watcher of [stalled, prompt]) watcher.send({ type: 'subscribe', job: id })
  await Promise.all([stalled.next('live'), prompt.next('live')])
  stalled.socket.pause()
  const filler = 'x'.repeat(7_000)
  const count = 3_000
  for (let op = 1; op <= count; op += 50)
    await Promise.all(
      Array.from({ length: 50 }, (_, i) => h.jobs.transitions.progress(held, op + i, `"${filler}"`)),
    )
  await h.jobs.transitions.complete(held, '1')
  await prompt.next('complete')
  const seqs = prompt.messages.filter((m) => m.type === 'events').flatMap((m) => [m.from, m.to])
  expect([seqs[0], seqs.at(-1)]).toEqual([3, count + 3])
  stalled.socket.resume()
  await stalled.next('complete')
  let seq = 2
  let folded = 0
  for (const m of stalled.messages.filter((message) => message.type === 'events')) {
    expect(m.from).toBe(seq + 1)
    expect(m.items.length + (m.conflated ?? 0)).toBe(m.to - m.from + 1)
    folded += m.conflated ?? 0
    seq = m.to
  }
  expect(seq).toBe(count + 3)
  expect(folded).toBeGreaterThan(0)
  for (const watcher of [stalled, prompt]) watcher.terminate()
})

it('closes by codes whose range says what to do', () => {
  expect([4010, 4101, 4203, 4300, 1006].map((code) => clientDoes(code)?.slice(0, 9) ?? null)).toEqual([
    'stay away',
    'get a new',
    'back off ',
    'come back',
    null,
  ])
})

it.each([
  ['tokens, without an algorithm', { GATEWAY_AUTH: 'jwt' }, 'GATEWAY_JWT_ALGORITHM'],
  ['the world, without tokens', { GATEWAY_HOST: '0.0.0.0' }, 'GATEWAY_HOST'],
])('refuses to start for %s, with one clear error', async (_, env, named) => {
  const gateway = startProcess(process.execPath, fromSource('apps/gateway/src/main.ts'), {
    env: { REDIS_URL: h.redis.url, GATEWAY_PORT: '0', GATEWAY_OPS_PORT: '0', ...env },
  })
  expect(await gateway.exited).toEqual({ code: 2, signal: null })
  expect(gateway.stdout).toHaveLength(1)
  expect(gateway.stdout[0]).toContain(named)
})

it('drains on SIGTERM: tells everybody, closes with 4300, exits 0', async () => {
  const own = await startHarness()
  const watcher = await own.watch()
  const others = await Promise.all(Array.from({ length: 200 }, () => own.watch()))
  await watcher.next('welcome')
  own.gateway.kill('SIGTERM')
  expect((await watcher.next('draining')).spreadMs).toBeGreaterThan(0)
  const refused = await fetch(`http://127.0.0.1:${own.gateway.port}/v1/ws`)
  expect([refused.status, refused.headers.get('retry-after')]).toEqual([503, '1'])
  for (const other of others) expect((await other.closed).code).toBe(4300)
  expect((await watcher.closed).code).toBe(4300)
  expect(await own.gateway.exited).toEqual({ code: 0, signal: null })
  await own.stop()
})
