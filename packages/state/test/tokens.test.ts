// Tokens for watchers, checked by another library's eyes: what is in them, what is refused, and that nobody forges one.
import { createPublicKey, generateKeyPairSync } from 'node:crypto'
import { connectJobs, type Jobs, type TokenOptions } from '@jobs/state'
import { startTestRedis, type TestRedis } from '@jobs/testkit'
import { decodeProtectedHeader, jwtVerify } from 'jose'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { anyJob } from './harness.ts'

const SECRET = 'a secret of at least 32 characters'
const HS256: TokenOptions = { algorithm: 'HS256', secret: SECRET }
const NAMESPACE = 'tokens'

let redis: TestRedis
let jobs: Jobs
const connect = (tokens?: TokenOptions) =>
  connectJobs({ url: redis.url, namespace: NAMESPACE, tokens, onFinding: () => undefined })

beforeAll(async () => {
  redis = await startTestRedis()
  jobs = await connect(HS256)
})
afterAll(async () => {
  await jobs.close()
  await redis.stop()
})

const claimsOf = async (token: string, key: Parameters<typeof jwtVerify>[1] = Buffer.from(SECRET)) =>
  (await jwtVerify(token, key, { audience: 'jobs' })).payload

describe('a token', () => {
  it('comes with an enqueued job, for that job alone and its owner, and lives 15 minutes', async () => {
    const { id, token, jti, expiresAt } = await jobs.enqueue(anyJob, 1, { token: true, owner: 'ann' })
    const claims = await claimsOf(token)
    expect(claims).toMatchObject({ ns: NAMESPACE, jobs: [id], sub: 'ann', jti, aud: 'jobs' })
    expect(claims.exp).toBe(expiresAt / 1_000)
    expect((claims.exp ?? 0) - (claims.iat ?? 0)).toBeCloseTo(900)
    expect(claims).not.toHaveProperty('tags')
  })

  it('of a job that was there already is for the job that is there', async () => {
    const first = await jobs.enqueue(anyJob, 1, { key: 'k' })
    const again = await jobs.enqueue(anyJob, 1, { key: 'k', token: { subject: 'bob', lifeMs: 60_000 } })
    expect(again.duplicate).toBe(true)
    expect(await claimsOf(again.token)).toMatchObject({ jobs: [first.id], sub: 'bob' })
  })

  it('is made for any jobs and tags, each with an id of its own', async () => {
    const asked = { jobs: ['a', 'b'], tags: ['red'], subject: 'ann' }
    const [one, two] = [await jobs.token(asked), await jobs.token(asked)]
    expect(await claimsOf(one.token)).toMatchObject({
      jobs: ['a', 'b'],
      tags: ['red'],
      sub: 'ann',
      jti: one.jti,
    })
    expect(one.jti).not.toBe(two.jti)
    expect(await claimsOf((await jobs.token({ jobs: '*', jti: 'mine' })).token)).toMatchObject({
      jobs: '*',
      jti: 'mine',
    })
  })

  it.each([
    ['EdDSA', generateKeyPairSync('ed25519')],
    ['ES256', generateKeyPairSync('ec', { namedCurve: 'prime256v1' })],
  ] as const)('is signed with %s, by a key in PEM or as JWK, and names its key', async (algorithm, pair) => {
    const pem = pair.privateKey.export({ type: 'pkcs8', format: 'pem' }).toString()
    for (const privateKey of [pem, pair.privateKey.export({ format: 'jwk' })]) {
      const own = await connect({ algorithm, privateKey, keyId: '2026', issuer: 'us', lifeMs: 5_000 })
      const { token } = await own.token({ jobs: '*' })
      expect(decodeProtectedHeader(token)).toEqual({ alg: algorithm, typ: 'JWT', kid: '2026' })
      const claims = await claimsOf(token, createPublicKey(pem))
      expect(claims).toMatchObject({ iss: 'us', ns: NAMESPACE })
      await own.close()
    }
  })
})

describe('is refused', () => {
  it.each([
    ['a token for nothing', {}],
    ['one for no jobs', { jobs: [] }],
    ['an id that is none', { jobs: ['a}b'] }],
    ['a life of two days', { jobs: '*', lifeMs: 172_800_000 }],
    ['no life', { jobs: '*', lifeMs: 0 }],
    ['an empty subject', { jobs: '*', subject: '' }],
    ['an option that there is not', { jobs: '*', expiresIn: '1h' }],
  ])('%s', async (_, asked) => {
    await expect(jobs.token(asked as Parameters<Jobs['token']>[0])).rejects.toMatchObject({
      code: 'INVALID_OPTIONS',
    })
  })

  it('a token that no gateway would take, with what to do', async () => {
    const asked = { jobs: Array.from({ length: 1_000 }, (_, i) => `job-${i}`) }
    await expect(jobs.token(asked)).rejects.toMatchObject({
      code: 'TOO_LARGE',
      message: expect.stringContaining('name the tag'),
    })
  })

  it('a wrong option before the job is there', async () => {
    const before = await redis.digest()
    for (const token of [{ lifeMs: -1 }, { jobs: '*' }] as { lifeMs: number }[]) {
      const enqueued = jobs.enqueue(anyJob, 1, { token: { ...token, lifeMs: -1 } })
      await expect(enqueued).rejects.toMatchObject({ code: 'INVALID_OPTIONS' })
    }
    const none = await connect()
    await expect(none.enqueue(anyJob, 1, { token: true })).rejects.toMatchObject({
      code: 'INVALID_OPTIONS',
      message: expect.stringContaining('give connectJobs the option `tokens`'),
    })
    await none.close()
    expect(await redis.digest()).toBe(before)
  })

  const ed25519 = generateKeyPairSync('ed25519')
    .privateKey.export({ type: 'pkcs8', format: 'pem' })
    .toString()
  it.each<[string, TokenOptions, string]>([
    ['a short secret', { algorithm: 'HS256', secret: 'hunter2' }, 'has 7 bytes'],
    ['a life of two days', { ...HS256, lifeMs: 172_800_000 }, 'lifeMs'],
    ['a key that is none', { algorithm: 'EdDSA', privateKey: 'hunter2' }, 'neither PEM nor a JWK'],
    ['a key of another kind', { algorithm: 'ES256', privateKey: ed25519 }, 'takes a prime256v1 key'],
  ])('%s, without telling it', async (_, tokens, says) => {
    const error = await connect(tokens).then(
      () => undefined,
      (thrown) => thrown,
    )
    expect(error).toMatchObject({ code: 'INVALID_OPTIONS', message: expect.stringContaining(says) })
    expect(String(error.stack)).not.toContain('hunter2')
  })
})
