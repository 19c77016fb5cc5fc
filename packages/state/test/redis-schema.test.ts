// After a busy day every key, its type, its lifetime and its fields are what docs/redis-schema.md says, and all that it
// names is there.
import { connectJobs, isTerminal } from '@jobs/state'
import { startTestRedis, type TestRedis } from '@jobs/testkit'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { busyDay, type Processes, ROLES } from './busy.ts'
import { tableUnder } from './schema-doc.ts'

const NAMESPACE = 'busy'

let redis: TestRedis
const as = {} as Processes
let keys: string[]

beforeAll(async () => {
  redis = await startTestRedis()
  const options = { url: redis.url, namespace: NAMESPACE, partitions: 2, onFinding: () => undefined }
  for (const role of ROLES) as[role] = await connectJobs(options)
  await busyDay(as, as.ops.link)
  keys = await redis.client().keys('*')
})
afterAll(async () => {
  for (const jobs of Object.values(as)) await jobs.close()
  await redis.stop()
})

/** Of a key pattern whose words in capitals stand for something. */
const WORDS: Record<string, string> = {
  P: '\\d+',
  QUEUE: '[\\w.~-]+(:high|:low)?',
  STATE: '(COMPLETED|FAILED|CANCELLED)',
  MS: '\\d+',
  TAG: '@?[\\w.~-]+',
}
const patternOf = (cell: string) => {
  const literal = cell.replaceAll('`', '').replace('transcribe', NAMESPACE).replace(/[{}]/g, '\\$&')
  return new RegExp(`^${literal.replace(/[A-Z]+/g, (word) => WORDS[word] ?? '[\\w.~-]+')}$`)
}
const rows = tableUnder('Keys').map(([key = '', type = '', , lives = '']) => ({
  key,
  pattern: patternOf(key),
  type,
  lives,
}))

it('has no key that the page does not name, and none twice', () => {
  const named = keys.map((key) => [key, rows.filter(({ pattern }) => pattern.test(key)).length])
  expect(named.filter(([, count]) => count !== 1)).toEqual([])
})

it.each(rows)('has $key as a $type that lives $lives', async ({ pattern, type, lives }) => {
  const client = redis.client()
  const found = keys.filter((key) => pattern.test(key))
  expect(found).not.toEqual([])
  for (const key of found) {
    expect(await client.type(key)).toBe(type)
    const forEver = (await client.pttl(key)) === -1
    if (lives === 'with its job') {
      const job = await as.ops.get(key.slice(key.lastIndexOf(':') + 1))
      expect(forEver).toBe(job !== null && !isTerminal(job.state))
    } else if (lives === 'with its jobs') {
      expect(forEver).toBe(keys.includes(key.replace(/:states$/, '')))
    } else {
      expect(lives).toMatch(/^(for ever$|at most )/)
      expect(forEver).toBe(lives === 'for ever')
    }
  }
})

it('has the fields of a job that the page names, and no others', async () => {
  const fields = new Set<string>()
  for (const key of keys.filter((each) => /:job:[^:]+$/.test(each)))
    for (const field of await redis.client().hkeys(key)) fields.add(field)
  const documented = tableUnder('The job’s hash').map(([field = '']) => field.replaceAll('`', ''))
  expect([...fields].sort()).toEqual(documented.sort())
})

it('keeps what changes with every event below the 64 bytes up to which a hash is compact', async () => {
  for (const key of keys.filter((each) => /:job:[^:]+$/.test(each))) {
    const now = String(await redis.client().hget(key, 'now'))
    expect(now).toMatch(/^[A-Z]+ \d+-\d+ [a-z]+ \d+-\S* \d+ (-|[xke]+) \d+ \d+$/)
    expect(now.length).toBeLessThanOrEqual(64)
  }
})

it('has entries and lists in the forms that the page shows', async () => {
  const client = redis.client()
  for (const key of keys.filter((each) => /:jobs:[^:]+$/.test(each)))
    for (const [id, [field, event]] of await client.xrange(key, '-', '+')) {
      expect(field).toBe('e')
      if (id === '0-1') expect(event).toBe('1')
      else if (id === '0-2') JSON.parse(String(event))
      else expect(event).toMatch(/^([a-z]+>[A-Z]+ \d+(,".*)?|progress \d+ .+|log \d+ ".*")$/)
    }
  for (const key of keys.filter((each) => /:(work|ended):/.test(each)))
    for (const [, fields] of await client.xrange(key, '-', '+')) expect(fields[0]).toBe('id')
})
