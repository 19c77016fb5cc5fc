// Tokens: every way to bring one, every way to bring a wrong one, and their life until it ends or is ended.
import { createHmac, generateKeyPairSync, randomBytes } from 'node:crypto'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { openWatcher, startApp, type TestApp, until, type Watcher } from '@jobs/testkit'
import { SignJWT } from 'jose'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { dial } from './dial.ts'
import { type Harness, startHarness } from './harness.ts'

const SECRET = randomBytes(32).toString('base64url')
const key = Buffer.from(SECRET)
const JWT = { GATEWAY_AUTH: 'jwt', GATEWAY_JWT_ALGORITHM: 'HS256', GATEWAY_JWT_SECRET: SECRET }
const now = () => Math.floor(Date.now() / 1_000)

let h: Harness
const secrets: string[] = [SECRET]
beforeAll(async () => {
  h = await startHarness({ env: { ...JWT, GATEWAY_JWT_ISSUER: 'us', LOG_LEVEL: 'trace' } })
})
afterAll(() => h.stop())

/** A token that is as it should be, but for what is said. Undefined leaves a claim out. */
const sign = async (claims: object = {}, header: object = {}, by: Uint8Array = key): Promise<string> => {
  const all = { jobs: '*', aud: 'jobs', iss: 'us', sub: 'ann', iat: now(), exp: now() + 600, ...claims }
  const jwt = new SignJWT(JSON.parse(JSON.stringify(all)))
  const token = await jwt
    .setProtectedHeader({ alg: 'HS256', ...header })
    .sign(by, { crit: { 'x-ours': true } })
  secrets.push(token)
  return token
}
const encode = (part: object) => Buffer.from(JSON.stringify(part)).toString('base64url')
/** Signed by hand, as no library would. */
const forge = (header: object, by: string | Buffer = SECRET): string => {
  const text = `${encode(header)}.${encode({ jobs: '*', aud: 'jobs', iss: 'us', exp: now() + 600 })}`
  const token = `${text}.${createHmac('sha256', by).update(text).digest('base64url')}`
  secrets.push(token)
  return token
}

const connect = () => openWatcher(h.url())
const hello = async (token: string): Promise<Watcher> => {
  const watcher = await connect()
  watcher.send({ type: 'hello', token })
  return watcher
}
const welcomed = async (claims: object = {}): Promise<Watcher> => {
  const watcher = await hello(await sign(claims))
  await watcher.next('welcome')
  return watcher
}

describe('a token', () => {
  it('comes in hello, and what follows it at once is answered after the welcome', async () => {
    const id = await h.enqueue()
    const exp = now() + 600
    const watcher = await connect()
    watcher.send([
      { type: 'hello', token: await sign({ exp, jobs: [id] }) },
      { type: 'ping', id: 'a' },
    ])
    watcher.send({ type: 'subscribe', job: id })
    await watcher.next('live')
    expect(watcher.messages.map(({ type }) => type)).toEqual(['welcome', 'pong', 'snapshot', 'live'])
    expect(watcher.messages[0]).toMatchObject({ expiresAt: exp * 1_000 })
    watcher.terminate()
  })

  it.each([
    ['as Authorization header', async () => ({ headers: { authorization: `Bearer ${await sign()}` } })],
    ['as second subprotocol', async () => ({ protocols: ['jobs.v1.json', `bearer.${await sign()}`] })],
    ['as first subprotocol', async () => ({ protocols: [`bearer.${await sign()}`, 'jobs.v1.json'] })],
  ] as [string, () => Promise<{ headers?: Record<string, string>; protocols?: string[] }>][])(
    'comes %s, is welcomed at once and never echoed',
    async (_, how) => {
      const { protocols, headers } = await how()
      const watcher = await openWatcher(h.url(), protocols, headers)
      expect(watcher.socket.protocol).toBe('jobs.v1.json')
      expect(await watcher.next()).toMatchObject({ type: 'welcome', expiresAt: expect.any(Number) })
      watcher.send({ type: 'hello' })
      watcher.send({ type: 'ping' })
      expect(await watcher.next()).toMatchObject({ type: 'pong' })
      watcher.terminate()
    },
  )

  it('made by @jobs/state is taken', async () => {
    const backend = await startHarness({ env: JWT })
    const { Jobs } = await import('@jobs/state')
    const { url, namespace } = backend.jobs.options
    const jobs = new Jobs({ url, namespace, tokens: { algorithm: 'HS256', secret: SECRET } })
    const { anyJob } = await import('./harness.ts')
    const { id, token } = await jobs.enqueue(anyJob, 1, { token: true })
    const watcher = await openWatcher(backend.url(), ['jobs.v1.json', `bearer.${token}`])
    watcher.send({ type: 'subscribe', job: id })
    expect(await watcher.next('snapshot')).toMatchObject({ job: id, state: 'QUEUED' })
    watcher.terminate()
    await jobs.close()
    await backend.stop()
  })
})

describe('is refused, with 4100 in hello and 401 before the upgrade:', () => {
  const rsa = generateKeyPairSync('rsa', { modulusLength: 2_048 })
  const pem = rsa.publicKey.export({ type: 'spki', format: 'pem' })
  it.each<[string, () => string | Promise<string>]>([
    ['no algorithm', () => `${encode({ alg: 'none' })}.${encode({ jobs: '*', exp: now() + 600 })}.`],
    ['HS256 with a public key', () => forge({ alg: 'HS256' }, pem as Buffer)],
    ['another secret', () => sign({}, {}, randomBytes(32))],
    ['another algorithm', () => sign({}, { alg: 'HS512' })],
    ['a key of its own', () => forge({ alg: 'HS256', jwk: { kty: 'oct', k: 'AAAA' } }, Buffer.alloc(3))],
    ['a key at an address of its own', () => forge({ alg: 'HS256', jku: 'http://127.0.0.1:1/' }, 'x')],
    ['no exp', () => sign({ exp: undefined })],
    ['exp as a string', () => sign({ exp: String(now() + 600) })],
    ['nbf in the future', () => sign({ nbf: now() + 60 })],
    ['iat in the future', () => sign({ iat: now() + 60 })],
    ['a wrong aud', () => sign({ aud: 'others' })],
    ['no aud', () => sign({ aud: undefined })],
    ['a wrong iss', () => sign({ iss: 'them' })],
    ['no iss', () => sign({ iss: undefined })],
    ['a life of two days', () => sign({ exp: now() + 172_800 })],
    ['another namespace', () => sign({ ns: 'elsewhere' })],
    ['jobs that are no list', () => sign({ jobs: 7 })],
    ['a job that is no id', () => sign({ jobs: ['a}b'] })],
    ['an unknown crit', () => forge({ alg: 'HS256', crit: ['x-theirs'], 'x-theirs': 1 })],
    ['a kid of 10 KB', () => sign({}, { kid: 'k'.repeat(7_500) })],
    ['a JWE', () => `${encode({ alg: 'dir', enc: 'A256GCM' })}..a.b.c`],
    ['half a token', async () => (await sign()).slice(0, -20)],
    ['two dots', () => '..'],
    ['words', () => 'let-me-in'],
  ])('%s', async (_, make) => {
    const token = await make()
    const watcher = await hello(token)
    expect((await watcher.closed).code).toBe(4100)
    expect(watcher.messages).toMatchObject([{ type: 'error', code: 'unauthorized' }])
    expect((await dial(h.gateway.port, { headers: { authorization: `Bearer ${token}` } })).status).toBe(401)
  })

  it('an empty one', async () => {
    expect((await (await hello('')).closed).code).toBe(4100)
    for (const authorization of ['Bearer', 'Bearer ', 'Basic YTpi'])
      expect((await dial(h.gateway.port, { headers: { authorization } })).status).toBe(401)
  })

  it('an expired one, as such, with 4101', async () => {
    const token = await sign({ iat: now() - 700, exp: now() - 10 })
    const watcher = await hello(token)
    expect((await watcher.closed).code).toBe(4101)
    expect(watcher.messages).toMatchObject([{ code: 'token_expired' }])
    expect((await dial(h.gateway.port, { headers: { authorization: `Bearer ${token}` } })).status).toBe(401)
  })
})

describe('a request', () => {
  it('with several tokens is refused', async () => {
    const [one, two] = [await sign(), await sign()]
    for (const headers of [
      { authorization: `Bearer ${one}`, 'sec-websocket-protocol': `jobs.v1.json, bearer.${two}` },
      { 'sec-websocket-protocol': `jobs.v1.json, bearer.${one}, bearer.${two}` },
    ])
      expect((await dial(h.gateway.port, { headers })).status).toBe(400)
  })

  it('with a token of 1 MB is refused with 431', async () => {
    const headers = { authorization: `Bearer ${'x'.repeat(1_000_000)}` }
    expect([431, 0]).toContain((await dial(h.gateway.port, { headers })).status)
  })

  it('with a token in the query is refused, whatever the parameter is called', async () => {
    const token = await sign()
    for (const query of [`token=${token}`, `access_token=x`, `t=${token}`, `a=b&%74oken=x`])
      expect((await fetch(`http://127.0.0.1:${h.gateway.port}/v1/ws?${query}`)).status).toBe(400)
  })
})

describe('a client that has not said hello', () => {
  it('is answered unauthorized, ten times, and closed with 4010', async () => {
    const watcher = await connect()
    watcher.send({ type: 'subscribe', job: 'a', id: 's' })
    expect(await watcher.next()).toMatchObject({ type: 'error', code: 'unauthorized', id: 's' })
    watcher.send({ type: 'hello' })
    for (let i = 0; i < 8; i++) watcher.send({ type: 'ping' })
    expect((await watcher.closed).code).toBe(4010)
    expect(watcher.messages.every(({ code }) => code === 'unauthorized')).toBe(true)
  })

  it('is closed with 4201 after 5 s', async () => {
    const began = performance.now()
    expect((await (await connect()).closed).code).toBe(4201)
    expect(performance.now() - began).toBeGreaterThan(4_900)
  })
})

describe('what is not granted', () => {
  /** What a client is answered, and what Redis is asked for meanwhile. */
  const asked = async (watcher: Watcher, job: string) => {
    const monitor = await h.redis.client().duplicate().monitor()
    const commands: string[] = []
    monitor.on('monitor', (_: string, args: string[]) => commands.push(args.join(' ')))
    watcher.send({ type: 'subscribe', job })
    const { job: of, ...answer } = await watcher.next('error')
    expect(of).toBe(job)
    // What Redis was asked before this was heard before it.
    await h.redis.client().echo('end')
    await until(() => commands.includes('echo end'))
    monitor.disconnect()
    return { answer, commands: commands.filter((command) => command.includes(job)) }
  }

  it('is answered as if it were not there, and Redis is asked for neither', async () => {
    const [mine, foreign] = [await h.enqueue(), await h.enqueue()]
    const watcher = await welcomed({ jobs: [mine] })
    const there = await asked(watcher, foreign)
    const missing = await asked(watcher, `${foreign.slice(0, -4)}AAAA`)
    expect(there).toEqual(missing)
    expect(there.answer).toMatchObject({ code: 'not_found' })
    expect(there.commands).toEqual([])
    await until(() =>
      h.gateway.stdout.some((line) => line.includes('"what":"job"') && line.includes(foreign)),
    )
    watcher.terminate()
  })

  it('ends when a refresh covers less, and the rest goes on', async () => {
    const [kept, lost] = [await h.enqueue(), await h.enqueue()]
    const watcher = await welcomed({ jobs: [kept, lost] })
    watcher.send({ type: 'subscribe', jobs: [kept, lost] })
    await watcher.next('live')
    await watcher.next('live')
    watcher.send({ type: 'refresh', token: await sign({ jobs: [kept] }) })
    expect(await watcher.next('unsubscribed')).toEqual({ type: 'unsubscribed', job: lost, code: 'not_found' })
    watcher.send({ type: 'subscribe', job: lost })
    expect(await watcher.next('error')).toMatchObject({ code: 'not_found', job: lost })
    for (const id of [lost, kept]) await h.claim(id)
    expect(await watcher.next('events')).toMatchObject({ job: kept })
    watcher.terminate()
  })
})

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

describe('what is revoked', () => {
  it('is closed with 4102 within a second at every gateway, and refused from then on', async () => {
    const other = await h.anotherGateway()
    const tokens = { one: await sign({ jti: 'one' }), two: await sign({ jti: 'two' }) }
    const open = (token: string, port = h.gateway.port) =>
      openWatcher(`ws://127.0.0.1:${port}/v1/ws`, ['jobs.v1.json', `bearer.${token}`])
    const [here, there] = [await open(tokens.one), await open(tokens.one, other.port)]
    const spared = await open(tokens.two)
    const began = performance.now()
    await h.jobs.revoke({ jti: 'one' })
    expect([(await here.closed).code, (await there.closed).code]).toEqual([4102, 4102])
    expect(performance.now() - began).toBeLessThan(1_000)
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

describe('a tag', () => {
  it('is watched by a token that names it, until one comes that does not; by no other', async () => {
    const watcher = await welcomed({ sub: 'tess', jobs: [], tags: ['mine'] })
    watcher.send({ type: 'subscribe', tag: 'mine' })
    expect(await watcher.next('counts')).toMatchObject({ tag: 'mine' })
    watcher.send({ type: 'subscribe', tag: 'other', id: 'o' })
    expect(await watcher.next('error')).toMatchObject({ code: 'not_found', tag: 'other', id: 'o' })
    watcher.send({ type: 'refresh', token: await sign({ sub: 'tess', jobs: [], tags: [] }) })
    expect(await watcher.next('unsubscribed')).toMatchObject({ tag: 'mine', code: 'not_found' })
    watcher.terminate()
    const audited = () => h.gateway.stdout.some((line) => line.includes('"tag":"other"'))
    await until(audited, { what: 'the line of the audit log' })
  })
})

describe('over plain HTTP', () => {
  const get = (path: string, token?: string) =>
    fetch(`http://127.0.0.1:${h.gateway.port}${path}`, {
      headers: token === undefined ? {} : { authorization: `Bearer ${token}` },
    })

  it('a job is told to a token that covers it; to no other, in the words of an unknown one', async () => {
    const [mine, other] = [await h.enqueue(), await h.enqueue()]
    const token = await sign({ jobs: [mine] })
    expect((await get(`/v1/jobs/${mine}`, token)).status).toBe(200)
    const answers = await Promise.all(
      [`/v1/jobs/${other}`, '/v1/jobs/nobody', `/v1/jobs/${other}/events`].map(async (path) => {
        const response = await get(path, token)
        return [response.status, await response.json()]
      }),
    )
    expect(answers[0]).toEqual([404, expect.objectContaining({ code: 'not_found' })])
    expect(new Set(answers.map((answer) => JSON.stringify(answer))).size).toBe(1)
  })

  it('no token and a wrong one are 401', async () => {
    const id = await h.enqueue()
    for (const path of [`/v1/jobs/${id}`, `/v1/jobs/${id}/events`])
      for (const token of [undefined, 'x.y.z']) {
        const response = await get(path, token)
        expect([response.status, response.headers.get('www-authenticate')]).toEqual([401, 'Bearer'])
      }
  })

  it('a stream ends when its token is revoked', async () => {
    const id = await h.enqueue()
    const response = await get(`/v1/jobs/${id}/events`, await sign({ jti: 'streaming', jobs: [id] }))
    expect(response.status).toBe(200)
    await h.jobs.revoke({ jti: 'streaming' })
    expect(await response.text()).toContain('"type":"live"')
  })
})

it('a client that goes while its token is judged takes nothing with it', async () => {
  const bad = await sign({}, {}, randomBytes(32))
  for (let i = 0; i < 20; i++) {
    const asked = dial(h.gateway.port, { headers: { authorization: `Bearer ${bad}` } })
    const watcher = await hello(bad)
    watcher.socket.terminate()
    await asked
  }
  const watcher = await welcomed()
  watcher.terminate()
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
    const { connect } = await import('node:net')
    for (let i = 0; i < 20; i++) {
      const socket = connect(gateway.port, '127.0.0.1')
      socket.on('error', () => undefined)
      const head = `GET /v1/ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n`
      const more = `Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nAuthorization: Bearer ${token}\r\n\r\n`
      await new Promise<void>((resolve) => socket.write(head + more, () => resolve()))
      socket.resetAndDestroy()
    }
    expect((await gone).status).toBe(503)
    expect(performance.now() - began).toBeLessThan(3_500)
    for (let i = 0; i < 5; i++) expect(await status(token)).toBe(503)
    expect(fetched).toBe(1)
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
  const output = [...h.gateway.stdout, ...h.gateway.stderr].join('\n')
  expect(output).toContain('"audit":true')
  for (const secret of secrets) {
    expect(output).not.toContain(secret)
    const signature = secret.split('.')[2]
    if (signature) expect(output).not.toContain(signature)
  }
})
