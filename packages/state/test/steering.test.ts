// Steering jobs: cancel, rerun, remove, reschedule, pause, resume, drain. Each may be done twice.
import { defineJob } from '@jobs/state'
import { until } from '@jobs/testkit'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { redisTime } from '../src/redis.ts'
import { reapOnce } from './reaper.ts'
import { gate, type Stage, startStage } from './stage.ts'

let stage: Stage
beforeAll(async () => {
  stage = await startStage({ partitions: 2 })
})
afterAll(() => stage.stop())

let kinds = 0
const kind = () => defineJob({ name: `steered${kinds++}` })

const untilAborted = ({ signal }: { signal: AbortSignal }) =>
  new Promise<never>((_, reject) => signal.addEventListener('abort', () => reject(signal.reason)))

describe('cancel', () => {
  it.each([
    ['queued', {}],
    ['scheduled', { delayMs: 60_000 }],
  ])('ends a %s job at once, and once', async (_, options) => {
    const { jobs } = stage
    const { id } = await jobs.enqueue(kind(), 1, options)
    const first = await jobs.cancel(id)
    expect(first).toMatchObject({ ok: true, state: 'CANCELLED', repeat: false })
    expect(await jobs.cancel(id)).toEqual({ ...first, repeat: true })
    expect(await jobs.wait(id)).toMatchObject({ state: 'CANCELLED', cancelRequested: true, attempt: 0 })
    await jobs.step('2m')
    expect((await jobs.get(id))?.state).toBe('CANCELLED')
  })

  it('stops a running job by its signal; a second request changes nothing', async () => {
    const { jobs } = stage
    const definition = kind()
    const worker = await jobs.work(definition, untilAborted, { leaseMs: 600 })
    const { id } = await jobs.enqueue(definition, 1)
    await jobs.until(id, 'PROCESSING')
    expect(await jobs.cancel(id)).toMatchObject({ ok: true, state: 'PROCESSING', repeat: false })
    await jobs.cancel(id)
    expect(await jobs.wait(id)).toMatchObject({ state: 'CANCELLED', cancelRequested: true, failures: 0 })
    expect(await jobs.attempts(id)).toMatchObject([{ outcome: 'cancelled' }])
    await worker.stop()
  })

  it('lets a running job complete that does not heed it, and does not retry one that fails', async () => {
    const { jobs } = stage
    const { job } = await jobs.run(kind(), ({ id }) => jobs.cancel(id).then(() => 'done'), 1)
    expect(job).toMatchObject({ state: 'COMPLETED', cancelRequested: true })
    const failing = await jobs.run(
      kind(),
      async ({ id }) => {
        await jobs.cancel(id)
        throw new Error('no')
      },
      1,
    )
    expect(failing.job).toMatchObject({ state: 'CANCELLED', attempt: 1 })
  })

  it('ends a running job whose worker died, instead of another attempt', async () => {
    const { jobs } = stage
    const { job } = await jobs.run(
      kind(),
      async ({ id }) => {
        await jobs.cancel(id)
        await jobs.crash(id)
      },
      1,
    )
    expect(job).toMatchObject({ state: 'CANCELLED', attempt: 1, crashes: 1 })
  })

  it('ends one that waits for its backoff', async () => {
    const { jobs } = stage
    const definition = kind()
    const worker = await jobs.work(definition, () => {
      throw new Error('no')
    })
    const { id } = await jobs.enqueue(definition, 1, { backoff: { delayMs: 60_000, maxMs: 60_000 } })
    await jobs.until(id, 'SCHEDULED')
    await jobs.cancel(id)
    expect(await jobs.wait(id)).toMatchObject({ state: 'CANCELLED', attempt: 1 })
    await worker.stop()
  })

  it.each([
    ['COMPLETED', () => 1],
    [
      'FAILED',
      (): number => {
        throw new Error('no')
      },
    ],
  ] as [string, () => number][])(
    'is refused for a job that is %s, and for one that is not there',
    async (state, handler) => {
      const { jobs } = stage
      const { job } = await jobs.run(kind(), handler, 1, { maxAttempts: 1 })
      expect(await jobs.cancel(job.id)).toEqual({ ok: false, reason: 'illegal', state })
      expect(await jobs.cancel('nobody')).toEqual({ ok: false, reason: 'unknown_job', state: null })
    },
  )
})

describe('rerun', () => {
  it('runs an ended job again: same id and payload, fresh budgets, its history kept', async () => {
    const { jobs, workOff } = stage
    const definition = kind()
    let bad = true
    const handler = ({ payload }: { payload: unknown }) => {
      if (bad) throw new Error('bad day')
      return payload
    }
    const { job } = await jobs.run(definition, handler, { n: 7 }, { maxAttempts: 2, tags: ['again'] })
    expect(job).toMatchObject({ state: 'FAILED', failures: 2 })
    const first = await jobs.rerun(job.id)
    expect(first).toMatchObject({ ok: true, state: 'QUEUED', repeat: false })
    expect(await jobs.rerun(job.id)).toEqual({ ...first, repeat: true })
    expect(await jobs.get(job.id)).toMatchObject({ failures: 0, error: null, endedAt: null })
    const key = jobs.transitions.keysFor(job.id).job(job.id)
    expect(await stage.redis.client().pttl(key)).toBe(-1)
    bad = false
    await workOff(definition, handler, [job.id])
    expect(await jobs.get(job.id)).toMatchObject({ state: 'COMPLETED', attempt: 3, result: { n: 7 } })
    expect(await jobs.attempts(job.id)).toHaveLength(3)
    expect((await jobs.list({ tag: 'again' })).jobs).toHaveLength(1)
  })

  it('forgets a cancel', async () => {
    const { jobs, workOff } = stage
    const definition = kind()
    const { id } = await jobs.enqueue(definition, 1)
    await jobs.cancel(id)
    await jobs.rerun(id)
    await workOff(definition, () => 'ran', [id])
    expect(await jobs.get(id)).toMatchObject({ state: 'COMPLETED', cancelRequested: false })
  })

  it('is refused while the job waits or runs', async () => {
    const { jobs } = stage
    const { id } = await jobs.enqueue(kind(), 1)
    expect(await jobs.rerun(id)).toEqual({ ok: false, reason: 'illegal', state: 'QUEUED' })
    expect(await jobs.rerun('nobody')).toMatchObject({ ok: false, reason: 'unknown_job' })
  })
})

describe('remove', () => {
  it('deletes an ended job with every key and listing of it', async () => {
    const { jobs, redis } = stage
    const { job } = await jobs.run(kind(), () => 1, 1, { tags: ['removed'], owner: 'remover' })
    const completed = (await jobs.counts()).COMPLETED
    expect(await jobs.remove(job.id)).toEqual({ ok: true, repeat: false })
    expect(await jobs.remove(job.id)).toEqual({ ok: true, repeat: true })
    expect(await jobs.get(job.id)).toBeNull()
    expect(await jobs.payload(job.id)).toBeNull()
    expect(await redis.client().keys(`*${job.id}*`)).toEqual([])
    expect((await jobs.counts()).COMPLETED).toBe(completed - 1)
    for (const options of [{ tag: 'removed' }, { owner: 'remover' }])
      expect((await jobs.list(options)).jobs).toEqual([])
  })

  it('is refused while the job waits or runs', async () => {
    const { jobs } = stage
    const { id } = await jobs.enqueue(kind(), 1)
    expect(await jobs.remove(id)).toEqual({ ok: false, reason: 'illegal', state: 'QUEUED' })
    expect(await jobs.get(id)).not.toBeNull()
  })
})

describe('reschedule', () => {
  it('puts off a queued job, brings a scheduled one forward, and takes any of the ways to tell a time', async () => {
    const { jobs } = stage
    const { id } = await jobs.enqueue(kind(), 1)
    expect(await jobs.reschedule(id, { delayMs: 60_000 })).toMatchObject({ ok: true, state: 'SCHEDULED' })
    const at = (await redisTime(jobs.link, jobs.transitions.keys[0]?.prefix ?? '')) + 3_600_000
    for (const runAt of [at, new Date(at)]) {
      await jobs.reschedule(id, { runAt })
      expect(await jobs.get(id)).toMatchObject({ state: 'SCHEDULED', runAt: at })
    }
    expect(await jobs.counts()).toMatchObject({ SCHEDULED: 1 })
    expect(await jobs.reschedule(id, { delayMs: 0 })).toMatchObject({ ok: true, state: 'QUEUED' })
    await jobs.reschedule(id, { delayMs: 60_000 })
    expect(await jobs.reschedule(id, { runAt: new Date(0) })).toMatchObject({ state: 'QUEUED' })
    expect(await jobs.counts()).toMatchObject({ SCHEDULED: 0 })
    await jobs.cancel(id)
  })

  it('runs a job once, however often it is put off', async () => {
    const { jobs, workOff } = stage
    const definition = kind()
    const { id } = await jobs.enqueue(definition, 1, { delayMs: 1_000 })
    for (let i = 0; i < 5; i++) await jobs.reschedule(id, { delayMs: i % 2 ? 0 : 5_000 })
    await jobs.step('5s')
    let runs = 0
    await workOff(definition, () => void runs++, [id])
    expect(runs).toBe(1)
  })

  it('is refused for a job that runs or has ended, and for what is no time', async () => {
    const { jobs } = stage
    const { job } = await jobs.run(
      kind(),
      async ({ id }) => ({ ...(await jobs.reschedule(id, { delayMs: 1 })) }),
      1,
    )
    expect(job.result).toEqual({ ok: false, reason: 'illegal', state: 'PROCESSING' })
    expect(await jobs.reschedule(job.id, { delayMs: 1 })).toMatchObject({ ok: false, state: 'COMPLETED' })
    for (const when of [{ delayMs: -1 }, { delayMs: 0.5 }, { runAt: new Date('x') }, {}, { runAt: 'soon' }])
      await expect(jobs.reschedule(job.id, when as never)).rejects.toMatchObject({ code: 'INVALID_OPTIONS' })
  })
})

describe('pause', () => {
  it.each([
    ['one name', (name: string) => name],
    ['all names', () => undefined],
  ])('of %s stops claims and not what runs; resume lets them go on; both may be repeated', async (_, of) => {
    const { jobs } = stage
    const definition = kind()
    const { open, opened } = gate<string>()
    const seen: unknown[] = []
    const worker = await jobs.work(definition, async ({ payload }) => {
      seen.push(payload)
      return payload === 1 ? opened : 'second'
    })
    const first = await jobs.enqueue(definition, 1)
    await jobs.until(first.id, 'PROCESSING')
    const name = of(definition.name)
    await jobs.pause(name)
    await jobs.pause(name)
    const second = await jobs.enqueue(definition, 2)
    const queue = (await jobs.queues()).find(
      ({ name, priority }) => name === definition.name && priority === 'normal',
    )
    expect(queue).toMatchObject({ paused: true, queued: 1, processing: 1 })
    open('first')
    expect(await jobs.wait(first.id)).toMatchObject({ result: 'first' })
    // The slot is free and the worker asks: it is told to wait.
    await jobs.until(second.id, 'QUEUED')
    expect((await jobs.explain(second.id))?.reason).toBe('paused')
    expect(seen).toEqual([1])
    await jobs.resume(name)
    await jobs.resume(name)
    expect(await jobs.wait(second.id)).toMatchObject({ state: 'COMPLETED' })
    await worker.stop()
  })

  it('holds for a worker that already waits for jobs, and keeps its job for after', async () => {
    const { jobs } = stage
    const definition = kind()
    const worker = await jobs.work(definition, () => 1)
    await until(async () =>
      /flags=b .*cmd=xreadgroup/.test(String(await stage.redis.client().client('LIST'))),
    )
    await jobs.pause(definition.name)
    const { id } = await jobs.enqueue(definition, 1)
    const keys = jobs.transitions.keysFor(id)
    // Its read has taken the entry; the claim was refused.
    const pending = async () =>
      ((await jobs.link.call('XPENDING', keys.work(definition.name), 'workers')) as [number])[0] === 1
    await until(pending)
    expect(await jobs.get(id)).toMatchObject({ state: 'QUEUED', attempt: 0 })
    await jobs.resume(definition.name)
    expect(await jobs.wait(id)).toMatchObject({ state: 'COMPLETED', attempt: 1 })
    await worker.stop()
  })

  it('leaves a job in its place with the worker that asks for it again and again; a reaper takes it from one that died', async () => {
    const { jobs } = stage
    const definition = kind()
    const { id } = await jobs.enqueue(definition, 1)
    const keys = jobs.transitions.keysFor(id)
    const work = keys.work(definition.name)
    const place = async () => String(await jobs.link.call('HGET', keys.job(id), 'place'))
    const entry = await place()
    await jobs.link.call('XREADGROUP', 'GROUP', 'workers', 'w', 'COUNT', 1, 'STREAMS', work, '>')
    /** The entry has been in the worker's hands for a minute; a sweep looks at what was not touched for half of it. */
    const age = () => jobs.link.call('XCLAIM', work, 'workers', 'w', 0, entry, 'IDLE', 60_000, 'JUSTID')
    const redelivered = async () =>
      (await reapOnce(jobs, { minIdleMs: 30_000, maxGapMs: 0 })).filter((each) => each.id === id)
    const claimant = { worker: 'w', nonce: 'n', leaseMs: 60_000 }
    const ask = (more = {}) => jobs.transitions.claim(id, entry, { ...claimant, ...more })

    await jobs.pause(definition.name)
    await age()
    expect(await ask()).toMatchObject({ ok: false, reason: 'paused' })
    expect(await redelivered()).toEqual([])
    await jobs.resume(definition.name)

    // A rate is counted in each partition.
    const rate = { max: 1, perMs: 60_000 }
    const ids = Array.from({ length: 64 }, (_, i) => `${definition.name}-${i}`)
    const beside = ids.find((each) => jobs.transitions.keysFor(each) === keys) as string
    await jobs.enqueue(definition, 2, { id: beside, priority: 'high' })
    await jobs.transitions.take(keys, definition.name, 1, { ...claimant, rate })
    await age()
    expect(await ask({ rate })).toMatchObject({ ok: false, reason: 'rate_limited' })
    expect(await redelivered()).toEqual([])
    expect(await place()).toBe(entry)

    await age()
    expect(await redelivered()).toMatchObject([{ outcome: 'redelivered' }])
    expect(await place()).not.toBe(entry)
    await jobs.cancel(id)
  })

  it('of one name leaves others alone', async () => {
    const { jobs } = stage
    const [paused, free] = [kind(), kind()]
    await jobs.pause(paused.name)
    expect((await jobs.run(free, () => 1, 1)).job.state).toBe('COMPLETED')
    await jobs.resume(paused.name)
  })

  it('of all and of one are two: each is ended by itself', async () => {
    const { jobs } = stage
    const definition = kind()
    await jobs.pause()
    await jobs.pause(definition.name)
    await jobs.resume()
    const { id } = await jobs.enqueue(definition, 1)
    expect((await jobs.explain(id))?.says).toContain(definition.name)
    await jobs.resume(definition.name)
    await stage.workOff(definition, () => 1, [id])
  })

  it('is refused for what is no name', async () => {
    for (const steer of ['pause', 'resume', 'drain'] as const)
      await expect(stage.jobs[steer]('a b')).rejects.toMatchObject({ code: 'INVALID_JOB_NAME' })
  })
})

describe('drain', () => {
  it('cancels everything of a name that waits, of every priority and also scheduled, and counts it', async () => {
    const { jobs } = stage
    const [drained, kept] = [kind(), kind()]
    const { open, opened } = gate()
    const worker = await jobs.work(drained, () => opened)
    const running = await jobs.enqueue(drained, 0)
    await jobs.until(running.id, 'PROCESSING')
    const made = await jobs.enqueueMany(
      drained,
      Array.from({ length: 700 }, (_, i) => ({
        payload: i,
        options:
          i % 3 === 0 ? { delayMs: 60_000 } : { priority: i % 2 ? ('high' as const) : ('low' as const) },
      })),
    )
    const other = await jobs.enqueue(kept, 1)
    expect(await jobs.drain(drained.name)).toBe(700)
    expect(await jobs.drain(drained.name)).toBe(0)
    for (const { id } of made.filter((_, i) => i % 50 === 0))
      expect(await jobs.get(id ?? '')).toMatchObject({ state: 'CANCELLED' })
    expect(await jobs.get(other.id)).toMatchObject({ state: 'QUEUED' })
    expect(await jobs.get(running.id)).toMatchObject({ state: 'PROCESSING', cancelRequested: false })
    open()
    expect(await jobs.wait(running.id)).toMatchObject({ state: 'COMPLETED' })
    await worker.stop()
    expect(await jobs.drain()).toBeGreaterThanOrEqual(1)
    expect(await jobs.counts()).toMatchObject({ QUEUED: 0, SCHEDULED: 0 })
  })
})
