// A few jobs on a real Redis, moved at random by several workers, reapers and clients, step by step, beside their models:
// after each step every job is as foretold, a refused call has changed nothing, and a repeated one answers as before.
import fc from 'fast-check'
import type { Redis } from 'ioredis'
import { expect } from 'vitest'
import type { Keys } from '../src/keys.ts'
import { anyJob, type Harness } from './harness.ts'
import { checkInvariants } from './invariants.ts'
import { JobModel, type JobOptions } from './model.ts'

const FENCED = [
  'heartbeat',
  'progress',
  'log',
  'checkpoint',
  'complete',
  'fail',
  'retry',
  'release',
  'abort',
] as const
const FREE = ['cancel', 'reschedule', 'rerun', 'remove'] as const
const PASSES = ['promote', 'expire', 'reap'] as const
type Fenced = (typeof FENCED)[number]
type Free = (typeof FREE)[number]

/** `which` of the attempts so far the worker holds: the last, one before, or one that never was. */
const which = fc.constantFrom('last', 'last', 'last', 'older', 'forged')
const job = fc.nat({ max: 5 })
export const anyOptions: fc.Arbitrary<JobOptions> = fc.record({
  maxAttempts: fc.integer({ min: 1, max: 3 }),
  maxCrashes: fc.nat({ max: 2 }),
  delayed: fc.boolean(),
  ttl: fc.boolean(),
  timeout: fc.boolean(),
  priority: fc.constantFrom('high', 'normal', 'low'),
  tags: fc.subarray(['x', 'y']),
})
const anyStep = fc.oneof(
  { weight: 6, arbitrary: fc.record({ do: fc.constantFrom(...FENCED), job, which, later: fc.boolean() }) },
  { weight: 3, arbitrary: fc.record({ do: fc.constantFrom(...FREE), job, later: fc.boolean() }) },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constant('claim'),
      job,
      worker: fc.nat({ max: 2 }),
      overdue: fc.boolean(),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant('take'),
      worker: fc.nat({ max: 2 }),
      count: fc.integer({ min: 1, max: 3 }),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({ do: fc.constantFrom(...PASSES), jobs: fc.array(job, { maxLength: 3 }) }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('amnesty'), job }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('deliver'), worker: fc.nat({ max: 2 }) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constantFrom('pause', 'resume'), all: fc.boolean() }) },
  {
    weight: 2,
    arbitrary: fc.record({ do: fc.constant('enqueue'), options: anyOptions, keyed: fc.boolean() }),
  },
)
export type Step = typeof anyStep extends fc.Arbitrary<infer S> ? S : never

const LEASE_MS = 60_000
const FAR_MS = 3_600_000
const QUEUES = ['any', 'any:high', 'any:low']

export class World {
  private readonly h: Harness
  private readonly keys: Keys
  private readonly redis: Redis
  readonly jobs: JobModel[] = []
  /** Fences of every attempt, by job. */
  private readonly fences = new Map<string, string[]>()
  /** Jobs whose entry was given to a worker and not claimed. */
  private readonly delivered = new Set<JobModel>()
  private readonly paused = new Set<string>()
  private ops = 0
  private nonces = 0

  constructor(harness: Harness) {
    this.h = harness
    this.keys = harness.jobs.transitions.keys[0] as Keys
    this.redis = harness.redis.client()
  }

  async step(step: Step): Promise<void> {
    switch (step.do) {
      case 'enqueue':
        return this.enqueue(step.options, step.keyed)
      case 'take':
        return this.take(step.worker, step.count)
      case 'deliver':
        return this.deliver(step.worker)
      case 'pause':
      case 'resume': {
        const name = step.all ? '*' : 'any'
        await this.h.jobs.transitions[step.do](name)
        if (step.do === 'pause') this.paused.add(name)
        else this.paused.delete(name)
        return
      }
      case 'promote':
      case 'expire':
      case 'reap':
        return this.pass(step.do, new Set(step.jobs.flatMap((at) => this.at(at) ?? [])))
    }
    const model = this.at(step.job)
    if (!model) return
    if (step.do === 'claim') return this.claim(model, step.worker, step.overdue)
    if (step.do === 'amnesty') return this.amnesty(model)
    const mine = 'which' in step ? this.fenceOf(model, step.which) : null
    return this.move(model, step.do, mine, step.later)
  }

  /** Every job is as the model says. */
  async check(): Promise<void> {
    const found = await Promise.all(this.jobs.map(({ id }) => this.h.jobs.get(id)))
    for (const [i, model] of this.jobs.entries()) {
      const is = found[i] ?? null
      const { foretold } = model
      if (!foretold) expect(is).toBeNull()
      else expect(is).toMatchObject(foretold)
      if (is) expect(is.error?.code ?? is.error?.message ?? null).toBe(model.error)
      if (is) expect(is.runAt !== null).toBe(model.state === 'SCHEDULED')
    }
  }

  private at(index: number): JobModel | undefined {
    return this.jobs[index % Math.max(1, this.jobs.length)]
  }

  private fenceOf({ id }: JobModel, wanted: 'last' | 'older' | 'forged' | string): string {
    const fences = this.fences.get(id) ?? []
    return (wanted === 'last' ? fences.at(-1) : wanted === 'older' ? fences.at(-2) : undefined) ?? '1-forged'
  }

  private async enqueue(wanted: JobOptions, keyed: boolean): Promise<void> {
    if (this.jobs.length >= 5) return
    const n = this.jobs.length
    const { delayed, ttl, timeout, priority, ...rest } = wanted
    const given = {
      ...rest,
      priority,
      ...(keyed ? { key: `key-${n}` } : { id: `job-${n}` }),
      ...(delayed ? { delayMs: FAR_MS } : {}),
      ...(ttl ? { ttlMs: FAR_MS } : {}),
      ...(timeout ? { timeoutMs: FAR_MS } : {}),
    }
    const made = await this.h.jobs.enqueue(anyJob, { n }, given)
    expect(made).toMatchObject({ state: delayed ? 'SCHEDULED' : 'QUEUED', duplicate: false })
    this.jobs.push(new JobModel(made.id, wanted))
    await this.changesNothing(async () => {
      expect(await this.h.jobs.enqueue(anyJob, { n }, given)).toEqual({ ...made, duplicate: true })
      await expect(this.h.jobs.enqueue(anyJob, { n: 'other' }, given)).rejects.toMatchObject({
        code: keyed ? 'KEY_CONFLICT' : 'ID_CONFLICT',
      })
    })
  }

  private async move(
    model: JobModel,
    move: Fenced | Free,
    fence: string | null,
    later: boolean,
  ): Promise<void> {
    const value = `${move} ${++this.ops}`
    const before = await this.h.redis.digest()
    const outcome = await this.fire(model, move, fence ?? '', later, value)
    if (!model.make(move, fence, { value, later })) {
      // What had been done already is answered as done.
      if (outcome.ok) expect(outcome.repeat).toBe(true)
      expect(await this.h.redis.digest()).toBe(before)
      return
    }
    this.delivered.delete(model)
    expect(outcome).toMatchObject({ ok: true, repeat: false })
    if (outcome.ok && move !== 'remove') expect(outcome.state).toBe(model.state)
    // A heartbeat may come again, and a time that is counted from now has moved on.
    if (move === 'heartbeat' || (move === 'reschedule' && later)) return
    await this.changesNothing(async () => {
      const again = await this.fire(model, move, fence ?? '', later, value)
      if (move === 'remove') expect(again).toMatchObject({ ok: false, reason: 'unknown_job' })
      else expect(again).toEqual({ ...outcome, repeat: move !== 'checkpoint' })
    })
  }

  private fire({ id }: JobModel, move: Fenced | Free, fence: string, later: boolean, value: string) {
    const { transitions } = this.h.jobs
    const attempt = { id, fence }
    const text = JSON.stringify(value)
    const error = JSON.stringify({ name: 'Error', message: value })
    switch (move) {
      case 'progress':
        return transitions.progress(attempt, this.ops, text)
      case 'log':
        return transitions.log(attempt, this.ops, value)
      case 'checkpoint':
        return transitions.checkpoint(attempt, text)
      case 'complete':
        return transitions.complete(attempt, text)
      case 'fail':
        return transitions.fail(attempt, error)
      case 'retry':
        return transitions.retry(attempt, error, later ? FAR_MS : 0)
      case 'reschedule':
        // Another time each: the same, asked for in the same millisecond, would be a repeat.
        return transitions.reschedule(id, later ? FAR_MS + this.ops : 0)
      case 'heartbeat':
      case 'release':
      case 'abort':
        return transitions[move](attempt)
      case 'cancel':
      case 'rerun':
      case 'remove':
        return transitions[move](id)
    }
  }

  private claimant(worker: number) {
    return { worker: `w${worker}`, nonce: `n${++this.nonces}`, leaseMs: LEASE_MS }
  }

  private started(model: JobModel, fence: string, worker: string): void {
    this.delivered.delete(model)
    this.fences.set(model.id, [...(this.fences.get(model.id) ?? []), fence])
    expect(model.make('claim', fence, { value: worker })).toBe(true)
    expect(fence).toMatch(new RegExp(`^${model.attempt}-n`))
  }

  private async claim(model: JobModel, worker: number, overdue: boolean): Promise<void> {
    await this.deliver(worker)
    const by = this.claimant(worker)
    const entry = model.state === null ? '1-1' : await this.h.place(model.id)
    if (overdue && model.limited && model.waits) {
      await this.redis.zadd(this.keys.deadlines, 1, model.id)
      if (model.state === 'QUEUED' && this.paused.size === 0) {
        expect(await this.h.jobs.transitions.claim(model.id, entry, by)).toMatchObject({
          ok: false,
          reason: 'expired',
        })
        model.make('expire', null, {})
        this.delivered.delete(model)
        return
      }
      await this.redis.zadd(this.keys.deadlines, Date.now() + FAR_MS, model.id)
    }
    const before = await this.h.redis.digest()
    const grant = await this.h.jobs.transitions.claim(model.id, entry, by)
    if (!grant.ok) {
      expect(model.state === 'QUEUED' ? this.paused.size : 1).toBeGreaterThan(0)
      expect(await this.h.redis.digest()).toBe(before)
      return
    }
    expect(this.paused.size).toBe(0)
    this.started(model, grant.fence, by.worker)
    expect(grant).toMatchObject({ attempt: model.attempt, failures: model.failures, id: model.id })
    // The reply got lost: the same worker asks again; another is refused.
    await this.changesNothing(async () => {
      expect(await this.h.jobs.transitions.claim(model.id, entry, by)).toEqual(grant)
      const other = await this.h.jobs.transitions.claim(model.id, entry, { ...by, nonce: 'other' })
      expect(other).toMatchObject({ ok: false, reason: 'illegal' })
    })
  }

  private async take(worker: number, count: number): Promise<void> {
    const by = this.claimant(worker)
    const free = this.jobs.filter((model) => model.state === 'QUEUED' && !this.delivered.has(model))
    const { grants } = await this.h.jobs.transitions.take(this.keys, 'any', count, by)
    expect(grants).toHaveLength(this.paused.size > 0 ? 0 : Math.min(count, free.length))
    for (const { id, fence } of grants) {
      const model = free.find((each) => each.id === id)
      if (!model) throw new Error(`${id} was not to be taken`)
      this.started(model, fence, by.worker)
    }
  }

  /** A worker reads what waits, and claims nothing. */
  private async deliver(worker: number): Promise<void> {
    for (const queue of QUEUES)
      if (await this.redis.exists(this.keys.work(queue)))
        await this.redis.call(
          'XREADGROUP',
          'GROUP',
          'workers',
          `w${worker}`,
          'STREAMS',
          this.keys.work(queue),
          '>',
        )
    for (const model of this.jobs) if (model.state === 'QUEUED') this.delivered.add(model)
  }

  /** The chosen jobs are due, over their time, or without a worker; no other is. */
  private async pass(move: (typeof PASSES)[number], due: Set<JobModel>): Promise<void> {
    const { transitions } = this.h.jobs
    if (move === 'promote') {
      for (const { id } of due) await this.redis.zadd(this.keys.scheduled, 'XX', 1, id)
      await transitions.promote(this.keys, 100)
    } else if (move === 'expire') {
      for (const { id } of due) await this.redis.zadd(this.keys.deadlines, 'XX', 1, id)
      await transitions.expire(this.keys, 100)
    } else {
      for (const model of due) if (model.state === 'PROCESSING') await this.lapse(model)
      for (const queue of QUEUES) await this.sweep(queue, 0)
      this.delivered.clear()
    }
    for (const model of due) if (model.make(move, null, {})) this.delivered.delete(model)
  }

  private sweep(queue: string, maxGapMs: number) {
    const step = { cursor: '0-0', count: 100, minIdleMs: 0, maxGapMs, amnesty: false }
    return this.h.jobs.transitions.reap(this.keys, queue, step)
  }

  /** The lease is over, and no heartbeat came. */
  private async lapse({ id }: JobModel): Promise<void> {
    const [startedAt] = String(await this.redis.hget(this.keys.job(id), 'run')).split(' ')
    await this.redis.hset(this.keys.job(id), 'run', `${startedAt} 0`)
    await this.redis.del(this.keys.heartbeat(id))
  }

  /** Redis was silent: a sweep only arms heartbeats anew. */
  private async amnesty(model: JobModel): Promise<void> {
    if (model.state !== 'PROCESSING') return
    const run = String(await this.redis.hget(this.keys.job(model.id), 'run'))
    await this.lapse(model)
    // A lease of nothing is no time to arm a heartbeat for.
    await this.redis.hset(this.keys.job(model.id), 'run', run.replace(/^\d+ \d+/, '1 60000'))
    await this.redis.del(this.keys.sweep)
    const { reaped } = await this.sweep(model.queue, FAR_MS)
    expect(reaped).toContainEqual(
      expect.objectContaining({ id: model.id, outcome: 'rearmed', detail: model.worker }),
    )
    const asked = model.cancelRequested ? ' x' : ''
    expect(await this.redis.get(this.keys.heartbeat(model.id))).toBe(`${model.fence} ${model.worker}${asked}`)
    // As it was before: an attempt as young as this one has no heartbeat yet.
    await this.redis.hset(this.keys.job(model.id), 'run', run)
    await this.redis.del(this.keys.heartbeat(model.id))
    for (const each of this.jobs) if (each.queue === model.queue) this.delivered.delete(each)
  }

  private async changesNothing(act: () => Promise<void>): Promise<void> {
    const before = await this.h.redis.digest()
    await act()
    expect(await this.h.redis.digest()).toBe(before)
  }
}

/** Makes the steps on an empty Redis; at the end every invariant holds. `after` each step more may be looked at. */
export const play = async (
  h: Harness,
  steps: readonly Step[],
  first: JobOptions,
  after: (world: World) => Promise<void> = async () => undefined,
): Promise<void> => {
  await h.redis.client().flushall()
  const world = new World(h)
  await world.step({ do: 'enqueue', options: { ...first, delayed: false }, keyed: false })
  for (const step of steps) {
    await world.step(step)
    await world.check()
    await after(world)
  }
  const there = world.jobs.filter(({ state }) => state !== null).map(({ id }) => id)
  expect(await checkInvariants(h.jobs, there)).toEqual([])
}

export const anySteps = fc.array(anyStep, { minLength: 10, maxLength: 60, size: 'max' })
