// The driver of load on one Redis (load.ts is that of failovers): workers, ghosts that claim and vanish, reapers, producers and meddlers, all at once
// and by one seed, with a fault of the caller's among them. At the end all is drained and every invariant judged.
import { randomBytes } from 'node:crypto'
import {
  defineJob,
  FinalError,
  isStateError,
  isTerminal,
  type JobContext,
  Jobs,
  type State,
  Worker,
} from '@jobs/state'
import { startTestRedis, type TestRedis, until } from '@jobs/testkit'
import { checkInvariants } from './invariants.ts'
import { type Random, randomOf } from './random.ts'
import { type Reaper, startReaper } from './reaper.ts'

/** What an attempt does. */
const DEEDS = ['complete', 'big', 'throw', 'final', 'hang', 'checkpoint', 'log', 'progress'] as const
type Deed = (typeof DEEDS)[number]
interface Payload {
  /** By attempt, then over again. */
  deeds: Deed[]
}

export interface Storm {
  readonly redis: TestRedis
  /** Straight to Redis, past any proxy. */
  readonly jobs: Jobs
  readonly random: Random
  /** Data was lost: what was accepted before now may be gone. */
  lost(): void
  pause(ms: number): Promise<void>
}

export interface StormOptions {
  seed: number
  /** Milliseconds of load, at least. */
  ms: number
  /** Where workers, producers and reapers connect; default: straight. */
  port?: (redis: TestRedis) => Promise<number>
  /** How long ended jobs are kept; then the report says which keys are left once they are gone. */
  retentionMs?: number
  /** Told of every connection before it is used. */
  prepare?: (jobs: Jobs) => void
  /** Leaves Redis well; the load goes on a little longer than it takes. */
  fault?: (storm: Storm) => Promise<void>
}

export interface StormReport {
  violations: string[]
  accepted: number
  counts: Record<State, number>
  /** By outcome of the sweeps. */
  reaped: Record<string, number>
  /** Keys that outlive every job; told with `retentionMs`. */
  left: string[]
  /** Errors that callers, workers and reapers were told of, by code, or by what Redis refused. */
  troubles: Record<string, number>
}

const NAMES = ['a', 'b'] as const
const PASSES = { minIdleMs: 150, maxGapMs: 400 }
/** Milliseconds of load after the last fault. */
const CALM_MS = 600
const LEASE = { leaseMs: 600, heartbeatMs: 100 }
const definitions = Object.fromEntries(NAMES.map((name) => [name, defineJob<Payload>({ name })]))

const pause = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms))

const perform = async (job: JobContext<Payload, unknown>): Promise<unknown> => {
  const { deeds } = job.payload
  switch (deeds[(job.attempt - 1) % deeds.length]) {
    case 'throw':
      await pause(1)
      throw new Error('thrown')
    case 'final':
      throw new FinalError('final')
    case 'hang':
      // Until it is cancelled, timed out, lost or stopped.
      if (job.attempt > 3) return 'enough'
      await new Promise((_, reject) => {
        job.signal.addEventListener('abort', () => reject(job.signal.reason), { once: true })
        setTimeout(() => reject(new Error('nobody came')), 150)
      })
      return null
    case 'checkpoint':
      await job.saveCheckpoint({ at: job.attempt, before: job.checkpoint })
      if (job.attempt < 3) throw new Error('after a checkpoint')
      return job.checkpoint
    case 'log':
      for (let i = 0; i < 30; i++) job.log(`line ${i}`)
      await pause(5)
      for (let i = 0; i < 30; i++) job.log(`line ${30 + i}`)
      return 'logged'
    case 'progress':
      for (let i = 0; i < 20; i++) {
        job.progress(i)
        if (i % 5 === 0) await pause(1)
      }
      return 'reported'
    case 'big':
      return 'x'.repeat(20_000)
    default:
      return job.attempt
  }
}

/** What is known of jobs that do not end. */
const stuck = async (jobs: Jobs): Promise<string[]> => {
  const told: string[] = []
  for (const state of ['SCHEDULED', 'QUEUED', 'PROCESSING'] as const)
    for (const { id } of (await jobs.list({ state, limit: 5 })).jobs) {
      const keys = jobs.transitions.keysFor(id)
      const { says, reason } = (await jobs.explain(id)) ?? {}
      const [hash, stream] = await jobs.link.atomic([
        ['HGETALL', keys.job(id)],
        ['XRANGE', keys.events(id), '-', '+'],
      ])
      told.push(`${id} ${state} ${reason}: ${says} ${JSON.stringify(hash)} ${JSON.stringify(stream)}`)
    }
  return told
}

/** The keys that are there after the retention has passed: those without a time to live, once all others are gone. */
const whatIsLeft = async (redis: TestRedis, retentionMs: number): Promise<string[]> => {
  const client = redis.client()
  const all = async () => (await client.keys('*')).sort()
  const lasting = async () => {
    const keys = await all()
    const times = await Promise.all(keys.map((key) => client.pttl(key)))
    return times.every((time) => time === -1)
  }
  await until(lasting, {
    timeoutMs: 2 * retentionMs + 5_000,
    what: 'the end of every key with a time to live',
  })
  return all()
}

export const runStorm = async ({
  seed,
  ms,
  port,
  retentionMs,
  prepare,
  fault,
}: StormOptions): Promise<StormReport> => {
  const redis = await startTestRedis()
  const namespace = `storm${randomBytes(4).toString('hex')}`
  const straight = { url: redis.url, namespace, partitions: 2, deadlineMs: 20_000 }
  const jobs = new Jobs(straight)
  const through = port ? { ...straight, url: `redis://127.0.0.1:${await port(redis)}` } : straight
  const connected: Jobs[] = [jobs]
  const connect = () => {
    const one = new Jobs({ ...through, commandTimeoutMs: 1_000, deadlineMs: 3_000 })
    connected.push(one)
    prepare?.(one)
    return one
  }
  const troubles = new Map<string, number>()
  const trouble = (error: unknown) => {
    // Anything else is a bug, and ends the test.
    if (!isStateError(error)) throw error
    const told = error.code === 'REDIS_REFUSED' ? error.message : error.code
    troubles.set(told, (troubles.get(told) ?? 0) + 1)
  }

  /** Accepted jobs, and the loss of data that they came after. */
  const accepted = new Map<string, number>()
  const mayBeGone = new Set<string>()
  const violations: string[] = []
  let losses = 0
  let over = false
  const storm: Storm = {
    redis,
    jobs,
    random: randomOf(seed + 1),
    lost: () => {
      losses++
    },
    pause,
  }
  /** Does something again and again, by a seed of its own, until the load ends. */
  let parts = 1
  const keepOn = async (each: (random: Random, jobs: Jobs) => Promise<unknown>): Promise<void> => {
    const random = randomOf(seed + 1_000 * parts++)
    const mine = connect()
    while (!over) {
      try {
        await each(random, mine)
      } catch (error) {
        trouble(error)
      }
      await pause(random.below(6))
    }
  }

  const workers = [
    new Worker(connect(), definitions.a as never, perform as never, { concurrency: 3, ...LEASE }),
    new Worker(connect(), definitions.a as never, perform as never, {
      concurrency: 2,
      ...LEASE,
      progressIntervalMs: 0,
    }),
    new Worker(connect(), definitions.b as never, perform as never, {
      concurrency: 4,
      ...LEASE,
      progressIntervalMs: 5,
      rate: { max: 200 },
      ratePerKey: { max: 5, perMs: 100 },
    }),
  ]
  for (const worker of workers) worker.on('error', trouble)
  await Promise.all(workers.map((worker) => worker.start()))
  const reapers: Reaper[] = [1, 2].map(() => startReaper(connect(), PASSES, trouble))

  const produce = async (random: Random, mine: Jobs) => {
    // No faster than the workers are.
    await pause(random.below(30))
    const before = losses
    const id = `j${random.below(1e9)}-${accepted.size}`
    const payload: Payload = { deeds: Array.from({ length: 1 + random.below(3) }, () => random.pick(DEEDS)) }
    const made = await mine.enqueue(definitions[random.pick(NAMES)] as never, payload as never, {
      ...(random.chance(0.2) ? { key: id } : { id }),
      ...(random.chance(0.2) ? { delayMs: random.below(80) } : {}),
      ...(random.chance(0.2) ? { priority: random.pick(['high', 'low'] as const) } : {}),
      ...(random.chance(0.2)
        ? { tags: [random.pick(['x', 'y']), 'z'], owner: random.pick(['ann', 'bob']) }
        : {}),
      ...(random.chance(0.1) ? { ttlMs: 20 + random.below(100) } : {}),
      ...(random.chance(0.3) ? { timeoutMs: 20 + random.below(60) } : {}),
      ...(random.chance(0.2) ? { rateKey: random.pick(['tenant', 'guest']) } : {}),
      ...(retentionMs ? { retentionMs, keyWindowMs: retentionMs } : {}),
      maxAttempts: 1 + random.below(3),
      maxCrashes: random.below(3),
      backoff: { delayMs: random.below(20) },
    })
    accepted.set(made.id, before)
  }

  const anyId = (random: Random) => random.pick([...accepted.keys()].slice(-60)) ?? 'none'
  const meddle = async (random: Random, mine: Jobs) => {
    const id = anyId(random)
    switch (random.below(9)) {
      case 0:
      case 1:
        return mine.cancel(id)
      case 2:
        return mine.rerun(id)
      case 3:
        return mine.reschedule(id, { delayMs: random.below(50) })
      case 4:
        mayBeGone.add(id)
        return mine.remove(id)
      case 5: {
        const name = random.pick([undefined, ...NAMES])
        await mine.pause(name)
        await pause(random.below(60))
        return mine.resume(name)
      }
      case 6:
        return mine.list({ limit: 20 })
      case 7: {
        const seen: number[] = []
        try {
          for await (const { seq } of mine.events(id, { signal: AbortSignal.timeout(50) })) seen.push(seq)
        } catch (error) {
          // It may be gone by now.
          if (!isStateError(error, 'UNKNOWN_JOB', 'EVENTS_TRIMMED')) throw error
        }
        if (seen.some((seq, i) => seq !== i + 1)) violations.push(`${id}: a follower was told ${seen}`)
        return
      }
      default:
        return mine.explain(id)
    }
  }

  /** Claims, reports, and is never heard of again; or comes back late. */
  const haunt = async (random: Random, mine: Jobs) => {
    const { transitions } = mine
    const nonce = random.below(1e9).toString(36)
    const claimant = { worker: `ghost-${nonce}`, nonce, leaseMs: 200 }
    const { grants } = await transitions.take(
      random.pick(transitions.keys) as never,
      random.pick(NAMES),
      2,
      claimant,
    )
    for (const grant of grants) await transitions.progress(grant, 1, '"ghost"')
    await pause(random.below(80))
    if (random.chance(0.5)) return
    await pause(400)
    for (const grant of grants) await transitions.complete(grant, '"late"')
  }

  const load = [produce, produce, meddle, haunt].map(keepOn)
  try {
    await Promise.all([pause(ms), fault?.(storm).then(() => pause(CALM_MS))])
  } finally {
    over = true
    await Promise.all(load)
  }

  // Healed: nothing is paused, and what waits or runs comes to its end.
  for (const name of [undefined, ...NAMES]) await jobs.resume(name)
  // Counts are read one after the other, and a job may move between two of them: each job is looked at too.
  const live = async () => {
    const { SCHEDULED, QUEUED, PROCESSING } = await jobs.counts()
    if (SCHEDULED + QUEUED + PROCESSING > 0) return true
    const now = await Promise.all([...accepted.keys()].map((id) => jobs.get(id)))
    return now.some((job) => job && !isTerminal(job.state))
  }
  await until(async () => !(await live()), { timeoutMs: 25_000, what: 'the end of every job' }).catch(
    async (error: Error) => {
      violations.push(`${error.message}: ${JSON.stringify(await jobs.counts())}`, ...(await stuck(jobs)))
    },
  )
  await Promise.all(workers.map((worker) => worker.stop({ graceMs: 1_000 })))
  await Promise.all(reapers.map((reaper) => reaper.stop()))
  for (const [id, after] of accepted) if (after < losses || retentionMs) mayBeGone.add(id)
  violations.push(
    ...(await checkInvariants(jobs, accepted.keys(), {
      mayBeGone,
      ended: true,
      expiring: retentionMs !== undefined,
    })),
  )
  const counts = await jobs.counts()
  const left = retentionMs ? await whatIsLeft(redis, retentionMs) : []
  const reaped: Record<string, number> = {}
  for (const { did } of reapers) for (const [what, n] of did) reaped[what] = (reaped[what] ?? 0) + n
  await Promise.all(connected.map((one) => one.close()))
  await redis.stop()
  return {
    violations: violations.slice(0, 40),
    accepted: accepted.size,
    counts,
    left,
    reaped,
    troubles: Object.fromEntries(troubles),
  }
}
