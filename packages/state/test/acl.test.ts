// The users of docs/redis-schema.md: each process does its whole work with the lines that stand there, on every engine and
// on a cluster, nothing more is granted than it uses, and what is not its part is refused.
import { checkLayout, connectJobs, defineJob, Jobs, keysOf, RedisLink, Worker } from '@jobs/state'
import {
  ENGINES,
  type Engine,
  engineMissing,
  startCluster,
  startTestRedis,
  type TestRedis,
  until,
} from '@jobs/testkit'
import type { Redis } from 'ioredis'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { busyDay, type Processes, ROLES, type Role } from './busy.ts'
import { aclUnder, oneNameOnly } from './schema-doc.ts'

const NAMESPACE = 'acl'
const PARTITIONS = 2
const NEWER = 'Redis 7.2 and later, and Valkey'
/** What a reaper and an operator need to mend what is broken. */
const REPAIR = 'Repair'

const userOf = (role: Role) => `${NAMESPACE}-${role}`
const asUser = (url: string, user: string) => url.replace('://', `://${user}:secret@`)

const grant = async (client: Redis, headings: readonly string[]) => {
  const version = /^redis_version:(\d+)\.(\d+)/m.exec(await client.info('server'))
  const newer = Number(version?.[1]) > 7 || Number(version?.[2]) >= 2
  for (const heading of newer ? [...headings, NEWER] : headings) {
    const lines = aclUnder(heading, NAMESPACE, 'secret')
    expect(lines, heading).not.toEqual([])
    for (const line of lines) await client.call('ACL', ...line)
  }
}

const connect = async (url: string, client?: Redis): Promise<Processes> => {
  const as = {} as Processes
  for (const role of ROLES) {
    const options = {
      url: asUser(url, userOf(role)),
      namespace: NAMESPACE,
      partitions: PARTITIONS,
      connectionName: role,
      onFinding: () => undefined,
    }
    // Whoever comes first writes the layout: each of them may be it.
    await client?.del(keysOf(NAMESPACE, 0).layout)
    // A gateway writes nothing, the layout neither.
    as[role] = role === 'gateway' ? new Jobs(options) : await connectJobs(options)
  }
  await checkLayout(as.gateway.link, NAMESPACE, PARTITIONS, false)
  return as
}

/** The check at the start asks for CONFIG, which is nobody's, and does without. */
const EXPECTED = 'object config|get'

const refusals = async (client: Redis) =>
  ((await client.call('ACL', 'LOG')) as unknown[][])
    .map((entry) => entry.join(' '))
    .filter((entry) => !entry.includes(EXPECTED))

/** What each user has used: commands, and the keys they named. From MONITOR, which shows a script's commands after its call. */
const record = async (client: Redis) => {
  const used = new Map<string, { commands: Set<string>; keys: Set<string> }>()
  const monitor = await client.monitor()
  const roles = new Map<string, string>()
  let caller = ''
  monitor.on('monitor', (_: string, [command = '', ...args]: string[], source: string) => {
    if (source !== 'lua') caller = source
    const name = command.toLowerCase()
    if (name === 'client' && args[0] === 'setname') roles.set(source, String(args[1]))
    const role = roles.get(caller)
    if (role === undefined) return
    const uses = used.get(role) ?? { commands: new Set(), keys: new Set() }
    used.set(role, uses)
    const sub = ['client', 'xgroup', 'xinfo'].includes(name) ? `|${args[0]?.toLowerCase()}` : ''
    uses.commands.add(name + sub)
    for (const arg of args) if (arg.startsWith(`{${NAMESPACE}:`)) uses.keys.add(arg)
  })
  return { used, stop: () => monitor.disconnect() }
}

/** Sent while a connection is made, by who is the first to run a script or to connect, and what MONITOR does not show. */
const UNSEEN = ['hello', 'info', 'client|setname', 'client|setinfo', 'eval', 'client|unblock', 'hsetnx']

const globOf = (pattern: string) =>
  new RegExp(
    `^${pattern
      .replace(/^(%R)?~/, '')
      .replace(/[{}|]/g, '\\$&')
      .replaceAll('*', '.*')}$`,
  )

const onServer = (engine?: Engine) => {
  let redis: TestRedis
  let as: Processes
  let used: Awaited<ReturnType<typeof record>>['used']

  beforeAll(async () => {
    redis = await startTestRedis({ engine, appendonly: true })
    const client = redis.client()
    await grant(client, [...ROLES, REPAIR])
    const recording = await record(client)
    as = await connect(redis.url, client)
    used = recording.used
    const admin = new RedisLink({ url: redis.url })
    await busyDay(as, admin)
    // The probe of a subscribed connection, for which a day is too short here.
    for (const role of ['producer', 'ops', 'gateway'] as const) await as[role].link.call('PING')
    await until(() => used.get('gateway')?.commands.has('ping'))
    recording.stop()
    await admin.close()
  })
  afterAll(async () => {
    for (const jobs of Object.values(as)) await jobs.close()
    await redis.stop()
  })

  it('refuses no process anything on a busy day', async () => {
    expect(await refusals(redis.client())).toEqual([])
  })

  it.each(ROLES)('grants the %s nothing that it does not use', (role) => {
    const words = [role, REPAIR, NEWER]
      .flatMap((heading) => aclUnder(heading, NAMESPACE, 'secret'))
      .filter(([, user]) => user === userOf(role))
      .flatMap((line) => line.slice(2))
      // A selector stands in parentheses.
      .map((word) => word.replace(/^\(|\)$/g, ''))
    const uses = used.get(role)
    const allowed = words.flatMap((word) => (word.startsWith('+') ? [word.slice(1)] : []))
    const known = engine ? allowed : allowed.filter((command) => command !== 'waitaof')
    expect(known.filter((command) => !uses?.commands.has(command) && !UNSEEN.includes(command))).toEqual([])
    const patterns = words.filter((word) => /^(%R)?~/.test(word))
    const keys = [...(uses?.keys ?? [])]
    expect(patterns.filter((pattern) => !keys.some((key) => globOf(pattern).test(key)))).toEqual([])
  })
}

describe('the machine’s own Redis', () => onServer())

const missing = await Promise.all(ENGINES.map((engine) => engineMissing(engine)))
for (const [i, engine] of ENGINES.entries()) {
  const why = missing[i]
  if (why) {
    console.warn(`SKIPPED: rights on ${engine}. ${why}`)
    it.skip(`SKIPPED: ${engine} can't be had. ${why}`)
  } else describe(engine, () => onServer(engine))
}

it('refuses no process anything on a busy day of a cluster', async () => {
  const cluster = await startCluster()
  for (const { client } of cluster.nodes) await grant(client, [...ROLES, REPAIR, 'Redis Cluster'])
  const as = await connect(cluster.url)
  const admin = new RedisLink({ url: cluster.url })
  await busyDay(as, admin)
  const refused = await Promise.all(cluster.nodes.map(({ client }) => refusals(client)))
  expect(refused.flat()).toEqual([])
  for (const closing of [...Object.values(as), admin]) await closing.close()
  await cluster.stop()
})

describe('what is not its part', () => {
  const { job, events, work, prefix } = keysOf(NAMESPACE, 0)
  const foreign = keysOf('foreign', 0)
  /** A command inside a script; with the partition's prefix as the key, like ours. */
  const inside = (...command: string[]) =>
    ['EVAL', `return redis.call(unpack(ARGV))`, '1', prefix, ...command] as const

  /** Nobody's. */
  const DANGEROUS = [
    ['FLUSHALL'],
    ['CONFIG', 'GET', 'requirepass'],
    ['KEYS', '*'],
    ['SCAN', '0'],
    ['ACL', 'LIST'],
    ['SCRIPT', 'FLUSH'],
    ['FUNCTION', 'FLUSH'],
    ['CLIENT', 'LIST'],
    ['MONITOR'],
    ['SHUTDOWN', 'NOSAVE'],
    ['DEBUG', 'DIGEST'],
    ['REPLICAOF', 'NO', 'ONE'],
    ['HGETALL', foreign.job('a')],
    ['SUBSCRIBE', foreign.events('a')],
    ['XREADGROUP', 'GROUP', 'workers', 'me', 'STREAMS', foreign.work('mail'), '>'],
  ]
  const SCRIPTED = [
    inside('FLUSHALL'),
    inside('HGETALL', foreign.job('a')),
    inside('HSET', foreign.job('a'), 'now', ''),
    inside('PUBLISH', foreign.events('a'), ''),
  ]
  const FORBIDDEN: Record<Role, readonly (readonly string[])[]> = {
    producer: [
      ...SCRIPTED,
      ['XACK', work('mail'), 'workers', '1-1'],
      ['XREADGROUP', 'GROUP', 'workers', 'me', 'STREAMS', work('mail'), '>'],
      ['DEL', job('a')],
      ['PEXPIRE', job('a'), '1'],
      ['HSET', `${prefix}sweep`, 'at', '1'],
      ['SET', `${prefix}heartbeat:a`, ''],
      inside('XACK', work('mail'), 'workers', '1-1'),
      inside('DEL', job('a')),
      inside('PUBLISH', events('a'), ''),
    ],
    worker: [
      ...SCRIPTED,
      ['HGETALL', job('a')],
      ['XAUTOCLAIM', work('mail'), 'workers', 'me', '0', '0'],
      ['SREM', `${prefix}paused`, '*'],
      ['SADD', `${prefix}paused`, '*'],
      ['COPY', events('a'), events('b')],
      ['SET', `${prefix}key:a`, ''],
      ['XDEL', `${prefix}stream`, '0-1'],
      ['HSET', `${prefix}sweep`, 'at', '1'],
      inside('SADD', `${prefix}paused`, '*'),
    ],
    reaper: [
      ...SCRIPTED,
      ['XREADGROUP', 'GROUP', 'workers', 'me', 'STREAMS', work('mail'), '>'],
      ['HGETALL', job('a')],
      ['XRANGE', events('a'), '-', '+'],
      ['DEL', `${prefix}key:a`],
      ['SADD', `${prefix}paused`, '*'],
      inside('XREADGROUP', 'GROUP', 'workers', 'me', 'STREAMS', work('mail'), '>'),
    ],
    ops: [
      ...SCRIPTED,
      ['XREADGROUP', 'GROUP', 'workers', 'me', 'STREAMS', work('mail'), '>'],
      ['XCLAIM', work('mail'), 'workers', 'me', '0', '1-1'],
      ['XAUTOCLAIM', work('mail'), 'workers', 'me', '0', '0'],
      ['XGROUP', 'DESTROY', work('mail'), 'workers'],
    ],
    gateway: [
      ['EVAL', 'return 1', '0'],
      ['EVAL', 'return 1', '1', prefix],
      ['EVALSHA', '0'.repeat(40), '0'],
      ['EVAL_RO', 'return 1', '0'],
      ['FCALL', 'f', '0'],
      ['SCRIPT', 'LOAD', 'return 1'],
      ['XADD', events('a'), '*', 'e', '1'],
      ['HSET', job('a'), 'now', ''],
      ['HSETNX', `{${NAMESPACE}:0}:layout`, 'partitions', '1'],
      ['DEL', job('a')],
      ['COPY', events('a'), events('b')],
      ['PUBLISH', events('a'), ''],
      ['PUBLISH', foreign.probe('a'), ''],
      ['XREADGROUP', 'GROUP', 'workers', 'me', 'STREAMS', work('mail'), '>'],
      ['XRANGE', work('mail'), '-', '+'],
      ['HGETALL', `${prefix}sweep`],
      ['ZADD', `${prefix}revoked`, '1', 'jti:a'],
      ['ZREM', `${prefix}revoked`, 'jti:a'],
      ['PUBLISH', `${prefix}revoked`, ''],
      ['PSUBSCRIBE', '*'],
      ['SUBSCRIBE', work('mail')],
    ],
  }

  let redis: TestRedis
  beforeAll(async () => {
    redis = await startTestRedis()
    const client = redis.client()
    await grant(client, ROLES)
    // What a refusal must not change.
    for (const keys of [keysOf(NAMESPACE, 0), foreign]) {
      await client.hset(keys.job('a'), 'now', 'then')
      await client.xgroup('CREATE', keys.work('mail'), 'workers', '0', 'MKSTREAM')
      await client.xadd(keys.work('mail'), '1-1', 'id', 'a')
    }
  })
  afterAll(() => redis.stop())

  it.each(
    ROLES.flatMap((role) =>
      [...DANGEROUS, ...FORBIDDEN[role]].map((command) => ({ role, command, shown: command.join(' ') })),
    ),
  )('is refused: the $role and $shown', async ({ role, command }) => {
    const link = new RedisLink({ url: asUser(redis.url, userOf(role)) })
    const before = await redis.digest()
    const [name = '', ...args] = command
    await expect(link.call(name, ...args)).rejects.toMatchObject({
      code: 'REDIS_REFUSED',
      message: expect.stringMatching(/NOPERM|user executing the script can't|ACL failure in script/),
    })
    expect(await redis.digest()).toBe(before)
    await link.close()
  })

  it('is refused: a worker of one job name and the queue of another; its own it works off', async () => {
    const client = redis.client()
    const user = userOf('worker')
    await client.call('ACL', 'SETUSER', user, 'resetkeys')
    for (const line of aclUnder('worker', NAMESPACE, 'secret'))
      for (const word of line.slice(2))
        if (/^(%R)?~/.test(word) && !word.endsWith(':work:*')) await client.call('ACL', 'SETUSER', user, word)
    await client.call('ACL', 'SETUSER', user, ...oneNameOnly(NAMESPACE))
    await client.call('ACL', 'LOG', 'RESET')
    const options = { namespace: NAMESPACE, onFinding: () => undefined }
    const backend = await connectJobs({ ...options, url: asUser(redis.url, userOf('producer')) })
    const jobs = await connectJobs({ ...options, url: asUser(redis.url, user) })
    const mail = defineJob({ name: 'mail' })
    const worker = new Worker(jobs, mail, () => 'sent')
    await worker.start()
    const { id } = await backend.enqueue(mail, 1)
    expect(await backend.wait(id)).toMatchObject({ state: 'COMPLETED' })
    await worker.stop()
    expect(await refusals(client)).toEqual([])
    await expect(new Worker(jobs, defineJob({ name: 'money' }), () => 1).start()).rejects.toMatchObject({
      code: 'RIGHTS_MISSING',
      message: expect.stringContaining('work:money'),
    })
    await jobs.close()
    await backend.close()
  })
})
