// What counts as a dead worker and as a hung handler, each with its own time, a job's own where it was given one; what a
// look costs; and what people are told.
import { once } from 'node:events'
import { defineJob, type EnqueueOptions, type Grant, Jobs, reaperOf, Worker } from '@jobs/state'
import { until } from '@jobs/testkit'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { anyJob, type Harness, startHarness } from './harness.ts'

let h: Harness
beforeAll(async () => {
  h = await startHarness()
})
beforeEach(() => h.redis.client().flushall())
afterAll(() => h.stop())

const LEASE_MS = 60_000
const keysOfAll = () => {
  const [keys] = h.jobs.transitions.keys
  if (!keys) throw new Error('there is no partition')
  return keys
}

const take = async (worker: string, count = 1, leaseMs = LEASE_MS): Promise<Grant[]> => {
  const by = { worker, nonce: `nonce-${worker}`, leaseMs }
  return (await h.jobs.transitions.take(keysOfAll(), anyJob.name, count, by)).grants
}
const enqueue = async (count: number, options: EnqueueOptions = {}) => {
  const items = Array.from({ length: count }, () => ({ payload: 1, options }))
  await h.jobs.enqueueMany(anyJob, items)
}
const beat = (worker: string, grants: Grant[]) => h.jobs.transitions.beat(worker, anyJob.name, grants)
const lapse = (grants: Grant[]) => Promise.all(grants.map(({ id }) => h.lapse(id)))
const idleOf = async (worker: string) => {
  const consumers = (await h.redis
    .client()
    .xinfo('CONSUMERS', keysOfAll().work(anyJob.name), 'workers')) as unknown[][]
  return Number(consumers.find(([, name]) => name === worker)?.[5])
}

/** One step of a sweep that forgives nothing. */
const reap = (more: { minIdleMs?: number; maxGapMs?: number; whole?: boolean; dry?: boolean } = {}) =>
  h.jobs.transitions.reap(keysOfAll(), anyJob.name, {
    ...{ cursor: '0-0', count: 100, minIdleMs: 0, maxGapMs: 0, amnesty: false },
    ...more,
  })
const eventOf = async (id: string, move: string) =>
  (await h.history(id)).findLast((event) => event.type === 'state' && event.move === move)

describe('a worker process that is gone', () => {
  it('loses all its jobs in one step, which looks at none of those that others hold', async () => {
    await enqueue(40)
    const dead = await take('dead', 5)
    const alive = await take('alive', 35)
    await lapse(dead)
    const minIdleMs = 500
    await until(async () => (await idleOf('dead')) > minIdleMs)
    await beat('alive', alive)
    await h.redis.client().config('RESETSTAT')
    const { reaped, cursor } = await reap({ minIdleMs })
    const looked = /cmdstat_xrange:calls=(\d+)/.exec(await h.redis.client().info('commandstats'))?.[1]
    expect(reaped.map(({ id, outcome, detail }) => ({ id, outcome, detail }))).toEqual(
      dead.map(({ id }) => ({ id, outcome: 'QUEUED', detail: 'dead' })),
    )
    expect(cursor).toBe('0-0')
    expect(Number(looked)).toBe(dead.length)
  })

  it('is told with when it was last heard, and what follows', async () => {
    await enqueue(1, { maxCrashes: 1 })
    const [first] = await take('w7', 1, 3_200)
    await lapse([first as Grant])
    const { reaped } = await reap()
    expect(reaped[0]?.says).toMatch(
      /^Worker w7 is lost, last heard \d\.\d s ago \(lease 0\.0 s\)\. Attempt 2 is queued; crash 1, and 1 are allowed\.$/,
    )
    expect(reaped[0]?.silentMs).toBeGreaterThanOrEqual(0)
    const { id } = first as Grant
    expect(await eventOf(id, 'reap')).toMatchObject({
      ...{ state: 'QUEUED', reason: 'worker_lost', worker: 'w7' },
      message: reaped[0]?.says,
    })
    await lapse(await take('w8'))
    await reap()
    expect(await eventOf(id, 'reap')).toMatchObject({
      state: 'FAILED',
      message: expect.stringMatching(/^Worker w8 .*The job has failed: crash 2, and 1 are allowed\.$/),
      error: { code: 'CRASHED' },
    })
  })

  it('is told as what a cancel came to, where one had been requested', async () => {
    await enqueue(1)
    const grants = await take('w7')
    const { id } = grants[0] as Grant
    await h.jobs.cancel(id)
    await lapse(grants)
    await reap()
    expect(await eventOf(id, 'reap')).toMatchObject({
      state: 'CANCELLED',
      message: expect.stringContaining('A cancel had been requested: the job is cancelled.'),
    })
  })

  it('leaves jobs with a crashBackoff waiting for it', async () => {
    await enqueue(1, { crashBackoff: { type: 'fixed', delayMs: 30_000, jitter: 0 } })
    const grants = await take('w7')
    await lapse(grants)
    const { reaped } = await reap()
    expect(reaped).toMatchObject([
      { outcome: 'SCHEDULED', says: expect.stringContaining('Attempt 2 follows in 30 s; crash 1,') },
    ])
    const job = await h.jobs.get((grants[0] as Grant).id)
    expect(job).toMatchObject({ state: 'SCHEDULED', crashes: 1 })
    expect((job?.runAt as number) - (job?.updatedAt as number)).toBe(30_000)
  })

  it('is found behind its name, when another process has taken that', async () => {
    await enqueue(1)
    const grants = await take('same')
    const { id } = grants[0] as Grant
    const entry = await h.place(id)
    // As the other one does with its own list, at its start.
    const again = await h.jobs.transitions.claim(id, entry, {
      worker: 'same',
      nonce: 'other',
      leaseMs: LEASE_MS,
    })
    expect(again).toMatchObject({ ok: false, reason: 'illegal' })
    const minIdleMs = 60
    await until(async () => (await idleOf('reaper')) > minIdleMs)
    // The name is heard of.
    await take('same')
    expect((await reap({ minIdleMs })).reaped).toEqual([])
    await lapse(grants)
    expect((await reap({ minIdleMs })).reaped).toMatchObject([{ id, outcome: 'QUEUED' }])
  })
})

it('an attempt that a live worker has forgotten is found by the walk through all that is held', async () => {
  await enqueue(3)
  const [forgotten, ...kept] = await take('w7', 3)
  await lapse([forgotten as Grant])
  const minIdleMs = 600
  await until(async () => (await idleOf('w7')) > minIdleMs)
  await beat('w7', kept)
  expect((await reap({ minIdleMs })).reaped).toEqual([])
  expect((await reap({ minIdleMs, whole: true })).reaped).toMatchObject([
    {
      ...{ id: forgotten?.id, outcome: 'QUEUED', silentMs: null },
      says: expect.stringContaining('Worker w7 lives and keeps the attempt alive no more'),
    },
  ])
})

describe('a beat', () => {
  it('is one call for many attempts, and answers by each what it must hear', async () => {
    await enqueue(4)
    const [well, cancelled, lost, broken] = (await take('w7', 4)) as [Grant, Grant, Grant, Grant]
    await h.jobs.cancel(cancelled.id)
    await h.jobs.transitions.complete(lost, '1')
    const keys = keysOfAll()
    await h.redis.client().del(keys.job(broken.id))
    await h.redis.client().set(keys.job(broken.id), 'no hash')
    expect(await beat('w7', [well, cancelled, lost, broken])).toEqual([undefined, 'cancel', 'lost', 'error'])
  })

  it('tells of a cancel, whether there was a heartbeat before it, after it, or one that the reaper has armed', async () => {
    await enqueue(3)
    const [before, after, armed] = (await take('w7', 3)) as [Grant, Grant, Grant]
    const age = ({ id }: Grant) => h.redis.client().hset(keysOfAll().job(id), 'run', `1 ${LEASE_MS}`)
    await Promise.all([before, after, armed].map(age))
    expect(await beat('w7', [before, armed])).toEqual([undefined, undefined])
    for (const { id } of [before, after, armed]) await h.jobs.cancel(id)
    await h.redis.client().del(keysOfAll().heartbeat(armed.id), keysOfAll().sweep)
    expect((await reap({ whole: true, maxGapMs: 1_000 })).reaped).toMatchObject([
      { id: after.id, outcome: 'rearmed' },
      { id: armed.id, outcome: 'rearmed' },
    ])
    await h.redis.client().del(keysOfAll().heartbeat(after.id))
    for (const _ of ['first', 'second'])
      expect(await beat('w7', [before, after, armed])).toEqual(['cancel', 'cancel', 'cancel'])
  })

  it('of a worker that has lost its job prolongs nothing of the one that has it', async () => {
    await enqueue(1)
    const [lost] = (await take('w7')) as [Grant]
    await lapse([lost])
    await reap()
    const [held] = (await take('w8')) as [Grant]
    await h.redis.client().hset(keysOfAll().job(held.id), 'run', `1 ${LEASE_MS}`)
    await beat('w8', [held])
    const leftMs = () => h.redis.client().pttl(keysOfAll().heartbeat(held.id))
    const leftBefore = await leftMs()
    expect(await beat('w7', [{ ...lost, leaseMs: 100 * LEASE_MS }])).toEqual(['lost'])
    // Its owner has been heard since, or not.
    expect(Math.abs((await leftMs()) - leftBefore)).toBeLessThan(5_000)
    expect(await beat('w8', [held])).toEqual([undefined])

    // Where nobody has the job there is no heartbeat to keep.
    await h.jobs.transitions.complete(held, '1')
    await h.redis.client().set(keysOfAll().heartbeat(held.id), `${held.fence} w8`)
    expect(await beat('w7', [lost])).toEqual(['lost'])
    await until(async () => (await h.redis.client().exists(keysOfAll().heartbeat(held.id))) === 0)
  })

  it('sets the heartbeat of attempts that are old enough, for the lease of each', async () => {
    await enqueue(1)
    await enqueue(1, { leaseMs: 10_000 })
    const grants = await take('w7', 2)
    const keys = keysOfAll()
    await beat('w7', grants)
    for (const { id } of grants) expect(await h.redis.client().exists(keys.heartbeat(id))).toBe(0)
    for (const { id, leaseMs } of grants)
      await h.redis.client().hset(keys.job(id), 'run', `${Date.now() - leaseMs / 2} ${leaseMs}`)
    for (const _ of ['first', 'second']) {
      await beat('w7', grants)
      for (const { id, leaseMs } of grants) {
        const leftMs = await h.redis.client().pttl(keys.heartbeat(id))
        expect(leftMs).toBeGreaterThan(leaseMs - 5_000)
        expect(leftMs).toBeLessThanOrEqual(leaseMs)
      }
    }
    expect(grants.map(({ leaseMs }) => leaseMs)).toEqual([LEASE_MS, 10_000])
  })
})

it('a job with a shorter lease than its worker’s is beaten for as often as that takes', async () => {
  const definition = defineJob({ name: 'short-lease' })
  const worker = new Worker(
    h.jobs,
    definition,
    ({ signal }) => new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve())),
    { leaseMs: 3_600_000 },
  )
  await worker.start()
  const active = once(worker, 'active')
  const { id } = await h.jobs.enqueue(definition, 1, { leaseMs: 300 })
  await active
  const beats = keysOfAll().heartbeat(id)
  await until(() => h.redis.client().exists(beats))
  const from = performance.now()
  await until(async () => {
    const leftMs = await h.redis.client().pttl(beats)
    expect(leftMs).toBeGreaterThan(0)
    expect(leftMs).toBeLessThanOrEqual(300)
    return performance.now() - from > 3 * 300
  })
  await worker.stop({ graceMs: 0 })
})

describe('a handler that hangs', () => {
  const run = async (handler: (report: (n: number) => void, signal: AbortSignal) => Promise<unknown>) => {
    const definition = defineJob({ name: 'hangs' })
    const worker = new Worker(h.jobs, definition, ({ progress, signal }) => handler(progress, signal), {
      progressIntervalMs: 0,
    })
    await worker.start()
    const { id } = await h.jobs.enqueue(definition, 1, { stallMs: 150, maxAttempts: 1 })
    const ended = await h.jobs.wait(id)
    await worker.stop({ graceMs: 0 })
    return ended
  }

  it('fails as STALLED once it has reported nothing for its time, whatever it does with its signal', async () => {
    expect(await run(() => new Promise(() => undefined))).toMatchObject({
      ...{ state: 'FAILED', failures: 1, crashes: 0 },
      error: { code: 'STALLED' },
    })
  })

  it('is none while it reports, however long it takes', async () => {
    const ended = await run(async (report) => {
      for (let n = 0; n < 10; n++) {
        report(n)
        await new Promise((resolve) => setTimeout(resolve, 50))
      }
    })
    expect(ended).toMatchObject({ state: 'COMPLETED' })
  })

  it('loses its job to the reaper a lease later, when its worker does not end it; reports put that off', async () => {
    await enqueue(1, { stallMs: 100, maxAttempts: 2 })
    const [grant] = (await take('w7', 1, 200)) as [Grant]
    const { transitions } = h.jobs
    const { deadlines } = keysOfAll()
    const expire = () => transitions.expire(keysOfAll(), 10)
    const at = Number(await h.redis.client().zscore(deadlines, grant.id))
    // It reports just before that time has come.
    const timeOf = ([seconds, micros]: number[]) => Number(seconds) * 1_000 + Number(micros) / 1_000
    await until(async () => timeOf(await h.redis.client().time()) > at - 50)
    await transitions.progress(grant, 1, '1')
    await until(async () => timeOf(await h.redis.client().time()) > at)
    expect(await expire()).toEqual({ expired: [], more: false })
    expect(Number(await h.redis.client().zscore(deadlines, grant.id))).toBeGreaterThan(at)
    const expired = await until(async () => (await expire()).expired[0])
    expect(expired).toMatchObject({ id: grant.id, outcome: 'QUEUED' })
    expect(expired?.says).toBe(
      'Attempt 1 on worker w7 reported nothing for 0.1 s. Attempt 2 is queued; failure 1, and 1 are allowed.',
    )
    expect(await eventOf(grant.id, 'timeout')).toMatchObject({
      message: expired?.says,
      error: { code: 'STALLED' },
    })
    expect(await h.redis.client().zscore(deadlines, grant.id)).toBeNull()
  })
})

it('passes that only tell write nothing, and tell what would be done', async () => {
  await enqueue(150)
  const lost = await take('gone', 120)
  await lapse(lost)
  await enqueue(130, { delayMs: LEASE_MS })
  await enqueue(110, { ttlMs: LEASE_MS })
  const { scheduled, deadlines } = keysOfAll()
  const client = h.redis.client()
  for (const key of [scheduled, deadlines])
    for (const id of await client.zrange(key, '0', '-1')) await client.zadd(key, 1, String(id))
  const before = await h.redis.digest()
  const reaper = reaperOf(h.jobs, { intervalMs: 100, dry: true })
  const { reaped, amnesty } = await reaper.sweep(0)
  expect(reaped.map(({ id, outcome }) => `${id} ${outcome}`).sort()).toEqual(
    lost.map(({ id }) => `${id} QUEUED`).sort(),
  )
  // No reaper was there before: the first real sweep would only arm heartbeats anew.
  expect(amnesty).toBe(true)
  expect((await reaper.promote()).promoted).toHaveLength(130)
  expect((await reaper.expire()).expired.map(({ outcome }) => outcome)).toEqual(Array(110).fill('FAILED'))
  expect(await h.redis.digest()).toBe(before)
})

describe('a grant whose answer comes later than its lease', () => {
  const LATE_MS = 300
  /** A worker that hears of its first grant only when it is let, and what its handlers have run. */
  const hardOfHearing = async () => {
    const heard = Promise.withResolvers<void>()
    const granted = Promise.withResolvers<void>()
    const jobs = new Jobs({
      ...{ url: h.redis.url, namespace: h.jobs.namespace, commandTimeoutMs: 20_000, deadlineMs: 30_000 },
      fault: async (point, command) => {
        if (point !== 'after' || (command !== 'apply' && command !== 'take')) return
        if ((await h.jobs.counts()).PROCESSING === 0) return
        granted.resolve()
        await heard.promise
      },
    })
    const ran: number[] = []
    const worker = new Worker(jobs, anyJob, ({ attempt }) => void ran.push(attempt), { leaseMs: LATE_MS })
    worker.on('error', () => undefined)
    await worker.start()
    const { id } = await h.jobs.enqueue(anyJob, 1)
    await granted.promise
    await until(async () => (await h.jobs.explain(id))?.says.includes('longer than its lease'))
    return { id, ran, worker, hear: heard.resolve, close: () => worker.stop().then(() => jobs.close()) }
  }

  it('is not run beside the one of the worker that has the job by then', async () => {
    const { id, ran, hear, close } = await hardOfHearing()
    await until(async () => (await reap()).reaped.length > 0)
    const [again] = await take('other')
    expect(again).toMatchObject({ id, attempt: 2 })
    hear()
    await close()
    expect(ran).toEqual([])
    expect(await h.jobs.get(id)).toMatchObject({ state: 'PROCESSING', attempt: 2 })
  })

  it('is granted once more, and run once, where nobody has taken the job', async () => {
    const { id, ran, hear, close } = await hardOfHearing()
    hear()
    expect(await h.jobs.wait(id)).toMatchObject({ state: 'COMPLETED', attempt: 1 })
    expect(ran).toEqual([1])
    await close()
  })
})
