// The only place that changes a job: one typed function per move, each one Lua file. Expected outcomes are values.
// Every one of them may be repeated when its reply was lost and then answers as the first time.
import { randomBytes } from 'node:crypto'
import { Applier, MoveFailed, type Name } from './apply.ts'
import type { Ack } from './durability.ts'
import { StateError } from './errors.ts'
import { type Keys, keysOf, partitionOf } from './keys.ts'
import type { RedisLink } from './redis.ts'
import { DEFAULTS } from './schema/limits.ts'
import type { Priority, State } from './schema/machine.ts'
import { SCRIPTS } from './scripts.generated.ts'
import { Tick } from './tick.ts'

/** A move that was refused, and changed nothing. */
export interface Rejection {
  ok: false
  /**
   * `unknown_job`: no such job. `illegal`: not from its state. `fenced`: the attempt is not the current one.
   * `conflict`: the id is taken by another job; `key_conflict`: the idempotency key is. `not_alone`: another job of the
   * same batch was refused. `stale_entry`: the work entry is not the job's current one. `no_cancel_requested`: abort
   * without a cancel. `paused`, `rate_limited`: no claims now. `expired`, `deferred`: the claim ended or put off the job.
   */
  reason:
    | 'unknown_job'
    | 'illegal'
    | 'fenced'
    | 'conflict'
    | 'key_conflict'
    | 'not_alone'
    | 'stale_entry'
    | 'no_cancel_requested'
    | 'paused'
    | 'rate_limited'
    | 'expired'
    | 'deferred'
  /** The state that forbade it; null when there is no such job. */
  state: State | null
  /** rate_limited: milliseconds until a claim may succeed. */
  retryInMs?: number
}

export interface Moved {
  ok: true
  cursor: string
  state: State
  /** Whether the move had been made before; then this call changed nothing. */
  repeat: boolean
}

export type Outcome = Moved | Rejection

/** One attempt of one job, as a worker holds it. */
export interface Attempt {
  id: string
  fence: string
}

/** An attempt, and how long it may go without a heartbeat. */
export interface Beating extends Attempt {
  leaseMs: number
}

/** What a beat says that the attempt must hear: another owns the job (or none), a cancel was requested, the job is broken. */
export type Verdict = 'lost' | 'cancel' | 'error'

export interface Grant extends Attempt {
  ok: true
  cursor: string
  attempt: number
  failures: number
  maxAttempts: number
  createdAt: number
  /** JSON text of the job's Backoff, or ''. */
  backoff: string
  /** Without a heartbeat for so many milliseconds the job is given to another. */
  leaseMs: number
  /** Milliseconds the attempt may take, and may take between two reports; 0 for any. */
  timeoutMs: number
  stallMs: number
  /** JSON text that an attempt before left, or ''. */
  checkpoint: string
  /** Trace context of the enqueue, or ''. */
  trace: string
  tags: string
  /** The caller's bytes of enqueue. */
  payload: string
}

export interface Enqueue {
  id: string
  /** The caller's own id, rather than one made for this call. */
  idGiven: boolean
  name: string
  payload: string
  /** Milliseconds until it may run; 0 for now. */
  delayMs: number
  /** Redis' time in milliseconds at which it may run; outdoes `delayMs`. */
  runAt?: number | undefined
  /** Digest of the idempotency key, and how long it is kept. */
  key?: string | undefined
  keyMs?: number
  ack?: Ack | undefined
  /** What is left out is the default. */
  options: {
    maxAttempts?: number | undefined
    maxCrashes?: number | undefined
    retentionMs?: number | undefined
    timeoutMs?: number | undefined
    stallMs?: number | undefined
    leaseMs?: number | undefined
    /** Milliseconds it may wait for its first attempt. */
    ttlMs?: number | undefined
    backoff?: string | undefined
    crashBackoff?: string | undefined
    trace?: string | undefined
    rateKey?: string | undefined
    priority?: Priority | undefined
    tags?: string[] | undefined
    owner?: string | undefined
  }
}

/** `id` is that of the job which the idempotency key stands for; `state` is null when that job has expired. */
export type EnqueueOutcome =
  | { ok: true; id: string; cursor: string; state: State | null; repeat: boolean }
  | Rejection

/** At most `max` starts in `perMs` milliseconds. */
export interface Rate {
  max: number
  perMs: number
}

/** Who claims, and how fast it may. The nonce, one per worker, makes the fence. */
export interface Claimant {
  worker: string
  nonce: string
  leaseMs: number
  rate?: Rate | undefined
  /** For each `rateKey` of jobs by itself. */
  ratePerKey?: Rate | undefined
}

export interface Taken {
  grants: Grant[]
  /** Id and entry of jobs that could not be granted, since what is kept of them is broken: they stay in the worker's hands. */
  broken: [id: string, entry: string][]
  /** Why there are none, and when to ask again; 0 when the queue was read to its end or to the wanted number. */
  retryInMs: number
}

/** What a sweep did with one entry. `rearmed` is amnesty; `leftover` and `redelivered` are repairs. */
export interface Reaped {
  id: string
  outcome: 'QUEUED' | 'FAILED' | 'CANCELLED' | 'SCHEDULED' | 'rearmed' | 'leftover' | 'redelivered' | 'error'
  /** The lost worker; for `error`, what Redis said. */
  detail: string
  /** Milliseconds since the worker was heard; null where it lives, and for repairs. */
  silentMs: number | null
  /** What happened and what follows, as the event tells it; '' for repairs. */
  says: string
}

/** A job that was over its time, and the state it is in now. */
export interface Expired {
  id: string
  outcome: State | 'error'
  /** What happened and what follows, as the event tells it; for `error`, what Redis said. */
  says: string
  /** Nobody took it in time; its attempt took too long; it reported nothing for too long. '' for `error`. */
  cause: 'expired' | 'timed_out' | 'stalled' | ''
}

/** A scheduled job that was due, and by how many milliseconds it was late. */
export interface Promoted {
  id: string
  lateMs: number
}

export interface SweepStep {
  /** Where the next step goes on; `0-0` when the sweep is through. */
  cursor: string
  amnesty: boolean
  reaped: Reaped[]
}

/** Milliseconds after which a paused worker asks again. */
const PAUSED_MS = 1_000

export type Transitions = ReturnType<typeof transitionsOf>

export const transitionsOf = (link: RedisLink, namespace: string, partitions: number) => {
  const all: Keys[] = Array.from({ length: partitions }, (_, partition) => keysOf(namespace, partition))
  const tick = new Tick()
  const appliers = all.map(({ prefix }) => new Applier(link, prefix, tick))
  const applierFor = (id: string) => appliers[partitionOf(id, partitions)] as Applier
  const applierOf = (keys: Keys) => appliers[all.indexOf(keys)] as Applier

  const move = async (name: Name, id: string, ...args: string[]): Promise<Outcome> =>
    outcome(await applierFor(id).send(name, id, ...args))

  const pass = async (name: 'promote' | 'reap' | 'expire', keys: Keys, ...args: (string | number)[]) =>
    (await link.script(SCRIPTS[name], keys.prefix, [
      keys.prefix,
      link.publish,
      ...args.map(String),
    ])) as string[]

  return {
    keys: all,
    /** Runs when the tick ends, before what it produced is sent: to add to it. */
    finally: (add: () => void) => tick.finally(add),
    keysFor: (id: string): Keys => all[partitionOf(id, partitions)] as Keys,

    enqueue: async (job: Enqueue): Promise<EnqueueOutcome> =>
      enqueued(await applierFor(job.id).send('enqueue', ...enqueueArgs(job))),

    /** Jobs of one partition: all of them, or none and every answer is a rejection. */
    enqueueAll: async (jobs: Enqueue[]): Promise<EnqueueOutcome[]> => {
      const [first] = jobs
      if (!first) return []
      return (await applierFor(first.id).all('enqueue', jobs.map(enqueueArgs))).map(enqueued)
    },

    /** Repeat a claim with the same nonce. */
    claim: async (id: string, entry: string, by: Claimant): Promise<Grant | Rejection> => {
      const { worker, nonce, leaseMs, rate, ratePerKey } = by
      const args = [entry, worker, nonce, String(leaseMs), ...rateArgs(rate), ...rateArgs(ratePerKey)]
      const answer = await applierFor(id).send('claim', id, ...args)
      return answer[0] === 'rejected' ? rejection(answer) : grantOf(answer, 3, leaseMs)
    },

    /** Claims queued jobs of a partition, as many as `count` says when the tick ends, and what the tick enqueues too. */
    take: async (
      partition: Keys,
      name: string,
      count: number | (() => number),
      by: Claimant,
    ): Promise<Taken> => {
      const { worker, nonce, leaseMs, rate, ratePerKey } = by
      const answer = await applierOf(partition).sendLast('take', () => [
        name,
        worker,
        nonce,
        String(leaseMs),
        String(typeof count === 'number' ? count : count()),
        ...rateArgs(rate),
        ...rateArgs(ratePerKey),
      ])
      if (answer[0] !== 'ok')
        return { grants: [], broken: [], retryInMs: answer[0] === 'paused' ? PAUSED_MS : Number(answer[1]) }
      const taken: Taken = { grants: [], broken: [], retryInMs: 0 }
      let at = 2
      for (const end = at + Number(answer[1]) * GRANT_SIZE; at < end; at += GRANT_SIZE)
        try {
          taken.grants.push(grantOf(answer, at, leaseMs))
        } catch {
          // It is granted: a claim, whatever entry it names, answers the same once more.
          taken.broken.push([answer[at] as string, ''])
        }
      for (; at < answer.length; at += 2) taken.broken.push([answer[at] as string, answer[at + 1] as string])
      return taken
    },

    heartbeat: async ({
      id,
      fence,
    }: Attempt): Promise<(Moved & { cancelRequested: boolean }) | Rejection> => {
      const answer = await applierFor(id).send('heartbeat', id, fence)
      const moved = outcome(answer)
      return moved.ok ? { ...moved, cancelRequested: answer[3] === 'cancel' } : moved
    },

    /**
     * Says that a worker process and these attempts of it are alive: one call for each partition in which it has any.
     * Answers, in the same order, what they must hear.
     */
    beat: async (
      worker: string,
      name: string,
      attempts: readonly Beating[],
    ): Promise<(Verdict | undefined)[]> => {
      const verdicts: (Verdict | undefined)[] = new Array(attempts.length).fill(undefined)
      const byPartition = new Map<number, number[]>()
      for (const [i, { id }] of attempts.entries()) {
        const partition = partitionOf(id, partitions)
        const those = byPartition.get(partition)
        if (those) those.push(i)
        else byPartition.set(partition, [i])
      }
      await Promise.all(
        [...byPartition].map(async ([partition, those]) => {
          const told = those.map((i) => {
            const { id, fence, leaseMs } = attempts[i] as Beating
            return `${id} ${fence} ${leaseMs}`
          })
          const answer = await (appliers[partition] as Applier).send('beat', worker, name, told.join('\n'))
          for (let at = 1; at + 1 < answer.length; at += 2)
            verdicts[those[Number(answer[at]) - 1] as number] = answer[at + 1] as Verdict
        }),
      )
      return verdicts
    },

    /** `op` counts the reports (progress and log lines) of the attempt from 1. `progress` is JSON text. */
    progress: ({ id, fence }: Attempt, op: number, progress: string) =>
      move('progress', id, fence, String(op), progress),
    log: ({ id, fence }: Attempt, op: number, line: string) =>
      move('log', id, fence, String(op), JSON.stringify(line)),
    /** `data` is JSON text. */
    checkpoint: ({ id, fence }: Attempt, data: string) => move('checkpoint', id, fence, data),
    /** `progress` is the last progress as JSON text if it has not been told yet, else ''. */
    complete: ({ id, fence }: Attempt, result: string, progress = '') =>
      move('complete', id, fence, progress, result),
    /** `error` is JSON text of a JobError. */
    fail: ({ id, fence }: Attempt, error: string, progress = '') => move('fail', id, fence, progress, error),
    retry: ({ id, fence }: Attempt, error: string, delayMs: number, progress = '') =>
      move('retry', id, fence, progress, error, String(delayMs)),
    release: ({ id, fence }: Attempt, progress = '') => move('release', id, fence, progress),
    abort: ({ id, fence }: Attempt, progress = '') => move('abort', id, fence, progress),
    cancel: (id: string) => move('cancel', id, opOf()),
    reschedule: (id: string, delayMs: number, runAt?: number) =>
      move('reschedule', id, String(delayMs), runAt === undefined ? '' : String(runAt), opOf()),
    rerun: (id: string) => move('rerun', id, opOf()),
    remove: (id: string) => move('remove', id),

    /** Stops claims of a job name (`*`: of every name) in every partition, or lets them go on. */
    pause: (name: string) => Promise.all(appliers.map((applier) => applier.send('pause', name))),
    resume: (name: string) => Promise.all(appliers.map((applier) => applier.send('resume', name))),

    /** False: too many stand already. `at` is the issuer's milliseconds. Kept in partition 0. */
    revoke: async (what: string, at: number): Promise<boolean> =>
      (await (appliers[0] as Applier).send('revoke', what, String(at)))[0] === 'ok',

    /** `about` is JSON text. Worker processes are told of in partition 0. */
    present: (worker: string, ttlMs: number, about: string) =>
      (appliers[0] as Applier).send('present', worker, String(ttlMs), about),
    absent: (worker: string) => (appliers[0] as Applier).send('absent', worker),

    /**
     * Queues at most `count` due jobs of a partition; says in how many milliseconds the next is due (null: none).
     *
     * @param skip only tells of them, those after so many, and writes nothing
     */
    promote: async (
      partition: Keys,
      count: number,
      skip?: number,
    ): Promise<{ promoted: Promoted[]; nextInMs: number | null }> => {
      const [next, ...due] = await pass('promote', partition, count, skip ?? '')
      const promoted: Promoted[] = []
      for (let i = 0; i + 1 < due.length; i += 2)
        promoted.push({ id: due[i] as string, lateMs: Number(due[i + 1]) })
      return { promoted, nextInMs: next === '' ? null : Number(next) }
    },

    /** Ends what is over its time among at most `count` jobs of a partition; `skip` as above. `more` may be left. */
    expire: async (
      partition: Keys,
      count: number,
      skip?: number,
    ): Promise<{ expired: Expired[]; more: boolean }> => {
      const [looked, ...over] = await pass('expire', partition, count, skip ?? '')
      const expired: Expired[] = []
      for (let i = 0; i + 3 < over.length; i += 4)
        expired.push({
          id: over[i] as string,
          outcome: over[i + 1] as Expired['outcome'],
          says: over[i + 2] as string,
          cause: over[i + 3] as Expired['cause'],
        })
      return { expired, more: Number(looked) === count }
    },

    /** One bounded step of a sweep over the work stream of a queue. */
    reap: async (
      partition: Keys,
      queue: string,
      args: {
        cursor: string
        count: number
        minIdleMs: number
        /** A longer silence of Redis opens an amnesty, for as long. */
        maxGapMs: number
        /** A longer one forgives, for a lease, a job of whose lease it is more than two fifths; without it none does. */
        silenceMs?: number
        amnesty: boolean
        /** Looks at what anybody holds, not only at what silent workers do. */
        whole?: boolean
        /** Only tells what it would do, and writes nothing. */
        dry?: boolean
      },
    ): Promise<SweepStep> => {
      const { cursor: from, count, minIdleMs, maxGapMs } = args
      const reply = await pass(
        'reap',
        partition,
        queue,
        from,
        count,
        minIdleMs,
        maxGapMs,
        args.silenceMs ?? '',
        args.amnesty ? '1' : '0',
        args.whole ? '1' : '0',
        args.dry ? '1' : '0',
      )
      const [cursor = '0-0', amnesty, ...rest] = reply
      const reaped: Reaped[] = []
      for (let i = 0; i + 4 < rest.length; i += 5)
        reaped.push({
          id: rest[i] as string,
          outcome: rest[i + 1] as Reaped['outcome'],
          detail: rest[i + 2] as string,
          silentMs: rest[i + 3] === '' ? null : Number(rest[i + 3]),
          says: rest[i + 4] as string,
        })
      return { cursor, amnesty: amnesty === '1', reaped }
    },
  }
}

/** The name of one steering move, by which Redis knows it again when its reply was lost and it comes once more. */
const opOf = () => randomBytes(4).toString('hex')

const rateArgs = (rate: Rate | undefined) => (rate ? [String(rate.max), String(rate.perMs)] : ['', ''])

/** Strings of one grant in an answer, in the order of grant.lua. */
const GRANT_SIZE = 8

const NO_OPTIONS: Partial<Record<'maxAttempts' | 'timeoutMs' | 'stallMs' | 'leaseMs', number>> &
  Partial<Record<'backoff' | 'trace' | 'tags', string>> = {}

/** What Lua takes for JSON need not be any. */
const optionsOf = (text: string | undefined): typeof NO_OPTIONS => {
  if (!text) return NO_OPTIONS
  try {
    return JSON.parse(text) as typeof NO_OPTIONS
  } catch (cause) {
    throw new MoveFailed('REDIS_REFUSED', `The options are no JSON: ${text.slice(0, 100)}`, { cause })
  }
}

const grantOf = (answer: string[], at: number, leaseMs: number): Grant => {
  const fence = answer[at + 2] as string
  const options = optionsOf(answer[at + 6])
  return {
    ok: true,
    id: answer[at] as string,
    cursor: answer[at + 1] as string,
    fence,
    attempt: Number.parseInt(fence, 10),
    failures: Number(answer[at + 3]),
    maxAttempts: options.maxAttempts ?? DEFAULTS.maxAttempts,
    createdAt: Number(answer[at + 4]),
    backoff: options.backoff ?? '',
    leaseMs: options.leaseMs ?? leaseMs,
    timeoutMs: options.timeoutMs ?? 0,
    stallMs: options.stallMs ?? 0,
    checkpoint: answer[at + 5] as string,
    trace: options.trace ?? '',
    tags: options.tags ?? '',
    payload: answer[at + 7] as string,
  }
}

const rejection = ([, reason, state, retryInMs]: string[]): Rejection => ({
  ok: false,
  reason: reason as Rejection['reason'],
  state: state ? (state as State) : null,
  ...(retryInMs === undefined ? {} : { retryInMs: Number(retryInMs) }),
})

const outcome = (answer: string[]): Outcome => {
  const [verdict, cursor, state, repeat] = answer
  if (verdict === 'rejected') return rejection(answer)
  if (verdict === 'ok' && cursor && state)
    return { ok: true, cursor, state: state as State, repeat: repeat === 'repeat' }
  throw new StateError('REDIS_REFUSED', 'Redis gave an answer that no transition gives.')
}

const enqueued = (answer: string[]): EnqueueOutcome => {
  const [verdict, cursor = '', state, repeat, id = ''] = answer
  if (verdict === 'rejected') return rejection(answer)
  if (verdict !== 'ok')
    throw new StateError('REDIS_REFUSED', `enqueue failed in Redis: ${String(cursor).slice(0, 200)}`)
  return { ok: true, id, cursor, state: state ? (state as State) : null, repeat: repeat === 'repeat' }
}

/** Only what is not the default is written, to the hash and to the event. */
const enqueueArgs = (job: Enqueue): string[] => {
  const options: Record<string, string | number> = {}
  let told = ''
  for (const [name, value] of Object.entries(job.options)) {
    if (value === undefined || value === (DEFAULTS as Record<string, unknown>)[name]) continue
    if (name !== 'tags' && name !== 'owner') options[name] = value as string | number
    if (TOLD.has(name) && (!Array.isArray(value) || value.length > 0))
      told += `,"${name}":${JSON.stringify(value)}`
  }
  const labels = [
    ...(job.options.tags ?? []),
    ...(job.options.owner === undefined ? [] : [`@${job.options.owner}`]),
  ]
  if (labels.length > 0) options.tags = labels.join(' ')
  return [
    job.id,
    job.name,
    job.payload,
    String(job.delayMs),
    job.runAt === undefined ? '' : String(job.runAt),
    job.key ?? '',
    job.key === undefined ? '' : String(job.keyMs),
    Object.keys(options).length > 0 ? JSON.stringify(options) : '',
    told,
  ]
}

/** Options that the event of enqueue tells. */
const TOLD: ReadonlySet<string> = new Set(['maxAttempts', 'maxCrashes', 'priority', 'tags', 'owner'])
