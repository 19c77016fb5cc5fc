// A worker process' loop: take entries, claim them, run them, keep them alive, hand them back at the stop.
import { randomBytes } from 'node:crypto'
import { EventEmitter } from 'node:events'
import { hostname } from 'node:os'
import { z } from 'zod'
import { type AttemptEnd, type Handler, RunningAttempt } from './attempt.ts'
import type { JobDefinition } from './define.ts'
import { isStateError, StateError } from './errors.ts'
import type { Jobs } from './jobs.ts'
import { GROUP } from './keys.ts'
import { NO_GROUP, RedisLink } from './redis.ts'
import type { JobError } from './schema/job.ts'

const WorkerOptions = z.strictObject({
  /** Jobs run at the same time. */
  concurrency: z.number().int().min(1).max(10_000).default(1),
  /** Shown to watchers and in logs; default: host, pid and a random part. */
  workerId: z
    .string()
    .regex(/^[A-Za-z0-9._~-]{1,128}$/)
    .optional(),
  /** Milliseconds without a heartbeat after which a job counts as orphaned. */
  leaseMs: z.number().int().min(200).max(3_600_000).default(5_000),
  /** Milliseconds between heartbeats; at most a third of the lease, so that one may get lost. */
  heartbeatMs: z.number().int().min(50).optional(),
  /** At most one progress event a job in so many milliseconds. */
  progressIntervalMs: z.number().int().min(0).max(60_000).default(100),
  /** Milliseconds before the next attempt, by failures so far; default: 1 s, doubling to 30 s, with jitter. */
  retryDelayMs: z.custom<(failures: number) => number>((value) => typeof value === 'function').optional(),
})
export type WorkerOptions = z.input<typeof WorkerOptions>

const defaultRetryDelayMs = (failures: number): number =>
  Math.min(1_000 * 2 ** (failures - 1), 30_000) * (0.75 + Math.random() / 2)

/** Milliseconds a read blocks for; a read that has not come back a while later has its connection replaced. */
const BLOCK_MS = 5_000
const BLOCK_GRACE_MS = 1_500
/** Milliseconds until a failed read is tried again. */
const READ_RETRY_MS = 200
/** Milliseconds that aborted handlers get to return before their jobs are released over their heads. */
const ABORT_GRACE_MS = 3_000

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

export class Worker<P, G, R> extends EventEmitter<WorkerEvents> {
  readonly id: string
  private readonly jobs: Jobs
  private readonly definition: JobDefinition<P, G, R>
  private readonly handler: Handler<P, G, R>
  private readonly options: Omit<z.output<typeof WorkerOptions>, 'workerId'> & { heartbeatMs: number }
  private readonly reader: RedisLink
  private readonly streams: string[]
  /** By fence: a job that failed here may start again before its old attempt has been seen off. */
  private readonly running = new Map<string, { attempt: RunningAttempt<P, G, R>; done: Promise<void> }>()
  private readonly claiming = new Set<string>()
  /** Delivered to us and not claimed yet: at most one read's worth. */
  private readonly backlog: [id: string, entry: string][] = []
  private loop: Promise<void> | undefined
  private beats: NodeJS.Timeout | undefined
  private readerId: unknown
  private stopping: Promise<void> | undefined
  private stopRequested = false
  private beating = false
  private slotFreed: () => void = () => undefined

  /** @throws StateError INVALID_OPTIONS */
  constructor(
    jobs: Jobs,
    definition: JobDefinition<P, G, R>,
    handler: Handler<P, G, R>,
    options: WorkerOptions = {},
  ) {
    super()
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
    this.jobs = jobs
    this.definition = definition
    this.handler = handler
    // A blocking read shares its connection with nothing else.
    this.reader = new RedisLink({ ...jobs.options, onTrouble: (error) => this.trouble(error) })
    this.streams = jobs.transitions.keys.map((keys) => keys.work(definition.name))
  }

  /** Resolves when the worker takes jobs. Throws when Redis can't be reached within its deadline. */
  async start(): Promise<void> {
    if (this.loop) return
    await this.reader.connect()
    await this.ensureGroups()
    this.beats = setInterval(() => void this.beat(), this.options.heartbeatMs)
    this.loop = this.consume()
  }

  /**
   * Takes no more jobs. Running handlers get `graceMs` (default 10 s) to end; then their signal fires and their jobs are
   * handed back, which costs no attempt. Stopping twice is fine.
   */
  stop({ graceMs = 10_000 }: { graceMs?: number } = {}): Promise<void> {
    this.stopping ??= this.wind(graceMs)
    return this.stopping
  }

  private async wind(graceMs: number): Promise<void> {
    this.stopRequested = true
    this.slotFreed()
    await this.leaveLoop()
    await this.allDone(graceMs)
    for (const { attempt } of this.running.values()) attempt.abort('SHUTTING_DOWN')
    await this.allDone(ABORT_GRACE_MS)
    for (const { attempt } of this.running.values()) attempt.giveUp()
    // A handler that ignores its signal is left behind: its job goes to others, and its fence is void.
    await Promise.all(
      [...this.running.values()].map(({ attempt }) =>
        this.jobs.transitions.release(attempt.grant).then(
          () => this.tell('released', about(attempt.grant)),
          (error) => this.trouble(error),
        ),
      ),
    )
    clearInterval(this.beats)
    await this.reader.close()
  }

  /** Wakes the blocked read. Again and again: it may be sent just after a wake-up that came too early for it. */
  private async leaveLoop(): Promise<void> {
    let left = false
    const leaving = this.loop?.then(() => {
      left = true
    })
    while (leaving && !left) {
      if (this.readerId !== undefined)
        await this.jobs.link
          .call('CLIENT', 'UNBLOCK', String(this.readerId))
          .catch((error) => this.trouble(error))
      await Promise.race([leaving, new Promise((resolve) => setTimeout(resolve, 20))])
    }
  }

  private async allDone(withinMs: number): Promise<void> {
    let timer: NodeJS.Timeout | undefined
    const timeout = new Promise((resolve) => {
      timer = setTimeout(resolve, withinMs)
    })
    await Promise.race([Promise.all([...this.running.values()].map(({ done }) => done)), timeout])
    clearTimeout(timer)
  }

  private async ensureGroups(): Promise<void> {
    for (const keys of this.jobs.transitions.keys) {
      await this.jobs.link.call('SADD', keys.names, this.definition.name)
      try {
        await this.jobs.link.call('XGROUP', 'CREATE', keys.work(this.definition.name), GROUP, '0', 'MKSTREAM')
      } catch (error) {
        // It is there already.
        if (!(isStateError(error, 'REDIS_REFUSED') && error.message.includes('BUSYGROUP'))) throw error
      }
    }
  }

  private async consume(): Promise<void> {
    let connection = 0
    while (!this.stopRequested) {
      const free = this.options.concurrency - this.running.size - this.claiming.size
      if (free <= 0) {
        await new Promise<void>((resolve) => {
          this.slotFreed = resolve
        })
        continue
      }
      try {
        if (this.backlog.length === 0) {
          // After a reconnect a cut reply may have left entries pending for us, unseen: our own list is read first.
          const anew = connection !== this.reader.connections
          if (anew) this.readerId = await this.reader.call('CLIENT', 'ID')
          const now = this.reader.connections
          if (this.stopRequested) return
          if (await this.read(anew ? '0' : '>', free)) connection = now
          else await this.ensureGroups()
        }
        await Promise.all(this.backlog.splice(0, free).map(([id, entry]) => this.take(id, entry)))
      } catch (error) {
        if (this.stopRequested) return
        this.trouble(error)
        connection = 0
        await new Promise((resolve) => setTimeout(resolve, READ_RETRY_MS))
      }
    }
  }

  /** Adds entries to the backlog: new ones, or (from '0') those delivered to us before. False when the group is gone. */
  private async read(from: '>' | '0', count: number): Promise<boolean> {
    // Our own list holds what runs, too, which is skipped below: all of it is read.
    const take = from === '0' ? this.options.concurrency * 2 + 10 : count
    const reply = await this.reader.once(
      [
        ...(['XREADGROUP', 'GROUP', GROUP, this.id, 'COUNT', take, 'BLOCK', BLOCK_MS, 'STREAMS'] as const),
        ...this.streams,
        ...this.streams.map(() => from),
      ],
      BLOCK_MS + BLOCK_GRACE_MS,
    )
    if (reply === NO_GROUP) return false
    const held = new Set([...this.running.values()].map(({ attempt }) => attempt.grant.id))
    // A flat list under RESP3: stream, entries, stream, entries … Each stream gives up to COUNT.
    for (const entries of (reply ?? []) as (string | [string, string[] | null][])[])
      if (Array.isArray(entries))
        for (const [entry, fields] of entries)
          if (fields?.[1] && !(from === '0' && held.has(fields[1]))) this.backlog.push([fields[1], entry])
    return true
  }

  private async take(id: string, entry: string): Promise<void> {
    if (this.claiming.has(id)) return
    this.claiming.add(id)
    try {
      const grant = await this.jobs.transitions.claim(id, {
        entry,
        worker: this.id,
        nonce: randomBytes(9).toString('base64url'),
        leaseMs: this.options.leaseMs,
      })
      // Cancelled meanwhile, or claimed by another: the entry is not ours to run.
      if (!grant.ok) return
      const attempt = new RunningAttempt(grant, this.definition, this.jobs.transitions, {
        progressIntervalMs: this.options.progressIntervalMs,
        retryDelayMs: this.options.retryDelayMs ?? defaultRetryDelayMs,
        trouble: (error) => this.trouble(error),
      })
      this.tell('active', about(grant))
      const done = attempt.run(this.handler).then((end) => this.ended(attempt, end))
      this.running.set(grant.id + grant.fence, { attempt, done })
    } finally {
      this.claiming.delete(id)
    }
  }

  private ended(attempt: RunningAttempt<P, G, R>, end: AttemptEnd): void {
    this.running.delete(attempt.grant.id + attempt.grant.fence)
    this.slotFreed()
    const told = about(attempt.grant)
    if (end.end === 'failed' || end.end === 'retrying') this.tell(end.end, { ...told, error: end.error })
    else if (end.end !== 'given_up') this.tell(end.end, told)
  }

  private async beat(): Promise<void> {
    // While Redis is slow, beats do not pile up.
    if (this.beating) return
    this.beating = true
    const beats = [...this.running.values()].map(({ attempt }) => attempt.beat())
    for (const result of await Promise.allSettled(beats))
      if (result.status === 'rejected') this.trouble(result.reason)
    this.beating = false
  }

  /** A listener that throws must not cost a job. */
  private tell<E extends keyof WorkerEvents>(event: E, about: WorkerEvents[E][0]): void {
    try {
      ;(this.emit as (name: string, told: unknown) => boolean).call(this, event, about)
    } catch (error) {
      this.trouble(error)
    }
  }

  private trouble(error: unknown): void {
    const told =
      error instanceof StateError
        ? error
        : new StateError('REDIS_REFUSED', 'An unexpected fault.', { cause: error })
    // Without a listener an 'error' event would throw.
    if (this.listenerCount('error') > 0) this.emit('error', told)
  }
}

const about = ({ id, attempt }: { id: string; attempt: number }): About => ({ id, attempt })
