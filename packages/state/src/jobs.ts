// What a backend imports: enqueue, read, follow, steer. Everything here is checked before Redis hears of it.

import type { ConnectOptions } from './connect-options.ts'
import type { JobDefinition } from './define.ts'
import { type EnqueueOptions, validId, type When, whenOf } from './enqueue.ts'
import { StateError } from './errors.ts'
import { followEvents, readSnapshot, stateChanges } from './events.ts'
import { type Explanation, explain } from './explain.ts'
import { type AttemptRecord, attemptsOf } from './history.ts'
import { type BatchItem, type Enqueued, Intake } from './intake.ts'
import type { Keys } from './keys.ts'
import { checkLayout } from './layout.ts'
import { countJobs, type ListOptions, listJobs, type Page } from './listing.ts'
import { News } from './news.ts'
import type { Outcome, Rejection } from './outcomes.ts'
import { presentWorkers, type WorkerAbout } from './presence.ts'
import { quarantineOf } from './quarantine.ts'
import { type QueueStats, queueStats } from './queues.ts'
import { RedisLink } from './redis.ts'
import { nameOfRevoked, type Revoked } from './revocation.ts'
import type { JobEvent } from './schema/event.ts'
import type { Snapshot } from './schema/job.ts'
import { JobName, LIMITS } from './schema/limits.ts'
import { isTerminal, type State } from './schema/machine.ts'
import { checkServer, type Finding } from './server-check.ts'
import { type As, fitted, type SnapshotOf, snapshotAs } from './snapshot-of.ts'
import { countTag } from './tags.ts'
import { Minter, type Token, type TokenFor } from './tokens.ts'
import { type Transitions, transitionsOf } from './transitions.ts'

interface Waiting {
  signal?: AbortSignal | undefined
}

type AnyAs = As<unknown, unknown, unknown, unknown>

const told = (snapshot: Snapshot, as: AnyAs | undefined): Snapshot =>
  as ? (snapshotAs(as.of, snapshot) as Snapshot) : snapshot

/** As long as an id that a key may lead to. */
const LONGEST_ID = 'x'.repeat(128)

/** Where in a job's stream its payload stands. */
const PAYLOAD_ENTRY = '0-2'

/**
 * Connects to the jobs of one namespace.
 *
 * @throws StateError REDIS_UNAVAILABLE (with the address), UNSAFE_REDIS, LAYOUT_MISMATCH, INVALID_NAMESPACE, INVALID_OPTIONS
 */
export const connectJobs = async (options: ConnectOptions): Promise<Jobs> => {
  const jobs = new Jobs(options)
  const { allowUnsafeRedis: allowUnsafe, onFinding = warn } = options
  try {
    await checkServer(jobs.link, { allowUnsafe, onFinding })
    await checkLayout(jobs.link, jobs.namespace, jobs.partitions, true)
  } catch (error) {
    await jobs.close()
    throw error
  }
  return jobs
}

const warn = ({ code, says, fix }: Finding) =>
  process.emitWarning(`${says} ${fix}`, { type: 'JobsWarning', code })

/**
 * The jobs of a namespace. What takes an id throws INVALID_JOB_ID, what takes a name INVALID_JOB_NAME, and all of it REDIS_…
 * when Redis has not answered by the deadline.
 */
export class Jobs {
  readonly namespace: string
  readonly partitions: number
  /** For the processes of this project; a backend has no use for it. */
  readonly link: RedisLink
  readonly transitions: Transitions
  readonly options: ConnectOptions
  /** Jobs that killed one worker after the other, and were taken out for it. */
  readonly quarantine = quarantineOf(this)
  private readonly intake: Intake
  private readonly news: News
  private readonly minter: Minter | undefined

  constructor(options: ConnectOptions) {
    this.options = options
    this.namespace = options.namespace
    this.partitions = options.partitions ?? 1
    this.link = new RedisLink(options)
    this.transitions = transitionsOf(this.link, this.namespace, this.partitions)
    this.intake = new Intake(this.link, this.transitions, options)
    this.news = new News(options)
    this.minter = options.tokens && new Minter(options.tokens, options.namespace)
  }

  /**
   * Creates a job. With an `id` or a `key`, doing it again is harmless: the same job comes back as a duplicate.
   * With `token` the answer has one that lets watch this job; its subject is the job's owner unless another is named.
   *
   * @throws StateError INVALID_PAYLOAD, TOO_LARGE, INVALID_JOB_ID, INVALID_OPTIONS, ID_CONFLICT, KEY_CONFLICT,
   * NOT_REPLICATED (the job is there), ACK_UNSUPPORTED, RIGHTS_MISSING, REDIS_…
   */
  enqueue<P, I = P>(
    job: JobDefinition<P, unknown, unknown, I>,
    payload: I,
    options: EnqueueOptions & { token: true | Omit<TokenFor, 'jobs'> },
  ): Promise<Enqueued & Token>
  enqueue<P, I = P>(
    job: JobDefinition<P, unknown, unknown, I>,
    payload: I,
    options?: EnqueueOptions,
  ): Promise<Enqueued>
  async enqueue<P, I = P>(
    job: JobDefinition<P, unknown, unknown, I>,
    payload: I,
    options?: EnqueueOptions & { token?: true | Omit<TokenFor, 'jobs'> },
  ): Promise<Enqueued> {
    if (options?.token === undefined) return this.intake.one(job, payload, options)
    const { token, ...rest } = options
    const { minting } = this
    const owner = rest.owner === undefined ? {} : { subject: rest.owner }
    // Before there is a job. Which job it is, a key may decide.
    const asked = minting.check({ ...owner, ...(token === true ? {} : token), jobs: '*' })
    await minting.sign({ ...asked, jobs: [rest.id ?? LONGEST_ID] })
    const enqueued = await this.intake.one(job, payload, rest)
    return { ...enqueued, ...(await minting.sign({ ...asked, jobs: [enqueued.id] })) }
  }

  /**
   * A token for a browser, or whoever else watches: it lets watch these jobs and tags through a gateway with
   * GATEWAY_AUTH=jwt.
   *
   * @throws StateError INVALID_OPTIONS (also where connectJobs was given no `tokens`), TOO_LARGE
   */
  async token(asked: TokenFor): Promise<Token> {
    return this.minting.sign(this.minting.check(asked))
  }

  /**
   * Has every gateway refuse a token, or all that a subject was given up to now, and close the connections that use them.
   * Tokens made afterwards are accepted. Revoking twice is fine.
   *
   * @throws StateError INVALID_OPTIONS, REVOCATIONS_FULL
   */
  async revoke(revoked: Revoked): Promise<void> {
    if (await this.transitions.revoke(nameOfRevoked(revoked), Date.now())) return
    throw new StateError(
      'REVOCATIONS_FULL',
      `${LIMITS.revocations} revocations stand already: sign with another key, then no older token is accepted.`,
    )
  }

  /**
   * Creates up to 1,000 jobs in one round trip per partition. Of each partition all are created, or none. Answers one
   * item per job, in order; never throws for a single job.
   *
   * @throws StateError TOO_LARGE when the batch as a whole is
   */
  enqueueMany<P, I = P>(
    job: JobDefinition<P, unknown, unknown, I>,
    items: readonly { payload: I; options?: EnqueueOptions }[],
  ): Promise<BatchItem[]> {
    return this.intake.many(job, items)
  }

  /**
   * The job as it is now, or null when there is none (any more). With `of`, a definition, progress and result are typed.
   *
   * @throws StateError INVALID_RESULT, INVALID_PROGRESS when they do not fit the definition
   */
  get(id: string): Promise<Snapshot | null>
  get<P, G, R, I>(id: string, as: As<P, G, R, I>): Promise<SnapshotOf<G, R> | null>
  async get(id: string, as?: AnyAs): Promise<Snapshot | null> {
    const snapshot = await readSnapshot(this.link, this.keys(id), id)
    return snapshot && told(snapshot, as)
  }

  /**
   * The payload as it was enqueued, or null when there is no such job. With `of`, a definition, it is typed.
   *
   * @throws StateError INVALID_PAYLOAD when it does not fit the definition
   */
  payload(id: string): Promise<unknown>
  payload<P, G, R, I>(id: string, as: As<P, G, R, I>): Promise<P | null>
  async payload(id: string, as?: AnyAs): Promise<unknown> {
    const entries = (await this.link.call(
      'XRANGE',
      this.keys(id).events(id),
      PAYLOAD_ENTRY,
      PAYLOAD_ENTRY,
    )) as [string, string[]][]
    const text = entries[0]?.[1][1]
    return text === undefined ? null : fitted(as?.of.payload, JSON.parse(text), 'INVALID_PAYLOAD')
  }

  /** The attempts so far: who ran each, when, and how it ended. Empty when there is no such job. */
  async attempts(id: string): Promise<AttemptRecord[]> {
    return attemptsOf(await stateChanges(this.link, this.keys(id), id))
  }

  /** Why the job is not moving, or what moves it; null when there is none. */
  explain(id: string): Promise<Explanation | null> {
    return explain(this.link, this.keys(id), this.transitions.keys[0] as Keys, id)
  }

  /**
   * Jobs by any of state, name, tag, owner and time of creation, a page at a time, in an order that does not change:
   * oldest first within one state and priority, or one tag. Jobs that change their state while pages are read may be seen
   * twice or not at all; all others once.
   *
   * @throws StateError INVALID_OPTIONS, INVALID_STATE, INVALID_CURSOR
   */
  async list(options: ListOptions = {}): Promise<Page> {
    return listJobs(this.link, this.transitions.keys, options)
  }

  /**
   * How many jobs are in each state; with `tag`, of those that carry it. Ended jobs count until their retention has
   * passed.
   *
   * @throws StateError INVALID_OPTIONS
   */
  async counts({ tag }: { tag?: string } = {}): Promise<Record<State, number>> {
    const { keys } = this.transitions
    return tag === undefined ? countJobs(this.link, keys) : countTag(this.link, keys, tag)
  }

  /** What waits and runs of each job name and priority, and since when the oldest has been waiting. */
  queues(): Promise<QueueStats[]> {
    return queueStats(this.link, this.transitions.keys)
  }

  /** The worker processes that are there, with what they hold. */
  workers(): Promise<WorkerAbout[]> {
    return presentWorkers(this.link, this.transitions.keys[0] as Keys)
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
    return followEvents(
      this.link,
      this.keys(id),
      id,
      after,
      () => this.news.of(this.keys(id).events(id)),
      signal,
    )
  }

  /**
   * Waits for the end of a job. With `of`, a definition, its result is typed.
   *
   * @throws StateError UNKNOWN_JOB, INVALID_RESULT, INVALID_PROGRESS; whatever `signal` was aborted with
   */
  wait(id: string, options?: Waiting): Promise<Snapshot>
  wait<P, G, R, I>(id: string, options: Waiting & As<P, G, R, I>): Promise<SnapshotOf<G, R>>
  wait(id: string, { signal, of }: Waiting & Partial<AnyAs> = {}): Promise<Snapshot> {
    const ended = ({ state }: Snapshot) => isTerminal(state)
    return of
      ? (this.until(id, ended, { signal, of }) as Promise<Snapshot>)
      : this.until(id, ended, { signal })
  }

  /**
   * Waits until the job is as wanted, and answers it. With `of`, a definition, progress and result are typed.
   *
   * @throws StateError UNKNOWN_JOB, INVALID_RESULT, INVALID_PROGRESS; whatever `signal` was aborted with
   */
  until(id: string, wanted: (job: Snapshot) => boolean, options?: Waiting): Promise<Snapshot>
  until<P, G, R, I>(
    id: string,
    wanted: (job: Snapshot) => boolean,
    options: Waiting & As<P, G, R, I>,
  ): Promise<SnapshotOf<G, R>>
  async until(
    id: string,
    wanted: (job: Snapshot) => boolean,
    { signal, of }: Waiting & Partial<AnyAs> = {},
  ): Promise<Snapshot> {
    const keys = this.keys(id)
    const news = await this.news.of(keys.events(id))
    try {
      for (;;) {
        signal?.throwIfAborted()
        const snapshot = await readSnapshot(this.link, keys, id)
        if (!snapshot) throw new StateError('UNKNOWN_JOB', `There is no job ${id} (any more).`)
        if (wanted(snapshot)) return told(snapshot, of && { of })
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

  /** Queues an ended job again, with fresh budgets, the same id and no time to live; its history goes on. */
  rerun(id: string): Promise<Outcome> {
    return this.transitions.rerun(validId(id))
  }

  /** Deletes an ended job with all that is kept of it. Deleting what is not there is fine. */
  async remove(id: string): Promise<{ ok: true; repeat: boolean } | Rejection> {
    const outcome = await this.transitions.remove(validId(id))
    if (outcome.ok) return { ok: true, repeat: false }
    return outcome.reason === 'unknown_job' ? { ok: true, repeat: true } : outcome
  }

  /**
   * Gives a waiting job another time to run: in so many milliseconds (0: now), or at a Date or millisecond of Redis'
   * clock (one that has passed: now).
   *
   * @throws StateError INVALID_OPTIONS
   */
  async reschedule(id: string, when: When): Promise<Outcome> {
    const { delayMs = 0, runAt } = whenOf(when)
    return this.transitions.reschedule(validId(id), delayMs, runAt)
  }

  /** Stops claims of one job name, or of all. What runs goes on. Pausing twice is fine. */
  async pause(name?: string): Promise<void> {
    await this.transitions.pause(validName(name))
  }

  /** Ends a pause of the same name (or of all); workers notice within a second. */
  async resume(name?: string): Promise<void> {
    await this.transitions.resume(validName(name))
  }

  /**
   * Cancels every waiting job of one name, or of all; what ran before goes on. Answers how many it cancelled, or asked to
   * stop since they were claimed meanwhile.
   */
  async drain(name?: string): Promise<number> {
    if (name !== undefined) validName(name)
    let cancelled = 0
    for (const state of ['SCHEDULED', 'QUEUED'] as const) {
      for (let cursor: string | null | undefined; cursor !== null; ) {
        const page: Page = await this.list({
          state,
          limit: 500,
          ...(name ? { name } : {}),
          ...(cursor ? { cursor } : {}),
        })
        const outcomes = await Promise.all(page.jobs.map(({ id }) => this.transitions.cancel(id)))
        // A job that was claimed meanwhile is asked to stop: it was waiting when the drain began.
        cancelled += outcomes.filter((outcome) => outcome.ok && !outcome.repeat).length
        cursor = page.cursor
      }
    }
    return cancelled
  }

  async close(): Promise<void> {
    this.news.close()
    await this.intake.close()
    await this.link.close()
  }

  private get minting(): Minter {
    if (this.minter) return this.minter
    throw new StateError('INVALID_OPTIONS', 'To make tokens, give connectJobs the option `tokens`.')
  }

  private keys(id: string): Keys {
    return this.transitions.keysFor(validId(id))
  }
}

const validName = (name: string | undefined): string => {
  if (name !== undefined && !JobName.safeParse(name).success)
    throw new StateError(
      'INVALID_JOB_NAME',
      `${JSON.stringify(name)?.slice(0, 80)} is not a job name: 1 to 64 of A-Z a-z 0-9 . _ ~ -`,
    )
  return name ?? '*'
}
