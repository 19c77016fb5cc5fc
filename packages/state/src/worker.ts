// A worker's loop: take jobs as slots get free, run them, keep them alive, hand them back at the stop.
import { randomBytes } from 'node:crypto'
import { captureRejectionSymbol, EventEmitter } from 'node:events'
import { hostname } from 'node:os'
import { z } from 'zod'
import { MoveFailed } from './apply.ts'
import { type AttemptEnd, type Handler, RunningAttempt } from './attempt.ts'
import type { JobDefinition } from './define.ts'
import { isStateError, StateError } from './errors.ts'
import { Heartbeats } from './heartbeats.ts'
import type { Jobs } from './jobs.ts'
import { type Keys, REAPER } from './keys.ts'
import type { Claimant, Grant } from './outcomes.ts'
import { Presence } from './presence.ts'
import { PutOff } from './put-off.ts'
import { type Entry, QueueReader } from './queue-reader.ts'
import type { JobError } from './schema/job.ts'
import { DEFAULTS } from './schema/limits.ts'

const Rate = z.strictObject({
  /** Starts at most … */
  max: z.number().int().min(1).max(1_000_000),
  /** … in so many milliseconds. */
  perMs: z.number().int().min(10).max(86_400_000).default(1_000),
})

const WorkerOptions = z.strictObject({
  /** Jobs run at the same time. */
  concurrency: z.number().int().min(1).max(10_000).default(1),
  /** Shown to watchers and in logs; default: host, pid and a random part. */
  workerId: z
    .string()
    .regex(/^[A-Za-z0-9._~-]{1,128}$/)
    .refine((id) => id !== REAPER, 'reapers go by this name')
    .optional(),
  /** Milliseconds without a heartbeat after which a job counts as orphaned; a job may have its own. Default: 5,000. */
  leaseMs: z.number().int().min(200).max(3_600_000).default(DEFAULTS.leaseMs),
  /** Milliseconds between heartbeats; at most a third of the lease, so that one may get lost; default: a 3.5th. */
  heartbeatMs: z.number().int().min(50).optional(),
  /**
   * Milliseconds for which a blocked event loop keeps its jobs: a thread beats for it. Work that is long and synchronous
   * is not death; a loop that hangs for ever is, and its jobs go to others this long and a lease later.
   */
  blockedLoopMs: z.number().int().min(1_000).max(3_600_000).default(30_000),
  /** At most one progress event a job in so many milliseconds; 0 writes every value. */
  progressIntervalMs: z.number().int().min(0).max(60_000).default(100),
  /** Starts of this job name, by all workers together; counted in each partition, so of P partitions P times as many. */
  rate: Rate.optional(),
  /** The same for each `rateKey` that jobs were enqueued with; what is beyond it is put off. */
  ratePerKey: Rate.optional(),
})
export type WorkerOptions = z.input<typeof WorkerOptions>

/** Milliseconds until what failed is tried again. */
const RETRY_MS = 200
/** Milliseconds that aborted handlers get to return before their jobs are released over their heads. */
const ABORT_GRACE_MS = 3_000
/** Milliseconds that a stop waits for Redis: to be let go of, and to take what is handed back. */
const REDIS_GRACE_MS = 2_000

interface About {
  id: string
  attempt: number
}

export interface WorkerEvents {
  active: [About]
  completed: [About]
  failed: [About & { error: JobError }]
  retrying: [About & { error: JobError }]
  cancelled: [About]
  released: [About]
  lost: [About]
  /** Trouble with Redis; the worker goes on. */
  error: [StateError]
}

interface Held<P, G, R> {
  attempt: RunningAttempt<P, G, R>
  done: Promise<void>
  /** Where it is kept alive. */
  beat: number
  /** The handler has returned: what is left is to write the outcome. */
  returned: boolean
}

export class Worker<P, G, R> extends EventEmitter<WorkerEvents> {
  readonly id: string
  private readonly jobs: Jobs
  private readonly definition: JobDefinition<P, G, R, unknown>
  private readonly handler: Handler<P, G, R>
  private readonly options: Omit<z.output<typeof WorkerOptions>, 'workerId'> & { heartbeatMs: number }
  private readonly claimant: Claimant
  private readonly reader: QueueReader
  private readonly presence: Presence
  private readonly beats: Heartbeats
  /** Until their end is written. By id and fence: a job that failed here may start again before its old attempt has been seen off. */
  private readonly held = new Map<string, Held<P, G, R>>()
  /** Slots in use: handlers that have not returned. */
  private busy = 0
  private readonly putOff = new PutOff()
  /** Where the last job was found. */
  private partition = 0
  private starting: Promise<void> | undefined
  private loop: Promise<void> | undefined
  private stopping: Promise<void> | undefined
  private stopRequested = false
  /** What is claimed now is handed back at once. */
  private over = false
  private wake: () => void = () => undefined
  /** Over which our own list was last read; '' when it has to be read again. */
  private connections = ''

  /** @throws StateError INVALID_OPTIONS */
  constructor(
    jobs: Jobs,
    definition: JobDefinition<P, G, R, unknown>,
    handler: Handler<P, G, NoInfer<R>>,
    options: WorkerOptions = {},
  ) {
    super({ captureRejections: true })
    const parsed = WorkerOptions.safeParse(options)
    if (!parsed.success)
      throw new StateError(
        'INVALID_OPTIONS',
        `The worker options are wrong. ${z.prettifyError(parsed.error)}`,
      )
    const { workerId, ...rest } = parsed.data
    const heartbeatMs = rest.heartbeatMs ?? Math.floor(rest.leaseMs / 3.5)
    if (heartbeatMs * 3 > rest.leaseMs)
      throw new StateError(
        'INVALID_OPTIONS',
        `heartbeatMs (${heartbeatMs}) must be at most a third of leaseMs (${rest.leaseMs}).`,
      )
    this.id =
      workerId ??
      `${hostname()
        .replace(/[^A-Za-z0-9._~-]/g, '-')
        .slice(0, 60)}-${process.pid}-${randomBytes(3).toString('hex')}`
    this.options = { ...rest, heartbeatMs }
    this.claimant = {
      worker: this.id,
      nonce: randomBytes(6).toString('base64url'),
      leaseMs: rest.leaseMs,
      rate: rest.rate,
      ratePerKey: rest.ratePerKey,
    }
    this.jobs = jobs
    this.definition = definition
    this.handler = handler
    const trouble = (error: unknown) => this.trouble(error)
    this.reader = new QueueReader(jobs, definition.name, this.id, trouble)
    this.beats = new Heartbeats(jobs, { worker: this.id, name: definition.name, pace: this.options, trouble })
    this.presence = new Presence(jobs.transitions, {
      id: this.id,
      name: definition.name,
      concurrency: rest.concurrency,
      running: () => [...this.held.values()].map(({ attempt }) => attempt.id),
      trouble,
    })
  }

  /**
   * Resolves when the worker takes jobs. Starting twice is fine, and so is starting again after it failed.
   *
   * @throws StateError REDIS_… when Redis can't be reached within its deadline; RIGHTS_MISSING; CLOSED when the worker was stopped
   */
  start(): Promise<void> {
    this.starting ??= this.open().catch((error) => {
      this.starting = undefined
      throw error
    })
    return this.starting
  }

  private async open(): Promise<void> {
    if (!this.stopRequested) await this.reader.open()
    if (!this.stopRequested) await this.beats.start()
    if (this.stopRequested) {
      this.beats.stop()
      throw new StateError('CLOSED', 'This worker has been stopped; make another to go on.')
    }
    this.loop = this.consume()
    await this.presence.start()
  }

  /**
   * Takes no more jobs. Running handlers get `graceMs` (default 10 s) to end; then their signal fires and their jobs are
   * handed back, which costs no attempt. Resolves at most 7 s after that, whatever Redis and the handlers do. Stopping
   * twice is fine.
   */
  stop({ graceMs = 10_000 }: { graceMs?: number } = {}): Promise<void> {
    this.stopping ??= this.wind(graceMs)
    return this.stopping
  }

  private async wind(graceMs: number): Promise<void> {
    this.stopRequested = true
    this.wake()
    if (this.loop) await this.windUp(this.loop, performance.now() + graceMs)
    await this.reader.close()
    this.beats.stop()
  }

  private async windUp(loop: Promise<void>, graceEndsAt: number): Promise<void> {
    // While Redis is away the read can't be ended; what it may have brought is delivered to another worker.
    if (!(await within(REDIS_GRACE_MS, this.reader.leave(loop)))) await this.reader.close()
    await this.allDone(Math.max(0, graceEndsAt - performance.now()))
    for (const { attempt } of this.held.values()) attempt.abort('SHUTTING_DOWN')
    await this.allDone(ABORT_GRACE_MS)
    this.over = true
    const handedBack = [...this.held].map(([key, { attempt, returned }]) => {
      attempt.giveUp()
      // A result that waits for Redis is not given away; its last try is under way.
      if (returned) return undefined
      // A handler that ignores its signal is left behind: its job goes to others, and its fence is void.
      this.let(key)
      return this.handBack(attempt.grant)
    })
    await within(REDIS_GRACE_MS, Promise.all([...handedBack, this.presence.stop()]))
  }

  private async handBack(grant: Grant): Promise<void> {
    try {
      const outcome = await this.jobs.transitions.release(grant)
      const end = !outcome.ok ? 'lost' : outcome.state === 'CANCELLED' ? 'cancelled' : 'released'
      this.tell(end, about(grant))
    } catch (error) {
      this.trouble(error)
    }
  }

  private async allDone(withinMs: number): Promise<void> {
    await within(withinMs, Promise.all([...this.held.values()].map(({ done }) => done)))
  }

  private async consume(): Promise<void> {
    while (!this.stopRequested) {
      const free = this.options.concurrency - this.busy
      if (free <= 0) {
        await this.woken()
        continue
      }
      try {
        // After a reconnect a cut reply may have left jobs given to us, unseen: our own list is read first.
        const now = this.reader.connections
        if (now !== this.connections) {
          this.connections = now
          await this.claimEach(
            await this.reader.own(this.options.concurrency * 2 + 10 + this.putOff.brokenCount),
          )
          continue
        }
        if (this.putOff.any || this.putOff.recall()) {
          await this.claimEach(this.putOff.next(free))
          continue
        }
        if (this.putOff.tooManyBroken) {
          await this.woken(RETRY_MS)
          continue
        }
        const taken = await this.take()
        if (taken.found) continue
        if (taken.retryInMs > 0) await this.woken(taken.retryInMs)
        // Nothing waits: the next jobs are read as they come.
        else while (await this.readNext());
      } catch (error) {
        if (this.stopRequested) return
        this.trouble(error)
        this.connections = ''
        await this.woken(RETRY_MS)
      }
    }
  }

  /** Claims what waits in the next partition that has some; `retryInMs` 0 means that nothing waits. */
  private async take(): Promise<{ found: boolean; retryInMs: number }> {
    const { keys, take } = this.jobs.transitions
    let retryInMs = 0
    for (let asked = 0; asked < keys.length; asked++) {
      const at = (this.partition + asked) % keys.length
      if (!this.reader.mayHave(at)) continue
      const askedAt = performance.now()
      const taken = await this.reader.take(at, () =>
        take(
          keys[at] as Keys,
          this.definition.name,
          () => (this.stopRequested ? 0 : this.options.concurrency - this.busy),
          this.claimant,
        ),
      )
      for (const grant of taken.grants) this.begin(grant, askedAt)
      // A claim of its own says what is wrong.
      for (const entry of taken.broken) this.putOff.add(entry)
      if (taken.grants.length + taken.broken.length > 0) {
        this.partition = at
        return { found: true, retryInMs: 0 }
      }
      if (taken.retryInMs > 0) retryInMs = Math.max(1, Math.min(retryInMs || 1_000, taken.retryInMs))
    }
    return { found: false, retryInMs }
  }

  /** Waits for jobs to come. Answers whether to go on so, rather than to take: while it finds fewer than there are slots. */
  private async readNext(): Promise<boolean> {
    const free = this.options.concurrency - this.busy
    if (this.stopRequested || free <= 0) return false
    const { connections } = this.reader
    const found = await this.reader.next(free)
    await this.claimEach(found)
    if (this.reader.told) return false
    if (this.putOff.recall()) return false
    return found.length < free && !this.putOff.any && connections === this.reader.connections
  }

  private async claimEach(entries: Entry[]): Promise<void> {
    // Those that run here are among our own too: they are granted again, and it is no news. A retried one is not yet seen
    // off when it comes back. A read gives up to its count of each stream: the rest waits for a free slot.
    const free = Math.max(0, this.options.concurrency - this.busy)
    for (const entry of entries.slice(free)) this.putOff.add(entry)
    const refusals = await Promise.all(entries.slice(0, free).map((entry) => this.claim(entry)))
    const waitMs = Math.max(0, ...refusals)
    if (waitMs > 0) await this.woken(waitMs)
  }

  /** Answers in how many milliseconds to try again; 0 when the job runs here, or is not ours to run. */
  private async claim([id, entry]: Entry): Promise<number> {
    const askedAt = performance.now()
    let grant: Awaited<ReturnType<Jobs['transitions']['claim']>>
    try {
      grant = await this.jobs.transitions.claim(id, entry, this.claimant)
    } catch (error) {
      if (error instanceof MoveFailed) {
        this.putAside([id, entry], error)
        return 0
      }
      // The entry stays delivered to us: our own list is read again.
      this.putOff.add([id, entry])
      throw error
    }
    this.putOff.mended([id, entry])
    if (grant.ok) {
      this.begin(grant, askedAt)
      return 0
    }
    if (grant.reason !== 'paused' && grant.reason !== 'rate_limited') return 0
    this.putOff.add([id, entry])
    return Math.max(1, Math.min(grant.retryInMs ?? 1_000, 1_000))
  }

  private putAside(entry: Entry, error: StateError): void {
    if (!this.putOff.putAside(entry)) return
    const why = `The job ${entry[0]} is broken and waits until it is mended; the others go on. ${error.message}`
    this.trouble(new StateError(error.code, why, { cause: error }))
  }

  /** @param askedAt when the grant was asked for, of performance.now */
  private begin(grant: Grant, askedAt: number): void {
    const key = grant.id + grant.fence
    // A reply that was lost and its repeat may both have come.
    if (this.held.has(key)) return
    // This loop was blocked, or the link slow: nobody has kept the attempt alive, and another may run the job by now. What is
    // still ours is granted once more.
    const late = performance.now() - askedAt > grant.leaseMs
    if (late && !this.stopRequested) {
      this.connections = ''
      return
    }
    if (this.over || late) {
      void this.handBack(grant)
      return
    }
    const attempt = new RunningAttempt(grant, this.definition, this.jobs.transitions, {
      progressIntervalMs: this.options.progressIntervalMs,
      trouble: (error) => this.trouble(error),
      handled: () => {
        held.returned = true
        this.busy--
        this.wake()
      },
    })
    this.busy++
    const held: Held<P, G, R> = { attempt, done: DONE, beat: this.beats.hold(attempt), returned: false }
    this.held.set(key, held)
    // What came in one reply is held before the first handler runs: it may block the loop.
    held.done = DONE.then(() => {
      this.tell('active', about(grant))
      return attempt.run(this.handler)
    }).then(
      (end) => this.ended(key, attempt, end),
      // Ours to mend; until then it costs this attempt, which the reaper gives to another, and not the process.
      (fault) => {
        this.let(key)
        this.trouble(fault)
      },
    )
  }

  private ended(key: string, attempt: RunningAttempt<P, G, R>, end: AttemptEnd): void {
    // Left behind by the stop, which has told its end.
    if (!this.let(key)) return
    const told = about(attempt.grant)
    if (end.end === 'failed' || end.end === 'retrying') this.tell(end.end, { ...told, error: end.error })
    else if (end.end !== 'given_up') this.tell(end.end, told)
  }

  private let(key: string): boolean {
    const held = this.held.get(key)
    if (held) this.beats.release(held.beat)
    return this.held.delete(key)
  }

  /** Until a slot gets free, the worker stops, or `withinMs` have passed. */
  private woken(withinMs?: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = withinMs === undefined ? undefined : setTimeout(resolve, withinMs)
      this.wake = () => {
        // While claims must wait, a free slot changes nothing.
        if (withinMs !== undefined && !this.stopRequested) return
        clearTimeout(timer)
        resolve()
      }
      if (this.stopRequested) this.wake()
    })
  }

  /** A listener that throws must not cost a job. */
  private tell<E extends keyof WorkerEvents>(event: E, told: WorkerEvents[E][0]): void {
    if (this.listenerCount(event) === 0) return
    try {
      ;(this.emit as (name: string, told: unknown) => boolean).call(this, event, told)
    } catch (error) {
      this.trouble(error)
    }
  }

  /** A listener that is async and rejects must not end the process. */
  override [captureRejectionSymbol](error: Error, event: unknown, ..._told: unknown[]): void {
    if (event === 'error') console.error(BAD_LISTENER, error)
    else this.trouble(error)
  }

  private trouble(error: unknown): void {
    const told = isStateError(error)
      ? error
      : new StateError('REDIS_REFUSED', 'An unexpected fault.', { cause: error })
    // Without a listener an 'error' event would throw; one that throws itself is its own affair.
    if (this.listenerCount('error') === 0) return
    try {
      this.emit('error', told)
    } catch (thrown) {
      console.error(BAD_LISTENER, thrown)
    }
  }
}

const BAD_LISTENER = 'A listener of the worker event "error" threw:'
const DONE = Promise.resolve()

/** Whether it ended in time. What it rejects with later is nobody's. */
const within = async (ms: number, ending: Promise<unknown>): Promise<boolean> => {
  let timer: NodeJS.Timeout | undefined
  const timeout = new Promise<boolean>((resolve) => {
    timer = setTimeout(() => resolve(false), ms)
  })
  const inTime = await Promise.race([ending.then(() => true), timeout])
  clearTimeout(timer)
  return inTime
}

const about = ({ id, attempt }: { id: string; attempt: number }): About => ({ id, attempt })
