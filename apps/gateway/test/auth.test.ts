// Tokens: every way to bring one, every way to bring a wrong one, and what each lets watch.
import { generateKeyPairSync, randomBytes } from 'node:crypto'
import { openWatcher, until, type Watcher } from '@jobs/testkit'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { dial } from './dial.ts'
import { type Harness, startHarness } from './harness.ts'
import {
  encode,
  expectNothingTold,
  forge,
  type Guarded,
  JWT,
  now,
  SECRET,
  sign,
  startGuarded,
} from './tokens.ts'

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

const connect = () => openWatcher(h.url())

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

it('a cookie is no token, whatever is in it', async () => {
  const token = await sign()
  for (const cookie of [`token=${token}`, `authorization=Bearer ${token}`, `session=${token}`]) {
    expect((await get('/v1/jobs/a', undefined, { cookie })).status).toBe(401)
    const watcher = await openWatcher(h.url(), ['jobs.v1.json'], { cookie })
    watcher.send({ type: 'ping' })
    expect(await watcher.next()).toMatchObject({ type: 'error', code: 'unauthorized' })
    watcher.terminate()
  }
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

it('no token, no part of one and no secret is in any output', () => expectNothingTold(h))
