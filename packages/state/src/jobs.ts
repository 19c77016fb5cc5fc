// What a backend imports: enqueue, read, follow, steer. Everything here is checked before Redis hears of it.
import { randomBytes } from 'node:crypto'
import { z } from 'zod'
import { encode, type JobDefinition } from './define.ts'
import { StateError } from './errors.ts'
import { followEvents, readSnapshot, type Wakeups } from './events.ts'
import { type Keys, keysOf } from './keys.ts'
import { countJobs, listJobs, type Page } from './listing.ts'
import { type LinkOptions, RedisLink } from './redis.ts'
import type { JobEvent } from './schema/event.ts'
import type { Snapshot } from './schema/job.ts'
import { JobId, LIMITS } from './schema/limits.ts'
import { isTerminal, type State } from './schema/machine.ts'
import { Subscriber } from './subscriber.ts'
import { type Outcome, type Transitions, transitionsOf } from './transitions.ts'

const EnqueueOptions = z.strictObject({
  /** Your own id (a repeated enqueue with it is the same job); default: sortable, with 128 random bits. */
  id: z.string().optional(),
  /** Milliseconds before it may run. */
  delayMs: z
    .number()
    .int()
    .min(0)
    .max(10 * 365 * 86_400_000)
    .default(0),
  /** Runs that may end in an error before the job has FAILED. */
  maxAttempts: z.number().int().min(1).max(1_000).default(3),
  /** Workers that may die under the job and it still runs again; one more and it has FAILED as CRASHED. */
  maxCrashes: z.number().int().min(0).max(1_000).default(3),
  /** Milliseconds that the ended job stays readable. */
  retentionMs: z
    .number()
    .int()
    .min(1_000)
    .max(10 * 365 * 86_400_000)
    .default(86_400_000),
})
export type EnqueueOptions = z.input<typeof EnqueueOptions>

export interface ConnectOptions extends LinkOptions {
  namespace: string
  /** Fixed for a namespace once it has jobs. */
  partitions?: number
}

export interface Enqueued {
  id: string
  cursor: string
  state: State
  /** The job had been enqueued before with this id, name and payload. */
  duplicate: boolean
}

/** Nine characters of base 36 hold the milliseconds until the year 5188, so ids sort by time. */
const newId = (): string => Date.now().toString(36).padStart(9, '0') + randomBytes(16).toString('base64url')

const validId = (id: string): string => {
  const parsed = JobId.safeParse(id)
  if (!parsed.success)
    throw new StateError(
      'INVALID_JOB_ID',
      `${JSON.stringify(String(id).slice(0, 80))} is not a job id: 1 to 128 of A-Z a-z 0-9 . _ ~ -`,
    )
  return id
}

/** The number of partitions is part of where a job's keys are: a process that counts otherwise would not find them. */
export const checkLayout = async (
  link: RedisLink,
  namespace: string,
  partitions: number,
  create: boolean,
) => {
  const { layout } = keysOf(namespace, 0)
  if (create) await link.call('HSETNX', layout, 'partitions', partitions)
  const stored = await link.call('HGET', layout, 'partitions')
  if (stored !== null && Number(stored) !== partitions)
    throw new StateError(
      'LAYOUT_MISMATCH',
      `The namespace ${namespace} has ${stored} partition(s) in Redis, this process is configured for ${partitions}: ` +
        `set JOBS_PARTITIONS=${stored}, or use another namespace.`,
    )
}

/**
 * Connects to the jobs of one namespace.
 *
 * @throws StateError REDIS_UNAVAILABLE (with the address), LAYOUT_MISMATCH, INVALID_NAMESPACE
 */
export const connectJobs = async (options: ConnectOptions): Promise<Jobs> => {
  const jobs = new Jobs(options)
  try {
    await checkLayout(jobs.link, jobs.namespace, jobs.partitions, true)
  } catch (error) {
    await jobs.close()
    throw error
  }
  return jobs
}

export class Jobs {
  readonly namespace: string
  readonly partitions: number
  /** For the processes of this project; a backend has no use for it. */
  readonly link: RedisLink
  readonly transitions: Transitions
  readonly options: ConnectOptions
  private subscriber: Subscriber | undefined
  private readonly waiting = new Map<string, Set<() => void>>()

  constructor(options: ConnectOptions) {
    this.options = options
    this.namespace = options.namespace
    this.partitions = options.partitions ?? 1
    this.link = new RedisLink(options)
    this.transitions = transitionsOf(this.link, this.namespace, this.partitions)
  }

  /**
   * Creates a job. With an `id`, doing it again is harmless: the same job comes back as a duplicate.
   *
   * @throws StateError INVALID_PAYLOAD, TOO_LARGE, INVALID_JOB_ID, INVALID_OPTIONS, ID_CONFLICT, REDIS_…
   */
  async enqueue<P>(job: JobDefinition<P>, payload: P, options: EnqueueOptions = {}): Promise<Enqueued> {
    const parsed = EnqueueOptions.safeParse(options)
    if (!parsed.success)
      throw new StateError(
        'INVALID_OPTIONS',
        `The enqueue options are wrong. ${z.prettifyError(parsed.error)}`,
      )
    const { id: givenId, ...budget } = parsed.data
    const id = givenId === undefined ? newId() : validId(givenId)
    const text = encode(job.payload, payload, 'INVALID_PAYLOAD', LIMITS.payloadBytes)
    const outcome = await this.transitions.enqueue({ id, name: job.name, payload: text, ...budget })
    if (!outcome.ok)
      throw new StateError('ID_CONFLICT', `The id ${id} is taken by a job with another name or payload.`)
    return { id, cursor: outcome.cursor, state: outcome.state, duplicate: outcome.repeat }
  }

  /** The job as it is now, or null when there is none (any more). */
  async get(id: string): Promise<Snapshot | null> {
    return readSnapshot(this.link, this.keys(id), id)
  }

  /** The payload as it was enqueued, or null when there is no such job. */
  async payload(id: string): Promise<unknown> {
    const text = await this.link.call('HGET', this.keys(id).job(id), 'payload')
    return typeof text === 'string' ? JSON.parse(text) : null
  }

  /** Jobs in one state, a page at a time, oldest first within a partition. */
  list(options: { state: State; name?: string; cursor?: string; limit?: number }): Promise<Page> {
    return listJobs(this.link, this.transitions.keys, options)
  }

  counts(): Promise<Record<State, number>> {
    return countJobs(this.link, this.transitions.keys)
  }

  /**
   * Every event after the cursor (default: from the first), then live ones, each once and in order, until the job ends.
   *
   * @throws StateError UNKNOWN_JOB, EVENTS_TRIMMED, INVALID_CURSOR
   */
  events(
    id: string,
    { after = '0-0', signal }: { after?: string; signal?: AbortSignal } = {},
  ): AsyncGenerator<JobEvent> {
    return followEvents(this.link, this.keys(id), id, after, () => this.wakeups(id), signal)
  }

  /**
   * Waits for the end of a job.
   *
   * @throws StateError UNKNOWN_JOB; whatever `signal` was aborted with
   */
  async wait(id: string, { signal }: { signal?: AbortSignal } = {}): Promise<Snapshot> {
    const keys = this.keys(id)
    const news = await this.wakeups(id)
    try {
      for (;;) {
        signal?.throwIfAborted()
        const snapshot = await readSnapshot(this.link, keys, id)
        if (!snapshot) throw new StateError('UNKNOWN_JOB', `There is no job ${id} (any more).`)
        if (isTerminal(snapshot.state)) return snapshot
        await news.next(5_000, signal)
      }
    } finally {
      news.close()
    }
  }

  /** Cancels a waiting job at once, and asks the worker of a running one to stop. Cancelling twice is fine. */
  async cancel(id: string): Promise<Outcome> {
    const outcome = await this.transitions.cancel(validId(id))
    if (outcome.ok || outcome.state !== 'CANCELLED') return outcome
    const snapshot = await this.get(id)
    return { ok: true, cursor: snapshot?.cursor ?? '0-0', state: 'CANCELLED', repeat: true }
  }

  /** Queues a failed or cancelled job again, with fresh budgets. */
  rerun(id: string): Promise<Outcome> {
    return this.transitions.rerun(validId(id))
  }

  async close(): Promise<void> {
    this.subscriber?.close()
    for (const wakes of this.waiting.values()) for (const wake of wakes) wake()
    await this.link.close()
  }

  private keys(id: string): Keys {
    return this.transitions.keysFor(validId(id))
  }

  private async wakeups(id: string): Promise<Wakeups> {
    const channel = this.keys(id).events(id)
    this.subscriber ??= new Subscriber(this.options, {
      onMessage: (on) => this.wake(on),
      onRecovered: () => {
        for (const on of this.waiting.keys()) this.wake(on)
      },
    })
    const wakes = this.waiting.get(channel) ?? new Set()
    this.waiting.set(channel, wakes)
    // Kept from the first moment, so that nothing between two reads is missed.
    let rung = false
    let ring = () => {
      rung = true
    }
    const wake = () => ring()
    wakes.add(wake)
    await this.subscriber.subscribe(channel)
    return {
      next: (maxMs, signal) => {
        if (rung) {
          rung = false
          return Promise.resolve()
        }
        return new Promise((resolve) => {
          const done = () => {
            clearTimeout(timer)
            signal?.removeEventListener('abort', done)
            ring = () => {
              rung = true
            }
            resolve()
          }
          const timer = setTimeout(done, maxMs)
          signal?.addEventListener('abort', done, { once: true })
          ring = done
        })
      },
      close: () => {
        wakes.delete(wake)
        if (wakes.size > 0) return
        this.waiting.delete(channel)
        this.subscriber?.unsubscribe(channel)
      },
    }
  }

  private wake(channel: string): void {
    for (const wake of this.waiting.get(channel) ?? []) wake()
  }
}
