// The checks hold our gateway against the protocol; and each of them fails where its promise is broken.
import { createHmac, randomBytes } from 'node:crypto'
import { Jobs } from '@jobs/state'
import {
  fromSource,
  startApp,
  startProcess,
  startTestRedis,
  type TestApp,
  type TestRedis,
} from '@jobs/testkit'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { CHECKS } from '../src/checks/index.ts'
import type { Message } from '../src/client.ts'
import type { Driver } from '../src/driver.ts'
import { redisDriver } from '../src/redis-driver.ts'
import { type Check, type Result, run, type TokenOptions } from '../src/run.ts'
import { type Mutation, startMutant } from './mutant.ts'

const SECRET = 'a secret of more than thirty-two bytes'
const namespace = `t${randomBytes(4).toString('hex')}`
const urlOf = (gateway: TestApp) => `ws://127.0.0.1:${gateway.port}/v1/ws`

let redis: TestRedis
/** One for everybody, and one that asks for tokens. */
let open: TestApp
let guarded: TestApp
let driver: Driver
let minter: Jobs

const start = (env: Record<string, string>) =>
  startApp('apps/gateway/src/main.ts', {
    REDIS_URL: redis.url,
    JOBS_NAMESPACE: namespace,
    GATEWAY_PORT: '0',
    GATEWAY_OPS_PORT: '0',
    GATEWAY_HEARTBEAT_MS: '4000',
    LOG_LEVEL: 'info',
    ...env,
  })

beforeAll(async () => {
  redis = await startTestRedis()
  driver = await redisDriver({ url: redis.url, namespace, partitions: 1 })
  minter = new Jobs({ url: redis.url, namespace, tokens: { algorithm: 'HS256', secret: SECRET } })
  open = await start({})
  guarded = await start({
    GATEWAY_AUTH: 'jwt',
    GATEWAY_JWT_ALGORITHM: 'HS256',
    GATEWAY_JWT_SECRET: SECRET,
  })
})
afterAll(async () => {
  await minter?.close()
  await driver?.close()
  for (const gateway of [open, guarded]) await gateway?.kill('SIGKILL')
  await redis?.stop()
})

const token = async (of: string[] = ['*'], options: TokenOptions = {}): Promise<string> => {
  const tags = of.filter((name) => name.startsWith('tag:')).map((name) => name.slice(4))
  const jobs = of.filter((name) => !name.startsWith('tag:'))
  const { lifeSeconds = 900, id } = options
  const given = {
    jobs: jobs.includes('*') ? '*' : jobs,
    tags,
    ...(id === undefined ? {} : { jti: id }),
  } as const
  if (lifeSeconds > 0) return (await minter.token({ ...given, lifeMs: lifeSeconds * 1_000 })).token
  // Nobody mints one that is over.
  const encode = (part: object) => Buffer.from(JSON.stringify(part)).toString('base64url')
  const exp = Math.floor(Date.now() / 1_000) + lifeSeconds
  const text = `${encode({ alg: 'HS256' })}.${encode({ jobs: '*', aud: 'jobs', exp })}`
  return `${text}.${createHmac('sha256', SECRET).update(text).digest('base64url')}`
}

const hold = (
  checks: readonly Check[],
  url: string,
  { tokens, waitMs, drain }: { tokens: boolean; waitMs: number; drain?: () => Promise<void> },
): Promise<Result[]> =>
  run(checks, {
    url,
    driver: drain ? { ...driver, drain } : driver,
    token: tokens ? token : undefined,
    tokenPerJob: tokens,
    waitMs,
    patienceMs: 60_000,
  })

const ended = (results: Result[], as: Result['outcome']) =>
  results.filter(({ outcome }) => outcome === as).map(({ name, why }) => `${name}: ${why}`)

/** Checks that need a gateway that asks for tokens. */
const OF_TOKENS = [
  'hello/token',
  'hello/in-time',
  'promise/5-unknown-is-forbidden',
  'token/refresh',
  'token/expired',
  'token/revoked',
]
const SHAKING = CHECKS.filter(({ alone }) => alone)
const OTHERS = CHECKS.filter(({ alone }) => !alone)
const DRAINING = 'trouble/draining'

describe('our gateway', () => {
  it('keeps every promise where it asks for tokens', async () => {
    const results = await hold(OTHERS, urlOf(guarded), { tokens: true, waitMs: 15_000 })
    expect([ended(results, 'fail'), ended(results, 'skip')]).toEqual([[], []])
  })

  it('keeps its promises through trouble with Redis, and to its end', async () => {
    const gateway = await start({})
    const drain = async () => void gateway.kill('SIGTERM')
    const results = await hold(SHAKING, urlOf(gateway), { tokens: false, waitMs: 15_000, drain })
    expect(results.map(({ outcome, why }) => why ?? outcome)).toEqual(SHAKING.map(() => 'pass'))
    expect((await gateway.exited).code).toBe(0)
  })

  it('is not said to have drained where nobody can tell it to', async () => {
    const checks = SHAKING.filter(({ name }) => name === DRAINING)
    const results = await hold(checks, urlOf(open), { tokens: false, waitMs: 15_000 })
    expect(ended(results, 'skip')).toEqual([
      `${DRAINING}: needs a hand on the gateway (give --drain-command)`,
    ])
  })

  it('keeps all but those of tokens where it asks for none, also through a proxy that changes nothing', async () => {
    const mutant = await startMutant(open.port, {})
    const results = await hold(OTHERS, mutant.url, { tokens: false, waitMs: 15_000 })
    await mutant.close()
    expect(ended(results, 'fail')).toEqual([])
    expect(results.filter(({ outcome }) => outcome === 'skip').map(({ name }) => name)).toEqual(OF_TOKENS)
  })

  it('keeps them told by the program, its jobs driven by another program', async () => {
    const node = [process.execPath, ...fromSource('packages/conformance/src/redis-driver-main.ts')]
    const program = startProcess(process.execPath, [
      ...fromSource('packages/conformance/src/main.ts'),
      urlOf(open),
      '--driver',
      [...node, redis.url, namespace].map((word) => `'${word}'`).join(' '),
      '--only',
      'subscribe,resume,promise/2-in-order-once',
      '--wait',
      '15000',
      '--json',
    ])
    expect(await program.exited).toEqual({ code: 0, signal: null })
    const results = JSON.parse(program.stdout.join('\n')) as Result[]
    expect(results.map(({ outcome }) => outcome)).toEqual(results.map(() => 'pass'))
    expect(results.length).toBeGreaterThan(15)
  })
})

const only =
  (type: string, change: (message: Message) => Message[]) =>
  (): ((message: Message) => Message[]) =>
  (message) =>
    message.type === type ? change(message) : [message]
/** Only the nth message of this type on a connection. */
const nth =
  (n: number, type: string, change: (message: Message) => Message[]) =>
  (): ((message: Message) => Message[]) => {
    let seen = 0
    return (message) => (message.type === type && ++seen === n ? change(message) : [message])
  }
const changed = (fields: object) => (message: Message) => [{ ...message, ...fields }]
const without = (field: string) => (message: Message) => {
  const { [field]: _, ...rest } = message
  return [rest as Message]
}
const omitted = () => []
const doubled = (message: Message) => [message, message]
/** Two messages in the wrong order. */
const swapped = (first: string, second: string) => (): ((message: Message) => Message[]) => {
  let held: Message[] = []
  return (message) => {
    if (message.type === first && held.length === 0) {
      held = [message]
      return []
    }
    const late = held
    if (message.type === second) held = []
    return message.type === second ? [message, ...late] : [message]
  }
}
const answered = (on: string, status: number) => ({
  answer: (answer: { status: number; body: string }, path: string) =>
    path.startsWith(on) ? { ...answer, status } : answer,
})

/** What breaks which check, and what it then says. */
const MUTATIONS: [check: string, what: string, mutation: Mutation, why: RegExp][] = [
  ['handshake/subprotocol', 'selects none', { protocol: () => false }, /selected|accepted/],
  [
    'handshake/unknown-subprotocol',
    'says nothing',
    { answer: (a) => ({ ...a, body: '' }) },
    /names jobs\.v1\.json/,
  ],
  [
    'handshake/bearer-not-echoed',
    'echoes the first',
    { protocol: (offered) => [...offered][0] ?? false },
    /only jobs/,
  ],
  ['handshake/no-upgrade', 'answers 200', answered('/v1/ws', 200), /HTTP 426; seen: 200/],
  ['handshake/wrong-path', 'answers 200', answered('/v1/elsewhere', 200), /HTTP 404; seen: 200/],
  ['handshake/version', 'answers 400', answered('/v1/ws', 400), /HTTP 426/],
  ['handshake/token-in-query', 'answers 200', answered('/v1/ws', 200), /HTTP 400; seen: 200/],
  [
    'hello/welcome',
    'tells seconds',
    { messages: only('welcome', (m) => [{ ...m, time: Math.round(m.time / 1e3) }]) },
    /the time/,
  ],
  [
    'hello/welcome',
    'comes second',
    { messages: only('welcome', (m) => [{ type: 'heartbeat' }, m]) },
    /is the first message/,
  ],
  ['hello/once', 'takes another', { messages: only('error', omitted) }, /`error` comes within/],
  ['messages/ping', 'forgets the id', { messages: only('pong', without('id')) }, /the id comes back/],
  ['messages/array', 'answers in another order', { messages: swapped('pong', 'error') }, /`pong` comes next/],
  [
    'messages/bad-request',
    'has a code of its own',
    { messages: only('error', changed({ code: 'BAD' })) },
    /fits its schema; code/,
  ],
  [
    'messages/bad-request',
    'lets try again',
    { messages: only('error', changed({ retryable: true })) },
    /bad_request for/,
  ],
  [
    'messages/too-many-errors',
    'closes with another code',
    { close: (code) => (code === 4010 ? 4000 : code) },
    /4010; seen: 4000/,
  ],
  ['messages/binary', 'closes as if all were well', { close: () => 1000 }, /1003; seen: 1000/],
  [
    'messages/unsubscribe-unknown',
    'blames itself',
    { messages: only('error', changed({ code: 'internal' })) },
    /not_found/,
  ],
  ['limits/message-bytes', 'closes with another code', { close: () => 1011 }, /1009 or 4009; seen: 1011/],
  [
    'limits/jobs-per-subscribe',
    'tells too little',
    { messages: only('welcome', (m) => [{ ...m, limits: { ...m.limits, jobsPerSubscribe: 50 } }]) },
    /bad_request with the id/,
  ],
  [
    'limits/subscriptions',
    'has another code',
    { messages: only('error', changed({ code: 'rate_limited' })) },
    /limit_exceeded for the last/,
  ],
  [
    'limits/commands',
    'tells too much',
    { messages: only('welcome', (m) => [{ ...m, limits: { ...m.limits, commandBurst: 150 } }]) },
    /the first 150 are answered/,
  ],
  [
    'heartbeat/both',
    'sends no message',
    { messages: only('heartbeat', omitted) },
    /`heartbeat` comes within/,
  ],
  ['heartbeat/no-pong', 'closes with another code', { close: () => 4200 }, /4202; seen: 4200/],
  ['subscribe/snapshot-live', 'omits live', { messages: only('live', omitted) }, /`live` comes within/],
  [
    'subscribe/snapshot-live',
    'says live first',
    { messages: swapped('snapshot', 'live') },
    /after the replay/,
  ],
  ['subscribe/events', 'drops an event', { messages: nth(2, 'events', omitted) }, /go on from 2/],
  ['subscribe/events', 'doubles an event', { messages: nth(2, 'events', doubled) }, /go on from 3/],
  [
    'subscribe/events',
    'tells another range',
    { messages: nth(1, 'events', (m) => [{ ...m, to: m.to + 1 }]) },
    /account for|go on/,
  ],
  [
    'subscribe/events',
    'changes a value',
    {
      messages: only('events', (m) => [
        { ...m, items: m.items.map((i: Message) => (i.type === 'log' ? { ...i, line: 'other' } : i)) },
      ]),
    },
    /the line told/,
  ],
  ['subscribe/events', 'omits complete', { messages: only('complete', omitted) }, /`complete` comes within/],
  [
    'subscribe/history',
    'begins later',
    { messages: only('events', (m) => [{ ...m, from: 2, items: m.items.slice(1) }]) },
    /go on from 0/,
  ],
  [
    'subscribe/several',
    'forgets the id',
    { messages: only('snapshot', without('id')) },
    /all answers comes within/,
  ],
  [
    'subscribe/twice',
    'has another code',
    { messages: only('error', changed({ code: 'not_found' })) },
    /already_subscribed with/,
  ],
  ['subscribe/unknown', 'does not say which', { messages: only('error', without('job')) }, /not_found/],
  ['subscribe/late', 'omits complete', { messages: only('complete', omitted) }, /`complete` comes within/],
  [
    'subscribe/detail-state',
    'does not account for what it leaves out',
    { messages: only('events', without('conflated')) },
    /account for/,
  ],
  [
    'subscribe/detail-latest',
    'leaves out the last, too',
    {
      messages: only('events', (m) => [
        { ...m, items: m.items.slice(0, -1), conflated: (m.conflated ?? 0) + 1 },
      ]),
    },
    /the last/,
  ],
  [
    'subscribe/unsubscribe',
    'tells on',
    { messages: only('unsubscribed', (m) => [m, { type: 'live', job: m.job, cursor: '1-1' }]) },
    /not watched/,
  ],
  [
    'resume/every-position',
    'alters the cursor',
    { messages: only('live', changed({ cursor: '1-1' })) },
    /at the last cursor/,
  ],
  [
    'resume/every-position',
    'starts over',
    { messages: only('live', (m) => [{ type: 'reset', job: m.job, reason: 'trimmed' }, m]) },
    /after the replay/,
  ],
  [
    'resume/cursor-told',
    'alters the cursor',
    { messages: only('events', (m) => [{ ...m, cursor: `${m.to}-1` }]) },
    /can be continued/,
  ],
  [
    'resume/ended',
    'omits complete',
    { messages: nth(1, 'complete', (m) => (m.id ? [m] : [])) },
    /comes within/,
  ],
  [
    'resume/ahead',
    'gives another reason',
    { messages: only('reset', changed({ reason: 'diverged' })) },
    /reset: ahead/,
  ],
  [
    'resume/diverged',
    'does not say so',
    { messages: only('reset', omitted) },
    /comes first, or after a reset/,
  ],
  [
    'resume/too-far',
    'has a reason of its own',
    { messages: only('reset', changed({ reason: 'far' })) },
    /fits its schema; reason/,
  ],
  ['resume/trimmed', 'omits the snapshot', { messages: only('snapshot', omitted) }, /after the replay/],
  ['promise/2-in-order-once', 'drops an event', { messages: nth(3, 'events', omitted) }, /go on from/],
  ['promise/2-in-order-once', 'doubles an event', { messages: nth(3, 'events', doubled) }, /go on from/],
  [
    'promise/3-state-kept',
    'folds a change of state',
    {
      messages: only('events', (m) => {
        const items = m.items.filter((i: Message) => i.state !== 'PROCESSING')
        const left = m.items.length - items.length
        return left ? [{ ...m, items, conflated: (m.conflated ?? 0) + left }] : [m]
      }),
    },
    /both changes of state/,
  ],
  ['promise/4-complete-once', 'completes twice', { messages: only('complete', doubled) }, /not watched/],
  [
    'promise/4-complete-once',
    'completes first',
    {
      messages: () => {
        const passed = nth(99, 'events', omitted)()
        return (m) =>
          m.type === 'events' && m.items.some((i: Message) => i.state === 'COMPLETED')
            ? [{ type: 'complete', job: m.job, state: 'COMPLETED', cursor: m.cursor }, m]
            : passed(m)
      },
    },
    /after the terminal event/,
  ],
  ['hello/token', 'closes with another code', { close: () => 4000 }, /4100; seen: 4000/],
  ['hello/in-time', 'closes with another code', { close: () => 4100 }, /4201; seen: 4100/],
  [
    'promise/5-unknown-is-forbidden',
    'tells them apart',
    { messages: nth(1, 'error', changed({ message: 'Not yours.' })) },
    /the same not_found/,
  ],
  ['subscribe/tag', 'drops a change', { messages: nth(2, 'job', omitted) }, /every change, once/],
  ['subscribe/tag', 'doubles a change', { messages: nth(2, 'job', doubled) }, /every change, once/],
  [
    'subscribe/tag',
    'counts otherwise',
    { messages: only('counts', (m) => [{ ...m, counts: { ...m.counts, QUEUED: 2 } }]) },
    /of one job/,
  ],
  [
    'http/snapshot',
    'answers 200 to all',
    { answer: (a, path) => (path.startsWith('/v1/jobs/') ? { ...a, status: 200 } : a) },
    /HTTP 304|HTTP 404/,
  ],
  [
    'http/events',
    'says nothing of the end',
    { answer: (a) => ({ ...a, body: a.body.replaceAll('"complete"', '"done"') }) },
    /snapshot and complete/,
  ],
  [
    'promise/6-no-harm',
    'tells nobody',
    { messages: only('complete', omitted) },
    /though another does not read/,
  ],
  [
    'token/refresh',
    'says nothing of the end',
    { messages: only('expiring', omitted) },
    /`expiring` comes within/,
  ],
  [
    'token/refresh',
    'begins anew after the end',
    { messages: only('error', changed({ code: 'rate_limited', retryable: true })) },
    /token_expired with the id/,
  ],
  ['token/expired', 'closes with another code', { close: () => 4100 }, /4101; seen: 4100/],
  ['token/revoked', 'closes with another code', { close: () => 4101 }, /4102; seen: 4101/],
  [
    'trouble/redis-recovered',
    'has another reason',
    { messages: only('reset', changed({ reason: 'ahead' })) },
    /redis_recovered; seen/,
  ],
  [
    'trouble/redis-recovered',
    'goes on as if nothing were lost',
    { messages: only('reset', omitted) },
    /snapshot comes first, or after a reset/,
  ],
  [
    'trouble/unavailable',
    'says that there is no use in trying again',
    { messages: only('error', (m) => [{ ...m, retryable: false }]) },
    /unavailable, retryable/,
  ],
  [DRAINING, 'does not announce it', { messages: only('draining', omitted) }, /`draining` comes/],
  [DRAINING, 'closes with another code', { close: () => 1001 }, /4300; seen: 1001/],
]
const isShaking = ([name]: (typeof MUTATIONS)[number]) => SHAKING.some((check) => check.name === name)

describe('a gateway that breaks a promise', () => {
  it.concurrent.each(MUTATIONS.filter((mutation) => !isShaking(mutation)))(
    'fails %s when it %s',
    async (name, _, mutation, why) => {
      const tokens = OF_TOKENS.includes(name)
      const mutant = await startMutant((tokens ? guarded : open).port, mutation)
      const checks = CHECKS.filter((check) => check.name === name)
      const [result] = await hold(checks, mutant.url, { tokens, waitMs: 3_000 })
      await mutant.close()
      expect(result).toMatchObject({ name, outcome: 'fail', why: expect.stringMatching(why) })
    },
  )

  it.each(MUTATIONS.filter(isShaking))('fails %s when it %s', async (name, _, mutation, why) => {
    const own = name === DRAINING ? await start({}) : undefined
    const mutant = await startMutant((own ?? open).port, mutation)
    const checks = SHAKING.filter((check) => check.name === name)
    const drain = async () => void own?.kill('SIGTERM')
    const [result] = await hold(checks, mutant.url, { tokens: false, waitMs: 3_000, drain })
    await mutant.close()
    await own?.kill('SIGKILL')
    expect(result).toMatchObject({ name, outcome: 'fail', why: expect.stringMatching(why) })
  })

  it('is there for each check', () => {
    const broken = new Set(MUTATIONS.map(([name]) => name))
    expect(CHECKS.map(({ name }) => name).filter((name) => !broken.has(name))).toEqual([])
  })
})
