// The checker of invariants finds nothing in jobs of every state, and finds each of many kinds of damage.
import type { Redis } from 'ioredis'
import { afterAll, beforeAll, expect, it } from 'vitest'
import type { Keys } from '../src/keys.ts'
import { anyJob, type Harness, startHarness } from './harness.ts'
import { checkInvariants } from './invariants.ts'

let h: Harness
let keys: Keys
let redis: Redis
beforeAll(async () => {
  h = await startHarness()
  keys = h.jobs.transitions.keys[0] as Keys
  redis = h.redis.client()
})
afterAll(() => h.stop())

/** Jobs in every state, some with all that a job may have beside: fresh each time. */
const populate = async () => {
  await redis.flushall()
  const made = {
    scheduled: (await h.jobIn('SCHEDULED')).id,
    running: (await h.jobIn('PROCESSING')).id,
    completed: (await h.jobIn('COMPLETED')).id,
    failed: (await h.jobIn('FAILED')).id,
    cancelled: (await h.jobIn('CANCELLED')).id,
    labelled: await h.enqueue({
      tags: ['a', 'b'],
      owner: 'ann',
      priority: 'high',
      ttlMs: 60_000,
      key: 'once',
    }),
    reported: (await h.jobIn('PROCESSING')).id,
    queued: await h.enqueue(),
  }
  const fence = String(await redis.hget(keys.job(made.reported), 'now')).split(' ')[3] as string
  const { transitions } = h.jobs
  const held = { id: made.reported, fence }
  await transitions.progress(held, 1, '{"done":1}')
  await transitions.log(held, 2, 'a line')
  await transitions.complete(held, JSON.stringify('ü'.repeat(20_000)))
  return made
}
type Made = Awaited<ReturnType<typeof populate>>

it('finds nothing wrong in jobs of every state', async () => {
  const made = await populate()
  expect(await checkInvariants(h.jobs, Object.values(made))).toEqual([])
})

it('misses a job that was accepted and is gone, unless it may be', async () => {
  const { completed } = await populate()
  await h.jobs.remove(completed)
  expect(await checkInvariants(h.jobs, [completed])).toEqual([`${completed}: was accepted and is not there`])
  expect(await checkInvariants(h.jobs, [completed], { mayBeGone: new Set([completed]) })).toEqual([])
})

it('says which jobs have not ended when all should have', async () => {
  const made = await populate()
  const told = await checkInvariants(h.jobs, Object.values(made), { ended: true })
  expect(told.map((each) => each.split(':')[0]).sort()).toEqual(
    [made.scheduled, made.running, made.labelled, made.queued].sort(),
  )
})

const now = async (id: string, change: (parts: string[]) => void) => {
  const parts = String(await redis.hget(keys.job(id), 'now')).split(' ')
  change(parts)
  await redis.hset(keys.job(id), 'now', parts.join(' '))
}
const place = async (id: string) => String(await redis.hget(keys.job(id), 'place'))
const lastEvent = async (id: string) => {
  const [[cursor = '', fields = []] = []] = await redis.xrevrange(keys.events(id), '+', '-', 'COUNT', 1)
  return { cursor, event: fields[1] as string }
}
/** One more event, which the hash knows of. */
const append = async (id: string, event: string) => {
  const { cursor } = await lastEvent(id)
  const next = `${Number(cursor.split('-')[0]) + 1}-${cursor.split('-')[1]}`
  await redis.xadd(keys.events(id), next, 'e', event)
  await now(id, (parts) => {
    parts[1] = next
  })
}

const damages: [what: string, damage: (made: Made) => Promise<unknown>, says: RegExp][] = [
  [
    'an event that is missing',
    async ({ reported: id }) =>
      redis.xdel(keys.events(id), ...(await redis.xrange(keys.events(id), '3', '3')).map(([entry]) => entry)),
    /the events are not 1, 2, 3 …: 1 2 4 5/,
  ],
  [
    'the last event that is missing',
    async ({ running: id }) => redis.xdel(keys.events(id), (await lastEvent(id)).cursor),
    /the hash stands at 2-/,
  ],
  ['a stream that is missing', ({ queued: id }) => redis.del(keys.events(id)), /there is no stream/],
  [
    'a payload that is missing',
    ({ queued: id }) => redis.xdel(keys.events(id), '0-2'),
    /the stream has no payload/,
  ],
  ['an entry that is no event', ({ queued: id }) => append(id, 'nonsense'), /is no event: nonsense/],
  [
    'a second end',
    async ({ completed: id }) => append(id, (await lastEvent(id)).event),
    /complete from COMPLETED to COMPLETED is not legal/,
  ],
  [
    'another end after the first',
    ({ completed: id }) => append(id, 'cancel>CANCELLED 1'),
    /cancel from COMPLETED/,
  ],
  [
    'an attempt that falls',
    ({ running: id }) => append(id, 'release>QUEUED 0'),
    /release in attempt 0, not 1/,
  ],
  [
    'an attempt that was granted twice',
    ({ failed: id }) => append(id, 'claim>PROCESSING 1,"worker":"w"'),
    /claim from FAILED/,
  ],
  [
    'a report after the end',
    ({ completed: id }) => append(id, 'log 1 "late"'),
    /a report of attempt 1 while COMPLETED/,
  ],
  [
    'a field that the events do not tell',
    ({ reported: id }) => redis.hset(keys.job(id), 'progress', '{"done":2}'),
    /progress is {"done":2} in the hash and {"done":1}/,
  ],
  [
    'a result of another size',
    ({ reported: id }) => redis.hset(keys.job(id), 'result', '"short"'),
    /result is "7 bytes" in the hash and "40002 bytes"/,
  ],
  [
    'failures that nobody made',
    ({ failed: id }) =>
      now(id, (parts) => {
        parts[6] = '2'
      }),
    /failures is 2 in the hash and 1/,
  ],
  [
    'a hash that cannot be read',
    ({ queued: id }) => redis.hset(keys.job(id), 'now', 'WAITING 1-1'),
    /no state that can be read/,
  ],
  ['a hash that is missing', ({ queued: id }) => redis.del(keys.job(id)), /a stream without a hash/],
  [
    'a second work entry',
    ({ queued: id }) => redis.xadd(keys.work('any'), '*', 'id', id),
    /QUEUED with the work entries/,
  ],
  [
    'a work entry of an ended job',
    ({ completed: id }) => redis.xadd(keys.work('any'), '*', 'id', id),
    /COMPLETED with the work entries/,
  ],
  [
    'a work entry of no job',
    () => redis.xadd(keys.work('any'), '*', 'id', 'nobody'),
    /nobody: the work entry .* of no job/,
  ],
  [
    'a work entry that is missing',
    async ({ queued: id }) => redis.xdel(keys.work('any'), await place(id)),
    /with the work entries \[\] in any/,
  ],
  [
    'a running job that is pending for nobody',
    async ({ running: id }) => redis.xack(keys.work('any'), 'workers', await place(id)),
    /its entry is pending 0 times/,
  ],
  [
    'a pending entry whose stream entry is gone',
    async ({ running: id }) => redis.xdel(keys.work('any'), await place(id)),
    /is pending for tester in any and not in the stream/,
  ],
  [
    'a scheduled job that is in no list',
    ({ scheduled: id }) => redis.zrem(keys.scheduled, id),
    /SCHEDULED, scheduled for undefined/,
  ],
  [
    'a queued job that is scheduled too',
    ({ queued: id }) => redis.zadd(keys.scheduled, 1, id),
    /QUEUED, scheduled for 1/,
  ],
  [
    'a member of the schedule and no job',
    () => redis.zadd(keys.scheduled, 1, 'nobody'),
    /nobody: a member of/,
  ],
  [
    'a time to live without a deadline',
    ({ labelled: id }) => redis.zrem(keys.deadlines, id),
    /limited without a deadline/,
  ],
  [
    'a deadline of a job without one',
    ({ queued: id }) => redis.zadd(keys.deadlines, 1, id),
    /has a deadline/,
  ],
  [
    'a tag that does not list its job',
    ({ labelled: id }) => redis.zrem(keys.tag('a'), id),
    /undefined in the list of the tag a/,
  ],
  [
    'a tag that counts its job in another state',
    ({ labelled: id }) => redis.zadd(keys.tagStates('a'), 3e13, id),
    /30000000000000 among the states of the tag a/,
  ],
  [
    'counts of live jobs that will be gone',
    () => redis.pexpire(keys.tagStates('a'), 60_000),
    /tag:a:states goes in/,
  ],
  [
    'an ended job that is in no list',
    async ({ failed: id }) => redis.xdel(keys.endedAs('FAILED:86400000'), await place(id)),
    /FAILED with the entries \[\] in ended:FAILED/,
  ],
  [
    'a list of ended jobs that is not listed',
    () => redis.del(keys.ended),
    /the list FAILED:86400000 counts as expired/,
  ],
  [
    'an ended job that lives for ever',
    ({ completed: id }) => redis.persist(keys.job(id)),
    /COMPLETED, and its job key has -1 ms to live/,
  ],
  [
    'a live job that will be gone',
    ({ queued: id }) => redis.pexpire(keys.events(id), 60_000),
    /QUEUED, and its events key has \d+ ms to live/,
  ],
  [
    'a list of ended jobs that lives for ever',
    () => redis.persist(keys.endedAs('FAILED:86400000')),
    /ended:FAILED:86400000 has no time to live/,
  ],
  [
    'a key of an idempotency key that lives for ever',
    async () => redis.persist((await redis.keys('*:key:*'))[0] as string),
    /key:.* has no time to live/,
  ],
  [
    'a heartbeat of another attempt',
    ({ running: id }) => redis.set(keys.heartbeat(id), '1-other w', 'PX', 60_000),
    /a heartbeat of 1-other w/,
  ],
  [
    'a heartbeat without a job',
    () => redis.set(keys.heartbeat('nobody'), '1-x w', 'PX', 60_000),
    /nobody: a heartbeat without a job/,
  ],
  [
    'a queue that is not listed',
    () => redis.srem(keys.queues, 'any'),
    /the work stream any is not among the queues/,
  ],
  ['a key that nobody knows', () => redis.set(`${keys.prefix}mystery`, '1'), /mystery is in no layout/],
]

it.each(damages)('finds %s', async (_, damage, says) => {
  const made = await populate()
  await damage(made)
  expect((await checkInvariants(h.jobs, Object.values(made))).join('\n')).toMatch(says)
})

it('finds a listing that leaves out what is there', async () => {
  await populate()
  const told = h.jobs.list.bind(h.jobs)
  h.jobs.list = async (options) => (options?.state === 'QUEUED' ? { jobs: [], cursor: null } : told(options))
  const wrong = await checkInvariants(h.jobs, [])
  h.jobs.list = told
  expect(wrong.join('\n')).toMatch(/^list of QUEUED says \[\], there is/)
})

it('counts a job that was delivered and not yet claimed as the listings do', async () => {
  await redis.flushall()
  const id = (await h.jobs.enqueue(anyJob, 1)).id
  await h.jobs.link.once(['XREADGROUP', 'GROUP', 'workers', 'w', 'STREAMS', keys.work('any'), '>'], 1_000)
  expect(await checkInvariants(h.jobs, [id])).toEqual([])
})
