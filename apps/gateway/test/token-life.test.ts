// The life of a token until it ends or is ended: refreshed, expired, revoked; and the keys that it is judged by.
import { generateKeyPairSync, randomBytes } from 'node:crypto'
import { createServer } from 'node:http'
import { type AddressInfo, connect } from 'node:net'
import { openWatcher, startApp, type TestApp, until } from '@jobs/testkit'
import { SignJWT } from 'jose'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { dial } from './dial.ts'
import type { Harness } from './harness.ts'
import { expectNothingTold, type Guarded, now, sign, startGuarded } from './tokens.ts'

let guarded: Guarded
let h: Harness
beforeAll(async () => {
  guarded = await startGuarded()
  h = guarded.h
})
afterAll(() => h.stop())
const hello = (token: string) => guarded.hello(token)
const welcomed = (claims?: object) => guarded.welcomed(claims)
const get: Guarded['get'] = (...asked) => guarded.get(...asked)

describe('a refresh', () => {
  it.each<[string, () => Promise<string>]>([
    ['another subject', () => sign({ sub: 'bob' })],
    ['no subject', () => sign({ sub: undefined })],
    ['another secret', () => sign({}, {}, randomBytes(32))],
  ])('with %s closes with 4100', async (_, make) => {
    const watcher = await welcomed()
    watcher.send({ type: 'refresh', token: await make() })
    expect((await watcher.closed).code).toBe(4100)
  })

  it('is asked for when four fifths of the life are over, and puts the end off', async () => {
    // Of 100 s, 79.5 are over.
    const watcher = await welcomed({ iat: Date.now() / 1_000 - 79.5, exp: Date.now() / 1_000 + 20.5 })
    const { inMs } = await watcher.next('expiring')
    expect(inMs).toBeGreaterThan(15_000)
    expect(inMs).toBeLessThanOrEqual(20_500)
    watcher.send([{ type: 'refresh', token: await sign() }, { type: 'ping' }])
    await watcher.next('pong')
    watcher.terminate()
  })

  it('comes late, and nothing is begun before it', async () => {
    const id = await h.enqueue()
    // Expired, within what clocks may differ by.
    const watcher = await welcomed({ exp: now() - 1 })
    watcher.send({ type: 'subscribe', job: id })
    expect(await watcher.next('error')).toMatchObject({ code: 'token_expired' })
    watcher.send([
      { type: 'refresh', token: await sign() },
      { type: 'subscribe', job: id },
    ])
    await watcher.next('live')
    watcher.terminate()
  })
})

it('an event stream ends with its token', async () => {
  const id = await h.enqueue()
  const response = await get(`/v1/jobs/${id}/events`, await sign({ exp: Date.now() / 1_000 + 0.3 }))
  expect(await response.text()).toContain('"type":"live"')
})

describe('what is revoked', () => {
  it('ends an event stream over HTTP', async () => {
    const id = await h.enqueue()
    const response = await get(`/v1/jobs/${id}/events`, await sign({ jti: 'streaming', jobs: [id] }))
    expect(response.status).toBe(200)
    await h.jobs.revoke({ jti: 'streaming' })
    expect(await response.text()).toContain('"type":"live"')
  })

  it('is closed with 4102 at every gateway within 5 s, and refused from then on', async () => {
    const other = await h.anotherGateway()
    const tokens = { one: await sign({ jti: 'one' }), two: await sign({ jti: 'two' }) }
    const open = (token: string, port = h.gateway.port) =>
      openWatcher(`ws://127.0.0.1:${port}/v1/ws`, ['jobs.v1.json', `bearer.${token}`])
    const [here, there] = [await open(tokens.one), await open(tokens.one, other.port)]
    const spared = await open(tokens.two)
    const codes: number[] = []
    for (const { closed } of [here, there]) void closed.then(({ code }) => codes.push(code))
    await h.jobs.revoke({ jti: 'one' })
    await until(() => codes.length === 2, { timeoutMs: 5_000, what: 'both closes' })
    expect(codes).toEqual([4102, 4102])
    const again = await hello(tokens.one)
    expect((await again.closed).code).toBe(4102)
    spared.send({ type: 'ping' })
    await spared.next('pong')
    spared.terminate()
    await other.kill('SIGKILL')
    // One that starts afterwards knows it too.
    await h.gateway.kill('SIGTERM')
    await h.restartGateway()
    const headers = { authorization: `Bearer ${tokens.one}` }
    expect((await dial(h.gateway.port, { headers })).status).toBe(401)
  })

  it('of a subject is what was issued before', async () => {
    const before = await welcomed({ sub: 'carl', iat: Date.now() / 1_000 - 1 })
    await h.jobs.revoke({ subject: 'carl' })
    expect((await before.closed).code).toBe(4102)
    const undated = await hello(await sign({ sub: 'carl', iat: undefined }))
    expect((await undated.closed).code).toBe(4102)
    const after = await welcomed({ sub: 'carl', iat: Date.now() / 1_000 })
    after.terminate()
  })
})

describe('keys at an address', () => {
  const pair = generateKeyPairSync('ed25519')
  let answers = true
  let fetched = 0
  const keys = createServer((_, response) => {
    fetched++
    if (!answers) return
    response.end(JSON.stringify({ keys: [{ ...pair.publicKey.export({ format: 'jwk' }), kid: 'one' }] }))
  })
  let gateway: TestApp
  const signed = async (kid: string) => {
    const claims = { jobs: '*', aud: 'jobs', exp: now() + 600 }
    return new SignJWT(claims).setProtectedHeader({ alg: 'EdDSA', kid }).sign(pair.privateKey)
  }
  const status = async (token: string) =>
    (await dial(gateway.port, { headers: { authorization: `Bearer ${token}` } })).status

  beforeAll(async () => {
    await new Promise<void>((resolve) => keys.listen(0, '127.0.0.1', resolve))
    gateway = await startApp('apps/gateway/src/main.ts', {
      ...{ REDIS_URL: h.redis.url, GATEWAY_PORT: '0', GATEWAY_OPS_PORT: '0', GATEWAY_AUTH: 'jwt' },
      GATEWAY_JWT_ALGORITHM: 'EdDSA',
      GATEWAY_JWT_JWKS_URL: `http://127.0.0.1:${(keys.address() as AddressInfo).port}/keys`,
    })
  })
  afterAll(async () => {
    await gateway.kill('SIGKILL')
    keys.closeAllConnections()
    keys.close()
  })

  it('that does not answer: 503 within 3 s, a client that gives up ends nothing, and it is not asked on', async () => {
    answers = false
    const began = performance.now()
    const token = await signed('one')
    const gone = dial(gateway.port, { headers: { authorization: `Bearer ${token}` } })
    for (let i = 0; i < 20; i++) {
      const socket = connect(gateway.port, '127.0.0.1')
      socket.on('error', () => undefined)
      const head = `GET /v1/ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n`
      const more = `Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nAuthorization: Bearer ${token}\r\n\r\n`
      await new Promise<void>((resolve) => socket.write(head + more, () => resolve()))
      socket.resetAndDestroy()
    }
    expect((await gone).status).toBe(503)
    // After 3 s, and what a busy machine takes.
    expect(performance.now() - began).toBeLessThan(10_000)
    for (let i = 0; i < 5; i++) expect(await status(token)).toBe(503)
    expect(fetched).toBe(1)
    const told = gateway.stdout.filter((line) => line.includes('tokens cannot be checked'))
    expect(told).toHaveLength(1)
    expect(told[0]).toContain('could not be fetched: TimeoutError')
  })

  it('that answers again is asked again; a kid is looked for in it and nowhere else', async () => {
    answers = true
    const token = await signed('one')
    await until(async () => (await status(token)) === 101, { timeoutMs: 15_000 })
    const before = fetched
    for (const kid of ['two', '../../etc/passwd', 'http://127.0.0.1:1/', "'; DROP"])
      expect(await status(await signed(kid))).toBe(401)
    expect(fetched - before).toBeLessThanOrEqual(1)
  })
})

it('no token, no part of one and no secret is in any output', async () => {
  await hello(await sign({ aud: 'others' }))
  await until(() => h.gateway.stdout.some((line) => line.includes('"audit":true')))
  expectNothingTold(h)
})
