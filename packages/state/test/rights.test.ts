// A right that is missing is told before the first script writes: each word of each line of docs/redis-schema.md that a
// script needs, left out by itself.
import { checkRights, defineJob, isStateError, Jobs, Worker } from '@jobs/state'
import { startTestRedis, type TestRedis } from '@jobs/testkit'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { aclUnder } from './schema-doc.ts'

const NAMESPACE = 'rights'

/** What is asked for outside of scripts, or by itself: what lacks it is refused as a whole. */
const OUTSIDE = new Set([
  ...['+hello', '+info', '+ping', '+client|setname', '+client|id', '+client|unblock', '+eval', '+evalsha'],
  ...['+time', '+multi', '+exec', '+subscribe', '+unsubscribe', '+hgetall', '+hsetnx', '+wait', '+smembers'],
  ...[`~{${NAMESPACE}:*}:`, `~{${NAMESPACE}:*}:confirmed`, `~{${NAMESPACE}:0}:layout`],
])
/** The producer has it to listen: it publishes nothing. */
const LISTENED = `&{${NAMESPACE}:*}:jobs:*`

/** A selector in parentheses is one word. */
const wordsOf = (part: string) =>
  aclUnder(part, NAMESPACE, 'secret')
    .map((line) => line.slice(2).join(' '))
    .flatMap((line) => line.match(/\([^)]*\)|\S+/g) ?? [])

let redis: TestRedis
beforeAll(async () => {
  redis = await startTestRedis()
})
afterAll(() => redis.stop())

/** Jobs of a user with these rights. */
const as = async (words: readonly string[]) => {
  await redis.client().call('ACL', 'SETUSER', 'someone', ...words)
  return new Jobs({
    url: redis.url.replace('://', '://someone:secret@'),
    namespace: NAMESPACE,
    partitions: 2,
  })
}

it('what repair needs is asked for too, and refused where a word of it is missing', async () => {
  const lines = aclUnder('Repair', NAMESPACE, 'secret').filter(([, user]) => user === `${NAMESPACE}-reaper`)
  const more = lines.flatMap((line) => line.slice(2)).filter((word) => !['+multi', '+exec'].includes(word))
  const check = async (words: readonly string[]) => {
    const jobs = await as([...wordsOf('reaper'), ...words])
    await checkRights(jobs.link, jobs.transitions.keys, 'repair').finally(() => jobs.close())
  }
  await check(more)
  for (const word of more)
    await expect(check(more.filter((each) => each !== word)), word).rejects.toMatchObject({
      code: 'RIGHTS_MISSING',
    })
})

describe.each(['producer', 'worker', 'reaper'] as const)('a %s', (part) => {
  const check = async (words: readonly string[]) => {
    const jobs = await as(words)
    try {
      await checkRights(jobs.link, jobs.transitions.keys, part, 'mail')
    } finally {
      await jobs.close()
    }
  }
  const words = wordsOf(part)

  it('with its lines has all that it needs, and asking changes nothing', async () => {
    const before = await redis.digest()
    await check(words)
    expect(await redis.digest()).toBe(before)
  })

  const needed = words.filter(
    (word) => /^[~+&%(]/.test(word) && !OUTSIDE.has(word) && !(part === 'producer' && word === LISTENED),
  )
  it.each(needed)('without %s is refused before its first script', async (left) => {
    await expect(check(words.filter((word) => word !== left))).rejects.toMatchObject({
      code: 'RIGHTS_MISSING',
      message: expect.stringMatching(
        left.startsWith('+')
          ? new RegExp(left.slice(1).split('|')[0] as string, 'i')
          : /{rights:[01]}:.*docs\/redis-schema\.md/,
      ),
    })
  })
})

const mail = defineJob({ name: 'mail' })

it('a worker that lacks a right does not start, and one whose user was given it does', async () => {
  const words = wordsOf('worker')
  const jobs = await as(words.filter((word) => word !== '+pexpire'))
  const before = await redis.digest()
  const worker = new Worker(jobs, mail, () => 1)
  await expect(worker.start()).rejects.toMatchObject({ code: 'RIGHTS_MISSING' })
  expect(await redis.digest()).toBe(before)
  await redis.client().call('ACL', 'SETUSER', 'someone', '+pexpire')
  await worker.start()
  await worker.stop()
  await jobs.close()
})

it('an enqueue that lacks a right creates nothing, nor does a batch; once it is given both do', async () => {
  const words = wordsOf('producer')
  const jobs = await as(words.filter((word) => word !== '+zadd'))
  const before = await redis.digest()
  const refused = (error: unknown) => isStateError(error, 'RIGHTS_MISSING')
  expect(await jobs.enqueue(mail, 1).catch(refused)).toBe(true)
  expect(await jobs.enqueueMany(mail, [{ payload: 1 }])).toMatchObject([
    { ok: false, error: { code: 'RIGHTS_MISSING' } },
  ])
  expect(await redis.digest()).toBe(before)
  await redis.client().call('ACL', 'SETUSER', 'someone', '+zadd')
  await jobs.enqueue(mail, 1)
  expect(await jobs.enqueueMany(mail, [{ payload: 1 }])).toMatchObject([{ ok: true }])
  await jobs.close()
})
