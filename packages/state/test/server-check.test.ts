// What speaks against a server, each on one that is really set up that way.
import { connectJobs, type Finding, guardServer, RedisLink } from '@jobs/state'
import { startTestRedis, type TestRedis, until } from '@jobs/testkit'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { findingsOf, inspectServer } from '../src/server-check.ts'

let redis: TestRedis
beforeAll(async () => {
  redis = await startTestRedis()
  for (const [name, rights] of [
    ['no-config', '-config'],
    ['no-info', '-info -config'],
  ])
    await redis
      .client()
      .call('ACL', 'SETUSER', String(name), 'on', '>pw', '~*', '&*', '+@all', ...String(rights).split(' '))
})
afterAll(() => redis.stop())

const FIT = {
  'maxmemory-policy': 'noeviction',
  save: '3600 1',
  appendonly: 'no',
  'stream-node-max-bytes': '4096',
  'client-output-buffer-limit': 'pubsub 33554432 8388608 60',
}
beforeEach(async () => {
  for (const [name, value] of Object.entries(FIT)) await redis.client().config('SET', name, value)
})

const links: RedisLink[] = []
afterEach(() => Promise.all(links.splice(0).map((link) => link.close())))

const open = (url: string) => {
  const link = new RedisLink({ url })
  links.push(link)
  return link
}
const as = (user: string) => `redis://${user}:pw@127.0.0.1:${redis.port}`
const codes = async (url: string) => (await inspectServer(open(url))).map(({ code }) => code)

describe('a server', () => {
  it.each(['snapshots', 'an append-only file'])('is fit with %s', async (kept) => {
    if (kept !== 'snapshots') {
      await redis.client().config('SET', 'save', '')
      await redis.client().config('SET', 'appendonly', 'yes')
    }
    expect(await codes(redis.url)).toEqual([])
  })

  it.each([
    ['evicts_keys', 'maxmemory-policy', 'volatile-lru'],
    ['evicts_keys', 'maxmemory-policy', 'allkeys-lfu'],
    ['no_persistence', 'save', ''],
    ['small_stream_nodes', 'stream-node-max-bytes', '256'],
    ['small_output_limit', 'client-output-buffer-limit', 'pubsub 1048576 524288 60'],
  ])('is told of as %s with %s %s', async (code, name, value) => {
    await redis.client().config('SET', name, value)
    const [finding, ...more] = await inspectServer(open(redis.url))
    expect(finding).toMatchObject({ code, severity: code === 'evicts_keys' ? 'error' : 'warning' })
    expect(`${finding?.says} ${finding?.fix}`).toContain(name === 'save' ? 'appendonly' : name)
    expect(more).toEqual([])
  })

  it('is told of when it is a replica', async () => {
    const replica = await startTestRedis({ args: ['--replicaof', '127.0.0.1', String(redis.port)] })
    expect(await codes(replica.url)).toContain('is_replica')
    await replica.stop()
  })

  it('is told of when it is one node of a cluster, to a connection that knows no other', async () => {
    const node = await startTestRedis({ args: ['--cluster-enabled', 'yes'] })
    expect(await codes(node.url)).toContain('cluster_as_single')
    await node.stop()
  })

  it('is judged as far as its user may look', async () => {
    expect(await codes(as('no-config'))).toEqual(['persistence_unknown'])
    await redis.client().config('SET', 'appendonly', 'yes')
    expect(await codes(as('no-config'))).toEqual([])
    expect(await codes(as('no-info'))).toEqual(['info_forbidden'])
  })
})

it.each([
  ['6.2.14', true],
  ['7.0.3', true],
  ['7.0.4', false],
  ['7.2.0', false],
  ['8.0.2', false],
])('of the version %s it is told that it is too old: %s', async (redis_version, old) => {
  const findings = findingsOf({ redis_version, aof_enabled: '1' }, {}, false)
  expect(findings.map(({ code }) => code)).toEqual(old ? ['version_too_old'] : [])
})

describe('connecting', () => {
  it('is refused where jobs would be lost, before anything is written', async () => {
    await redis.client().config('SET', 'maxmemory-policy', 'allkeys-lru')
    await expect(connectJobs({ url: redis.url, namespace: 'unsafe' })).rejects.toMatchObject({
      code: 'UNSAFE_REDIS',
      message: expect.stringMatching(/allkeys-lru.*allowUnsafeRedis/),
    })
    expect(await redis.client().keys('{unsafe:*')).toEqual([])
  })

  it('goes on where that is allowed, and tells it', async () => {
    await redis.client().config('SET', 'maxmemory-policy', 'allkeys-lru')
    const told: Finding[] = []
    const jobs = await connectJobs({
      url: redis.url,
      namespace: 'allowed',
      allowUnsafeRedis: true,
      onFinding: (finding) => told.push(finding),
    })
    await jobs.close()
    expect(told).toMatchObject([{ code: 'evicts_keys', severity: 'error' }])
  })

  it('warns by itself where nobody listens', async () => {
    await redis.client().config('SET', 'save', '')
    const warned = new Promise<Error>((resolve) => process.once('warning', resolve))
    await (await connectJobs({ url: redis.url, namespace: 'warned' })).close()
    expect(await warned).toMatchObject({ name: 'JobsWarning', code: 'no_persistence' })
  })
})

it('notices a setting that changes while a process runs, once, and that it is mended', async () => {
  const told: string[] = []
  const guard = await guardServer(open(redis.url), { everyMs: 10, onFinding: ({ code }) => told.push(code) })
  expect(guard.trouble).toBeNull()
  await redis.client().config('SET', 'maxmemory-policy', 'allkeys-lru')
  expect(await until(() => guard.trouble)).toContain('allkeys-lru')
  await redis.client().config('SET', 'maxmemory-policy', 'noeviction')
  await until(() => guard.trouble === null)
  guard.stop()
  expect(told).toEqual(['evicts_keys'])
})
