// What is revoked stands in Redis for a day, is told at once, and is no more than was asked for.
import {
  connectJobs,
  type Jobs,
  keysOf,
  LIMITS,
  readRevocations,
  revocationOfMessage,
  Subscriber,
} from '@jobs/state'
import { startTestRedis, type TestRedis, until } from '@jobs/testkit'
import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest'

const NAMESPACE = 'revoked'
const DAY = 86_400_000
const keys = keysOf(NAMESPACE, 0)

let redis: TestRedis
let jobs: Jobs
beforeAll(async () => {
  redis = await startTestRedis()
  jobs = await connectJobs({
    url: redis.url,
    namespace: NAMESPACE,
    partitions: 4,
    onFinding: () => undefined,
  })
})
beforeEach(() => redis.client().del(keys.revoked))
afterAll(async () => {
  await jobs.close()
  await redis.stop()
})

const listen = async () => {
  const heard: string[] = []
  const subscriber = new Subscriber(
    { url: redis.url },
    { onMessage: (_, message) => heard.push(message), onRecovered: () => undefined },
  )
  await until(() => subscriber.alive)
  await subscriber.subscribe(keys.revoked)
  return { heard, subscriber }
}

it('is told on the channel as it is listed', async () => {
  const { heard, subscriber } = await listen()
  const before = Date.now()
  await jobs.revoke({ jti: 'one token' })
  await jobs.revoke({ subject: 'ann' })
  await until(() => heard.length === 2)
  const listed = await readRevocations(jobs.link, keys)
  expect(heard.map(revocationOfMessage)).toEqual(listed)
  expect(listed.map(({ what }) => what)).toEqual(['jti:one token', 'sub:ann'])
  for (const { at } of listed) {
    expect(at).toBeGreaterThanOrEqual(before)
    expect(at).toBeLessThanOrEqual(Date.now())
  }
  subscriber.close()
})

it('once more moves the moment on, and never back', async () => {
  const { heard, subscriber } = await listen()
  const momentOf = async () => (await readRevocations(jobs.link, keys)).map(({ at }) => at)
  await jobs.transitions.revoke('sub:ann', Date.now() - 5_000)
  const [first = 0] = await momentOf()
  await jobs.revoke({ subject: 'ann' })
  const [second = 0] = await momentOf()
  expect(second).toBeGreaterThan(first)
  await jobs.transitions.revoke('sub:ann', first)
  expect(await momentOf()).toEqual([second])
  await until(() => heard.length === 3)
  expect(heard.map(revocationOfMessage).at(-1)).toEqual({ what: 'sub:ann', at: second })
  subscriber.close()
})

it('covers what an issuer made whose clock is ahead by no more than a gateway allows', async () => {
  const at = Date.now() + 3_000
  await jobs.transitions.revoke('sub:ann', at)
  expect(await readRevocations(jobs.link, keys)).toEqual([{ what: 'sub:ann', at }])
})

it('does not refuse what is yet to come, whatever the issuer’s clock says', async () => {
  await jobs.transitions.revoke('sub:ann', Date.now() + DAY)
  const [{ at } = { at: 0 }] = await readRevocations(jobs.link, keys)
  expect(at).toBeLessThanOrEqual(Date.now() + LIMITS.clockAheadMs)
})

it('goes after a day, one by one and with the key', async () => {
  await redis
    .client()
    .zadd(keys.revoked, Date.now() - DAY - 1_000, 'jti:old', Date.now() - 1_000, 'jti:young')
  await jobs.revoke({ jti: 'new' })
  expect((await readRevocations(jobs.link, keys)).map(({ what }) => what)).toEqual(['jti:young', 'jti:new'])
  const lives = await redis.client().pttl(keys.revoked)
  expect(lives).toBeGreaterThan(DAY - 60_000)
  expect(lives).toBeLessThanOrEqual(DAY)
})

it('is refused beyond a hundred thousand a day, and says what to do', async () => {
  await redis.client().eval(
    `for i = 1, 100 do
       local all = {}
       for j = 1, 1000 do all[2 * j - 1], all[2 * j] = ARGV[1], 'jti:' .. i * 1000 + j end
       redis.call('ZADD', KEYS[1], unpack(all))
     end`,
    1,
    keys.revoked,
    Date.now(),
  )
  await expect(jobs.revoke({ jti: 'one more' })).rejects.toMatchObject({
    code: 'REVOCATIONS_FULL',
    message: expect.stringContaining('sign with another key'),
  })
  // A repeat, its reply lost, answers as the first time.
  await jobs.revoke({ jti: '1001' })
})

it.each([
  [{}],
  [{ jti: 'a', subject: 'b' }],
  [{ jti: '' }],
  [{ subject: 'x'.repeat(257) }],
  [{ subject: 7 }],
])('of %j is refused before Redis hears of it', async (revoked) => {
  await expect(jobs.revoke(revoked as Parameters<Jobs['revoke']>[0])).rejects.toMatchObject({
    code: 'INVALID_OPTIONS',
  })
  expect(await redis.client().exists(keys.revoked)).toBe(0)
})
