// Every kind of damage, made by hand: it is named, and nothing is written; --fix mends it; the job lives on as if nothing had
// been, and a second look finds nothing.
import { readFileSync } from 'node:fs'
import {
  caretakerOf,
  DAMAGES,
  type DamageCode,
  type DoctorReport,
  examine,
  type Jobs,
  keysOf,
  StateError,
} from '@jobs/state'
import { afterAll, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest'
import { anyJob, type Harness, startHarness } from './harness.ts'
import { checkInvariants } from './invariants.ts'
import { reapOnce } from './reaper.ts'

let h: Harness
beforeAll(async () => {
  h = await startHarness()
})
afterAll(() => h.stop())

const keys = () => h.jobs.transitions.keys[0] as ReturnType<typeof keysOf>
const redis = (...command: Parameters<Jobs['link']['call']>) => h.jobs.link.call(...command)
const field = async (id: string, name: string) => String(await redis('HGET', keys().job(id), name))
const reap = () => reapOnce(h.jobs, { minIdleMs: 0, maxGapMs: 0 })

beforeEach(async () => {
  await redis('FLUSHALL')
  // A reaper has been here.
  const [seconds] = (await redis('TIME')) as [string]
  await redis('HSET', keys().sweep, 'at', `${seconds}000`)
  await redis('HSET', keys().layout, 'partitions', 1, 'schema', 1)
})

const codes = (report: DoctorReport) => report.damages.map(({ code }) => code)

/** Takes the job as a worker would, whoever it is given to. */
const take = async (id: string) => {
  const claimant = { worker: 'taker', nonce: 'taken', leaseMs: 60_000 }
  const { grants } = await h.jobs.transitions.take(keys(), 'any', 10, claimant)
  const grant = grants.find((each) => each.id === id)
  if (!grant) throw new Error(`${id} was not given to a worker`)
  return grant
}

/** Runs a job to its end, from whatever state it is in. */
const runToItsEnd = async (id: string) => {
  const { transitions } = h.jobs
  const before = await h.jobs.get(id)
  if (before?.state === 'SCHEDULED') {
    await h.jobs.reschedule(id, { delayMs: 0 })
  } else if (before?.state === 'PROCESSING') {
    await h.lapse(id)
    await reap()
  } else if (before?.state !== 'QUEUED') {
    expect((await h.jobs.rerun(id)).ok).toBe(true)
  }
  expect(await transitions.complete(await take(id), '"done"')).toMatchObject({ ok: true, state: 'COMPLETED' })
  expect(await h.jobs.get(id)).toMatchObject({ state: 'COMPLETED', result: 'done' })
}

const TAGS = { tags: ['red'], owner: 'ann' }

interface Case {
  what: string
  code: DamageCode
  /** Answers the job that is to live on. */
  make: () => Promise<string | undefined>
  /** Beside the code, when something else is wrong by it too. */
  also?: DamageCode[]
  /** What there is after the mending, and not before. */
  check?: (id: string) => Promise<unknown>
  /** History was lost: the events do not tell all of it any more. */
  lossy?: true
}

const inQueue = async (options = {}) => h.enqueue(options)
const running = async (options = {}) => {
  const id = await h.enqueue(options)
  const grant = await take(id)
  return grant
}
const ended = async (options = {}) => {
  const grant = await running(options)
  await h.jobs.transitions.complete(grant, '"first"')
  return grant.id
}

const CASES: Case[] = [
  {
    what: 'a queued job without a work entry',
    code: 'not_queued',
    make: async () => {
      const id = await inQueue(TAGS)
      await redis('XDEL', keys().work('any'), await field(id, 'place'))
      return id
    },
  },
  {
    what: 'a queued job whose whole queue is gone',
    code: 'not_queued',
    make: async () => {
      const id = await inQueue()
      await redis('DEL', keys().work('any'))
      return id
    },
  },
  {
    what: 'a queued job whose place is another’s',
    code: 'not_queued',
    also: ['stray_entry'],
    make: async () => {
      const id = await inQueue()
      await redis('HSET', keys().job(id), 'place', 'nonsense')
      return id
    },
  },
  {
    what: 'a queued job that was given out and acknowledged',
    code: 'not_delivered',
    make: async () => {
      const id = await inQueue()
      await redis('XREADGROUP', 'GROUP', 'workers', 'w', 'STREAMS', keys().work('any'), '>')
      await redis('XACK', keys().work('any'), 'workers', await field(id, 'place'))
      return id
    },
  },
  {
    what: 'a running job without a work entry',
    code: 'not_held',
    make: async () => {
      const { id } = await running()
      await redis('XACK', keys().work('any'), 'workers', await field(id, 'place'))
      await redis('XDEL', keys().work('any'), await field(id, 'place'))
      return id
    },
  },
  {
    what: 'a running job whose entry is in nobody’s hands',
    code: 'not_held',
    make: async () => {
      const { id } = await running()
      await redis('XACK', keys().work('any'), 'workers', await field(id, 'place'))
      return id
    },
  },
  {
    what: 'a queue without its group, under a running job',
    code: 'group_missing',
    also: ['not_held'],
    make: async () => {
      const { id } = await running()
      await redis('XGROUP', 'DESTROY', keys().work('any'), 'workers')
      return id
    },
    // The entry is given out a second time, and stays with who runs the job.
    check: async () => {
      const other = await inQueue()
      await h.jobs.transitions.complete(await take(other), '1')
    },
  },
  {
    what: 'a queue that is not listed',
    code: 'queue_unlisted',
    make: async () => {
      const id = await inQueue()
      await redis('DEL', keys().queues)
      return id
    },
  },
  {
    what: 'a work entry of no job',
    code: 'stray_entry',
    make: async () => {
      const id = await inQueue()
      await redis('XADD', keys().work('any'), '*', 'id', 'nobody')
      return id
    },
  },
  {
    what: 'a work entry of a job that has ended',
    code: 'stray_entry',
    make: async () => {
      const id = await ended()
      await redis('XADD', keys().work('any'), '*', 'id', id)
      return id
    },
  },
  {
    what: 'a second work entry of a job',
    code: 'stray_entry',
    make: async () => {
      const id = await inQueue()
      await redis('XADD', keys().work('any'), '*', 'id', id)
      return id
    },
  },
  {
    what: 'a pending entry that is not in the queue',
    code: 'stray_pending',
    make: async () => {
      const { id } = await running()
      const entry = String(await redis('XADD', keys().work('any'), '*', 'id', 'nobody'))
      await redis('XREADGROUP', 'GROUP', 'workers', 'w', 'STREAMS', keys().work('any'), '>')
      await redis('XDEL', keys().work('any'), entry)
      return id
    },
  },
  {
    what: 'a scheduled job that nobody would queue',
    code: 'not_due',
    make: async () => {
      const id = await inQueue({ delayMs: 3_600_000 })
      await redis('DEL', keys().scheduled)
      return id
    },
    check: async (id) =>
      expect(Number(await redis('ZSCORE', keys().scheduled, id))).toBe((await h.jobs.get(id))?.runAt),
  },
  {
    what: 'a scheduled job at another time than its own',
    code: 'not_due',
    make: async () => {
      const id = await inQueue({ delayMs: 3_600_000 })
      await redis('ZADD', keys().scheduled, 4e12, id)
      return id
    },
  },
  {
    what: 'a running job among the scheduled ones',
    code: 'stray_due',
    make: async () => {
      const { id } = await running()
      await redis('ZADD', keys().scheduled, 4e12, id)
      return id
    },
  },
  {
    what: 'a scheduled id of no job',
    code: 'stray_member',
    make: async () => {
      await redis('ZADD', keys().scheduled, 4e12, 'nobody')
      return undefined
    },
  },
  {
    what: 'an attempt whose time nobody would end',
    code: 'deadline_missing',
    make: async () => {
      const { id } = await running({ timeoutMs: 60_000 })
      await redis('DEL', keys().deadlines)
      return id
    },
  },
  {
    what: 'an attempt whose silence nobody would end',
    code: 'deadline_missing',
    make: async () => {
      const { id } = await running({ stallMs: 60_000 })
      await redis('DEL', keys().deadlines)
      return id
    },
  },
  {
    what: 'a wait whose time nobody would end',
    code: 'deadline_missing',
    make: async () => {
      const id = await inQueue({ ttlMs: 60_000 })
      await redis('DEL', keys().deadlines)
      return id
    },
  },
  {
    what: 'a deadline of a job that has none',
    code: 'stray_deadline',
    make: async () => {
      const id = await inQueue()
      await redis('ZADD', keys().deadlines, 4e12, id)
      return id
    },
  },
  {
    what: 'an ended job that no list has',
    code: 'not_listed',
    make: async () => {
      const id = await ended(TAGS)
      await redis('XDEL', keys().endedAs('COMPLETED:86400000'), await field(id, 'place'))
      return id
    },
    check: async (id) =>
      expect((await h.jobs.list({ state: 'COMPLETED' })).jobs.map((job) => job.id)).toEqual([id]),
  },
  {
    what: 'a list of ended jobs that is not listed',
    code: 'list_unknown',
    make: async () => {
      const id = await ended()
      await redis('DEL', keys().ended)
      return id
    },
    check: async () => expect((await h.jobs.counts()).COMPLETED).toBe(1),
  },
  {
    what: 'an entry of an ended job that was deleted by hand',
    code: 'stray_listed',
    make: async () => {
      const id = await ended()
      await redis('DEL', keys().job(id), keys().events(id))
      return undefined
    },
    check: async () => expect((await h.jobs.counts()).COMPLETED).toBe(0),
  },
  {
    what: 'an ended job that would never go',
    code: 'lives_for_ever',
    make: async () => {
      const id = await ended()
      await redis('PERSIST', keys().job(id))
      await redis('PERSIST', keys().events(id))
      return id
    },
  },
  {
    what: 'a history that outlives its job',
    code: 'lifetimes_differ',
    make: async () => {
      const id = await ended()
      await redis('PERSIST', keys().events(id))
      return id
    },
  },
  {
    what: 'a queued job that would go by itself',
    code: 'would_vanish',
    make: async () => {
      const id = await inQueue()
      await redis('PEXPIRE', keys().job(id), 60_000)
      return id
    },
  },
  {
    what: 'a heartbeat that never ends',
    code: 'heartbeat_for_ever',
    make: async () => {
      const { id, fence } = await running()
      await redis('SET', keys().heartbeat(id), `${fence} taker`)
      return id
    },
  },
  {
    what: 'a heartbeat of another attempt',
    code: 'stray_heartbeat',
    make: async () => {
      const { id } = await running()
      await redis('SET', keys().heartbeat(id), '7-other w', 'PX', 60_000)
      return id
    },
  },
  {
    what: 'a job that its tag does not list',
    code: 'tag_differs',
    also: ['lives_for_ever'],
    make: async () => {
      const id = await inQueue(TAGS)
      await redis('ZREM', keys().tag('red'), id)
      return id
    },
  },
  {
    what: 'a job that its owner does not list',
    code: 'tag_differs',
    make: async () => {
      const id = await inQueue(TAGS)
      await redis('DEL', keys().tag('@ann'))
      return id
    },
  },
  {
    what: 'an ended job that its tag does not list',
    code: 'tag_differs',
    make: async () => {
      const id = await ended(TAGS)
      await redis('ZREM', keys().tagEnded('red'), id)
      return id
    },
  },
  {
    what: 'a job that its tag counts in another state',
    code: 'tag_differs',
    make: async () => {
      const id = await inQueue(TAGS)
      await redis('ZADD', keys().tagStates('red'), 3e13, id)
      return id
    },
    check: async () =>
      expect(await h.jobs.counts({ tag: 'red' })).toMatchObject({ QUEUED: 1, PROCESSING: 0 }),
  },
  {
    what: 'a tag that counts no job at all',
    code: 'tag_differs',
    make: async () => {
      const id = await inQueue(TAGS)
      await redis('DEL', keys().tagStates('red'))
      return id
    },
    check: async () => expect(await h.jobs.counts({ tag: 'red' })).toMatchObject({ QUEUED: 1 }),
  },
  {
    what: 'a tag that counts a job which is not there',
    code: 'stray_member',
    make: async () => {
      const id = await inQueue(TAGS)
      await redis('ZADD', keys().tagStates('red'), 2e13, 'nobody')
      return id
    },
  },
  {
    what: 'a tag that lists a job which does not carry it',
    code: 'stray_member',
    also: ['lives_for_ever'],
    make: async () => {
      const id = await inQueue()
      await redis('ZADD', keys().tagEnded('blue'), 4e12, id)
      return id
    },
  },
  {
    what: 'counts of a tag that would go though a job has not ended',
    code: 'would_vanish',
    make: async () => {
      const id = await inQueue(TAGS)
      await redis('PEXPIRE', keys().tagStates('red'), 60_000)
      return id
    },
  },
  {
    what: 'a queued job whose hash is gone',
    code: 'stream_without_hash',
    also: ['not_queued', 'stray_entry', 'stray_member'],
    make: async () => {
      const id = await inQueue({ ...TAGS, priority: 'normal', maxAttempts: 7 })
      await redis('DEL', keys().job(id))
      return id
    },
    check: async (id) =>
      expect(await h.jobs.get(id)).toMatchObject({ state: 'QUEUED', maxAttempts: 7, owner: 'ann' }),
  },
  {
    what: 'a running job whose hash is gone',
    code: 'stream_without_hash',
    also: ['not_held', 'stray_entry', 'stray_member', 'would_vanish', 'lives_for_ever'],
    make: async () => {
      const grant = await running(TAGS)
      await h.jobs.transitions.progress(grant, 1, '{"done":1}')
      await redis('DEL', keys().job(grant.id))
      return grant.id
    },
    check: async (id) =>
      expect(await h.jobs.get(id)).toMatchObject({
        state: 'PROCESSING',
        worker: 'taker',
        progress: { done: 1 },
      }),
  },
  {
    what: 'a scheduled job whose hash is gone',
    code: 'stream_without_hash',
    also: ['stray_member', 'not_due'],
    make: async () => {
      const id = await inQueue({ delayMs: 3_600_000 })
      await redis('DEL', keys().job(id))
      return id
    },
  },
  {
    what: 'an ended job whose hash is gone',
    code: 'stream_without_hash',
    also: ['not_listed', 'stray_listed'],
    make: async () => {
      const id = await ended()
      await redis('DEL', keys().job(id))
      return id
    },
    check: async (id) => expect(await h.jobs.get(id)).toMatchObject({ state: 'COMPLETED', result: 'first' }),
  },
  {
    what: 'a hash that can’t be read',
    code: 'hash_unreadable',

    make: async () => {
      const { id } = await running()
      await redis('HSET', keys().job(id), 'now', 'garbage')
      return id
    },
  },
  {
    what: 'a hash without a name',
    code: 'hash_unreadable',
    make: async () => {
      const id = await inQueue()
      await redis('HDEL', keys().job(id), 'name')
      return id
    },
  },
  {
    what: 'a hash with broken options',
    code: 'hash_unreadable',
    make: async () => {
      const id = await inQueue(TAGS)
      await redis('HSET', keys().job(id), 'options', '{')
      return id
    },
    check: async (id) => expect(await h.jobs.get(id)).toMatchObject(TAGS),
  },
  {
    what: 'a hash that is behind its history',
    code: 'behind_history',
    make: async () => {
      const grant = await running()
      const before = await field(grant.id, 'now')
      await h.jobs.transitions.progress(grant, 1, '{"done":1}')
      await redis('HSET', keys().job(grant.id), 'now', before)
      return grant.id
    },
    check: async (id) => {
      // Its worker still has it.
      const fence = (await field(id, 'now')).split(' ')[3] as string
      expect(await h.jobs.transitions.progress({ id, fence }, 2, '{"done":2}')).toMatchObject({ ok: true })
    },
  },
  {
    what: 'a hash that is behind its history by a change of state',
    code: 'behind_history',
    also: ['not_held', 'not_listed', 'lives_for_ever', 'stray_listed', 'not_queued', 'lifetimes_differ'],
    make: async () => {
      const id = await inQueue()
      const before = await field(id, 'now')
      await h.jobs.transitions.complete(await take(id), '"first"')
      await redis('HSET', keys().job(id), 'now', before)
      return id
    },
    check: async (id) => expect(await h.jobs.get(id)).toMatchObject({ state: 'COMPLETED', result: 'first' }),
  },
  {
    what: 'a history that lost its end',
    code: 'history_short',
    lossy: true,
    make: async () => {
      const grant = await running()
      await h.jobs.transitions.progress(grant, 1, '{"done":1}')
      await redis(
        'XDEL',
        keys().events(grant.id),
        await h.jobs.get(grant.id).then((job) => job?.cursor ?? ''),
      )
      return grant.id
    },
  },
  {
    what: 'a running job without history',
    code: 'hash_without_stream',
    lossy: true,
    make: async () => {
      const { id } = await running()
      await redis('DEL', keys().events(id))
      return id
    },
  },
  {
    what: 'an ended job without history',
    code: 'hash_without_stream',
    lossy: true,
    make: async () => {
      const id = await ended()
      await redis('DEL', keys().events(id))
      return undefined
    },
  },
  {
    what: 'an idempotency key that would never go',
    code: 'lives_for_ever',
    make: async () => {
      await redis('SET', keys().key('abc'), 'gone digest')
      return undefined
    },
  },
  {
    what: 'a worker that would be there for ever',
    code: 'lives_for_ever',
    make: async () => {
      await redis('SET', keys().worker('w'), '{}')
      return undefined
    },
  },
  {
    what: 'a worker that is listed and not there',
    code: 'stray_worker',
    also: ['lives_for_ever'],
    make: async () => {
      await redis('ZADD', keys().workers, 4e12, 'w')
      return undefined
    },
  },
  {
    what: 'a layout that is gone',
    code: 'layout_missing',
    make: async () => {
      const id = await inQueue()
      await redis('DEL', keys().layout)
      return id
    },
    check: async () => expect(await redis('HGET', keys().layout, 'partitions')).toBe('1'),
  },
]

it('finds nothing wrong with jobs of every option, waiting, running and ended', async () => {
  const all = {
    ...TAGS,
    timeoutMs: 60_000,
    stallMs: 50_000,
    leaseMs: 20_000,
    ttlMs: 60_000,
    retentionMs: 60_000,
  }
  for (const options of [all, { ...all, timeoutMs: undefined }, { ...all, stallMs: undefined }, {}]) {
    await ended({ ...options, key: JSON.stringify(options) })
    const held = await running(options)
    await h.jobs.transitions.heartbeat(held)
    await inQueue(options)
    await inQueue({ ...options, delayMs: 60_000 })
  }
  expect((await examine(h.jobs)).damages).toEqual([])
})

describe('what is mended', () => {
  it.each(CASES)('$code: $what', async ({ code, make, also = [], check, lossy }) => {
    const id = await make()
    const before = await h.redis.digest()
    const found = await examine(h.jobs)
    expect(codes(found)).toContain(code)
    expect(codes(found).filter((each) => each !== code && !also.includes(each))).toEqual([])
    expect(found.worst).not.toBe('clean')
    expect(await h.redis.digest()).toBe(before)

    const mended = await examine(h.jobs, { fix: true })
    expect(mended.damages.filter(({ outcome }) => outcome !== 'mended')).toEqual([])
    expect(codes(mended).filter((each) => each !== code && !also.includes(each))).toEqual([])
    expect(mended.worst).toBe(worstOfServer(mended))
    expect((await examine(h.jobs)).damages).toEqual([])
    if (!lossy) expect(await checkInvariants(h.jobs, id ? [id] : [])).toEqual([])

    if (id) {
      await check?.(id)
      await runToItsEnd(id)
    } else await check?.('')
    expect((await examine(h.jobs)).damages).toEqual([])
  })
})

describe('what can’t be mended as it was', () => {
  it.each([
    ['queued', {}],
    ['scheduled', { delayMs: 3_600_000 }],
  ])('a %s job whose payload is lost has failed as DAMAGED', async (_, options) => {
    const id = await inQueue({ ...options, ...TAGS })
    await redis('DEL', keys().events(id))
    expect(codes(await examine(h.jobs))).toEqual(['payload_lost'])
    expect((await examine(h.jobs, { fix: true })).damages).toMatchObject([
      { code: 'payload_lost', about: id, outcome: 'mended' },
    ])
    expect(await h.jobs.get(id)).toMatchObject({ state: 'FAILED', error: { code: 'DAMAGED' } })
    expect(await h.jobs.counts({ tag: 'red' })).toMatchObject({ FAILED: 1, QUEUED: 0, SCHEDULED: 0 })
    expect((await examine(h.jobs)).damages).toEqual([])
  })

  it.each<[string, DamageCode, () => Promise<unknown>]>([
    [
      'a history that does not tell how it began, without a job',
      'stream_without_hash',
      async () => {
        const id = await inQueue()
        await redis('XTRIM', keys().events(id), 'MAXLEN', 0)
        await redis('XDEL', keys().work('any'), await field(id, 'place'))
        await redis('DEL', keys().job(id))
      },
    ],
    [
      'a result that was too large for its event',
      'stream_without_hash',
      async () => {
        const grant = await running()
        await h.jobs.transitions.complete(grant, JSON.stringify('x'.repeat(20_000)))
        await redis('DEL', keys().job(grant.id), keys().endedAs('COMPLETED:86400000'))
      },
    ],
    ['a key of no name that is known', 'unknown_key', () => redis('SET', `${keys().prefix}else:1`, '1')],
    ['a key of another type', 'unreadable', () => redis('SET', keys().tag('red'), '1')],
    ['a job of another type', 'unreadable', () => redis('SET', keys().job('alien'), '1')],
    ['a history of another type', 'unreadable', () => redis('SET', keys().events('alien'), '1')],
    [
      'a hash that can’t be read, beside a history of another type',
      'hash_unreadable',
      async () => {
        await redis('HSET', keys().job('alien'), 'now', 'garbage')
        await redis('SET', keys().events('alien'), '1')
      },
    ],
    [
      'an event whose JSON is broken, behind its job',
      'behind_history',
      async () => redis('XADD', keys().events(await inQueue()), '999-1', 'e', 'progress 0 {broken'),
    ],
    [
      'a partition that nobody here knows',
      'foreign_partition',
      () => redis('SET', keysOf(h.jobs.namespace, 7).job('a'), '1'),
    ],
  ])('%s is named and left as it is', async (_, code, make) => {
    await inQueue()
    await make()
    expect(codes(await examine(h.jobs))).toContain(code)
    const before = await h.redis.digest()
    const { damages, worst } = await examine(h.jobs, { fix: true })
    expect(damages.filter(({ outcome }) => outcome !== 'left')).toEqual([])
    expect(damages.map((damage) => damage.code)).toContain(code)
    expect(worst).toBe(code === 'unknown_key' ? 'warning' : 'error')
    expect(await h.redis.digest()).toBe(before)
  })

  it('where no reaper sweeps it says so', async () => {
    await inQueue()
    await redis('HSET', keys().sweep, 'at', 1)
    expect((await examine(h.jobs, { fix: true })).damages).toMatchObject([
      { code: 'no_reaper', severity: 'warning', outcome: 'left' },
    ])
  })

  it('no reaper is missed where no job was ever queued', async () => {
    await redis('DEL', keys().sweep)
    expect((await examine(h.jobs)).damages.map(({ code }) => code)).not.toContain('no_reaper')
  })
})

it('a watcher who counts the jobs of a tag is told of a repair, by number', async () => {
  const id = await inQueue(TAGS)
  await redis('ZADD', keys().tagStates('red'), 3e13, id)
  const counted = Number(await redis('ZSCORE', keys().tagStates('red'), '*'))
  const client = h.redis.client().duplicate()
  const heard = new Promise((resolve) => client.on('message', (_, message) => resolve(message)))
  await client.subscribe(keys().tagStates('red'))
  await examine(h.jobs, { fix: true })
  expect(await heard).toBe(`${counted + 1} ${id} PROCESSING QUEUED 1`)
  client.disconnect()
})

it('a caretaker mends step by step, tells once what can’t be mended, and counts', async () => {
  const id = await inQueue()
  await redis('DEL', keys().work('any'))
  await redis('SET', `${keys().prefix}else:\x1b[31m`, '1')
  const caretaker = caretakerOf(h.jobs)
  const told = []
  for (let n = 0; n < 30; n++) told.push(...(await caretaker.step()))
  expect(told.map(({ code, about, outcome }) => [code, about, outcome]).sort()).toEqual([
    ['not_queued', id, 'mended'],
    ['unknown_key', 'else:?[31m', 'left'],
  ])
  expect(caretaker.counts).toMatchObject({ not_queued: { mended: 1 }, unknown_key: { left: 1 } })
  await runToItsEnd(id)
})

/** Jobs that are in no queue: the caretaker has to look at all of them. */
const loseJobs = async (count: number) => {
  const items = Array.from({ length: count }, (_, n) => ({ payload: n }))
  const made = await h.jobs.enqueueMany(anyJob, items)
  await redis('DEL', keys().work('any'))
  return made.flatMap((item) => (item.ok ? [item.id] : []))
}

it('what stands behind alien keys and broken events is mended, by the doctor and by a caretaker', async () => {
  const aliens = Array.from({ length: 20 }, (_, n) => `alien${n}`)
  for (const id of aliens) {
    await redis('HSET', keys().job(id), 'now', 'garbage')
    await redis('SET', keys().events(id), '1')
    await redis('XADD', keys().events(await inQueue()), '999-1', 'e', 'progress 0 {broken')
  }
  const told = { hash_unreadable: { left: 20 }, behind_history: { left: 20 }, not_queued: { mended: 30 } }
  await loseJobs(30)
  expect((await examine(h.jobs, { fix: true })).counts).toMatchObject(told)
  await redis('DEL', keys().work('any'))
  const caretaker = caretakerOf(h.jobs)
  for (let n = 0; n < 200; n++) await caretaker.step()
  expect(caretaker.counts).toMatchObject(told)
})

it('a caretaker goes on behind what a step failed at, and mends that in the next round', async () => {
  const ids = await loseJobs(120)
  const { script, callAt } = h.jobs.link
  let struck: string | undefined
  let strikes = true
  // Redis never answers for the first job that is looked at.
  vi.spyOn(h.jobs.link, 'script').mockImplementation(async (which, key, argv) => {
    const jobs = argv.filter((word, i) => argv[i - 1] === 'job' && ids.includes(word))
    struck ??= jobs[0]
    if (strikes && struck && jobs.includes(struck)) throw new StateError('REDIS_TIMEOUT', 'never')
    return script.call(h.jobs.link, which, key, argv)
  })
  const caretaker = caretakerOf(h.jobs)
  let failed = 0
  const round = async () => {
    for (let n = 0; n < 50; n++) await caretaker.step().catch(() => failed++)
    return caretaker.counts.not_queued?.mended ?? 0
  }
  try {
    const mended = await round()
    expect(failed).toBeGreaterThan(0)
    // All but those that were looked at by the same script.
    expect(mended).toBeGreaterThanOrEqual(120 - 50)
    expect(mended).toBeLessThan(120)
    strikes = false
    expect(await round()).toBe(120)

    // So it does where SCAN itself fails: at the same place.
    await redis('DEBUG', 'POPULATE', 3_000, 'foreign')
    const cursors: string[] = []
    vi.spyOn(h.jobs.link, 'callAt').mockImplementation(async (key, ...command) => {
      if (command[0] === 'SCAN') cursors.push(String(command[1]))
      if (command[0] === 'SCAN' && cursors.length === 3) throw new StateError('REDIS_TIMEOUT', 'never')
      return callAt.call(h.jobs.link, key, ...command)
    })
    const scanning = caretakerOf(h.jobs)
    while (cursors.length < 3) await scanning.step().catch(() => undefined)
    while (cursors.length < 4) await scanning.step()
    expect(cursors[0]).toBe('0')
    expect(cursors[3]).toBe(cursors[2])
    expect(cursors[3]).not.toBe('0')
  } finally {
    vi.restoreAllMocks()
  }
})

it('rests after each page of keys, be they all somebody else’s', async () => {
  await inQueue()
  await redis('DEBUG', 'POPULATE', 5_000, 'foreign')
  const { callAt } = h.jobs.link
  let scans = 0
  vi.spyOn(h.jobs.link, 'callAt').mockImplementation(async (key, ...command) => {
    if (command[0] === 'SCAN') scans++
    return callAt.call(h.jobs.link, key, ...command)
  })
  try {
    let before = 0
    let most = 0
    const { damages } = await examine(h.jobs, {
      onProgress: () => {
        most = Math.max(most, scans - before)
        before = scans
      },
    })
    expect(damages).toEqual([])
    expect(scans).toBeGreaterThan(5)
    expect(most).toBe(1)
    const caretaker = caretakerOf(h.jobs)
    for (let n = 0; n < 30; n++) {
      before = scans
      await caretaker.step()
      expect(scans - before).toBeLessThanOrEqual(1)
    }
  } finally {
    vi.restoreAllMocks()
  }
})

it('where a running job got its entry back, those who wait stay in the queue when others end', async () => {
  const grant = await running()
  for (let n = 0; n < 10; n++) await inQueue()
  const claimant = { worker: 'other', nonce: 'taken', leaseMs: 60_000 }
  const { grants } = await h.jobs.transitions.take(keys(), 'any', 10, claimant)
  const waiting = await Promise.all(Array.from({ length: 50 }, () => inQueue()))
  const place = await field(grant.id, 'place')
  await redis('XACK', keys().work('any'), 'workers', place)
  await redis('XDEL', keys().work('any'), place)
  expect(codes(await examine(h.jobs, { fix: true }))).toEqual(['not_held'])
  // In one tick: one script ends them all.
  await Promise.all(grants.map((each) => h.jobs.transitions.complete(each, '1')))
  const entries = (await redis('XRANGE', keys().work('any'), '-', '+')) as [string, [string, string]][]
  const queued = entries.map(([, [, id]]) => id)
  expect(waiting.filter((id) => !queued.includes(id))).toEqual([])
  expect(queued).toHaveLength(51)
  expect((await examine(h.jobs)).damages).toEqual([])
})

it('every code stands in docs/doctor.md with its severity, and no other', () => {
  const page = readFileSync(new URL('../../../docs/doctor.md', import.meta.url), 'utf8')
  const rows = [...page.matchAll(/^\| `(\w+)` \| (error|warning) \|/gm)].map(([, code, severity]) => [
    code,
    severity,
  ])
  expect(rows).toEqual(Object.entries(DAMAGES).map(([code, { severity }]) => [code, severity]))
})

const worstOfServer = ({ server }: DoctorReport) => (server.length > 0 ? 'warning' : 'clean')
