// One attempt: runs the handler, carries its reports, and ends the job by the outcome. Every write carries the fence;
// what Redis refuses is not ours to decide any more.
import { backoffMs, backoffOf } from './backoff.ts'
import { encode, type JobDefinition } from './define.ts'
import { StateError } from './errors.ts'
import { isFinal, jobErrorOf } from './failure.ts'
import type { Grant, Outcome } from './outcomes.ts'
import { Reporter } from './reporter.ts'
import type { JobError } from './schema/job.ts'
import { LIMITS } from './schema/limits.ts'
import type { Transitions } from './transitions.ts'

/** What a handler gets. */
export interface JobContext<P, G> {
  readonly id: string
  readonly name: string
  /** 1 for the first run. With the id it makes a key for your own side effects: Redis cannot fence those. */
  readonly attempt: number
  readonly maxAttempts: number
  readonly payload: P
  readonly tags: readonly string[]
  readonly owner: string | null
  /** Trace context that was given to enqueue (W3C traceparent), or null. */
  readonly trace: string | null
  /** What an attempt before left by `saveCheckpoint`, or null. */
  readonly checkpoint: unknown
  /** Fires with a StateError: CANCEL_REQUESTED, OWNERSHIP_LOST, TIMED_OUT, STALLED or SHUTTING_DOWN. */
  readonly signal: AbortSignal
  /**
   * Replaces the progress. Coalesced: under the rate cap the last value wins, and the last one is always written.
   * Resolves once the value is written or folded into a later one; nobody needs to wait for that.
   */
  progress(value: G): Promise<void>
  /** Appends a line to the job's stream; longer ones are cut to 2,000 characters. */
  log(line: string): void
  /** Keeps data (JSON, at most 64 KB) for the next attempt, should this one die or fail. */
  saveCheckpoint(data: unknown): Promise<void>
}

export type Handler<P, G, R> = (job: JobContext<P, G>) => R | Promise<R>

/** How an attempt ended; `lost` means another owns the job now, `given_up` that Redis stayed away until the stop. */
export type AttemptEnd =
  | { end: 'completed' }
  | { end: 'failed' | 'retrying'; error: JobError }
  | { end: 'cancelled' | 'released' | 'lost' | 'given_up' }

export interface AttemptOptions {
  progressIntervalMs: number
  trouble: (error: unknown) => void
  /** The handler has returned: only the outcome is left to be written. */
  handled: () => void
}

type AbortCode = 'CANCEL_REQUESTED' | 'OWNERSHIP_LOST' | 'SHUTTING_DOWN' | 'TIMED_OUT' | 'STALLED'

const MAX_LINE = 2_000
const MAX_TIMER_MS = 2 ** 31 - 1

export class RunningAttempt<P, G, R> implements JobContext<P, G> {
  readonly grant: Grant
  readonly name: string
  readonly payload: P
  private readonly definition: JobDefinition<P, G, R, unknown>
  private readonly transitions: Transitions
  private readonly options: AttemptOptions
  private readonly reporter: Reporter
  // Most handlers never look at the signal: it is made when one does.
  private controller: AbortController | undefined
  private aborted: StateError | undefined
  private stopHandling: ((error: StateError) => void) | undefined
  private givenUp = false
  private returned = false
  /** When the handler last gave a sign of life, of performance.now. */
  private reportedAt = 0
  /** The payload does not fit this worker's schema. */
  private readonly unfit: StateError | undefined

  constructor(
    grant: Grant,
    definition: JobDefinition<P, G, R, unknown>,
    transitions: Transitions,
    options: AttemptOptions,
  ) {
    this.grant = grant
    this.name = definition.name
    this.definition = definition
    this.transitions = transitions
    this.options = options
    const { payload, unfit } = payloadOf(definition, grant.payload)
    this.payload = payload
    this.unfit = unfit
    this.reporter = new Reporter(
      {
        progress: (op, text) => transitions.progress(grant, op, text),
        log: (op, line) => transitions.log(grant, op, line),
        finally: transitions.finally,
        lost: () => this.abort('OWNERSHIP_LOST'),
        trouble: options.trouble,
      },
      options.progressIntervalMs,
    )
  }

  get id() {
    return this.grant.id
  }
  get attempt() {
    return this.grant.attempt
  }
  get maxAttempts() {
    return this.grant.maxAttempts
  }
  get tags() {
    return this.labels.filter((label) => !label.startsWith('@'))
  }
  get owner() {
    return this.labels.find((label) => label.startsWith('@'))?.slice(1) ?? null
  }
  get trace() {
    return this.grant.trace || null
  }
  get checkpoint(): unknown {
    return this.grant.checkpoint ? JSON.parse(this.grant.checkpoint) : null
  }
  get signal(): AbortSignal {
    if (!this.controller) {
      this.controller = new AbortController()
      if (this.aborted) this.controller.abort(this.aborted)
    }
    return this.controller.signal
  }
  private get labels() {
    return this.grant.tags ? this.grant.tags.split(' ') : []
  }

  // Handlers take these out of the context, so they are bound.
  // What a handler still reports after it has returned is moot, and must not throw where nobody catches.
  readonly progress = (value: G): Promise<void> => {
    if (this.returned) return Promise.resolve()
    if (this.grant.stallMs > 0) this.reportedAt = performance.now()
    return this.reporter.progress(
      encode(this.definition.progress, value, 'INVALID_PROGRESS', LIMITS.progressBytes),
    )
  }

  readonly log = (line: string): void => {
    if (this.returned) return
    if (this.grant.stallMs > 0) this.reportedAt = performance.now()
    this.reporter.log(String(line).slice(0, MAX_LINE))
  }

  readonly saveCheckpoint = (data: unknown): Promise<void> => {
    const saved = this.keep(data)
    // A handler that does not wait for it must not lose its process to a rejection.
    saved.catch(this.options.trouble)
    return saved
  }

  private async keep(data: unknown): Promise<void> {
    const text = encode(undefined, data, 'INVALID_CHECKPOINT', LIMITS.checkpointBytes)
    const outcome = await this.transitions.checkpoint(this.grant, text)
    if (outcome.ok) return
    this.abort('OWNERSHIP_LOST')
    throw this.aborted
  }

  /** Stops the handler; the first reason counts, but losing the job outdoes a wish to stop. */
  abort(code: AbortCode): void {
    if (code === 'OWNERSHIP_LOST') this.reporter.close()
    const reason = new StateError(code, REASONS[code])
    if (!this.aborted || code === 'OWNERSHIP_LOST') {
      this.aborted = reason
      this.controller?.abort(reason)
    }
    // A handler that is out of time is not waited for, even where it was to stop for another reason and did not: its slot
    // is for others, and its fence is void.
    if (code === 'TIMED_OUT' || code === 'STALLED') this.stopHandling?.(reason)
  }

  /** Stops waiting for Redis to take the outcome: the process ends. */
  giveUp(): void {
    this.givenUp = true
  }

  /** What a heartbeat said of a cancel, or of a job that is not ours any more. */
  heard(answer: { ok: boolean; cancelRequested?: boolean }): void {
    if (!answer.ok) this.abort('OWNERSHIP_LOST')
    else if (answer.cancelRequested) this.abort('CANCEL_REQUESTED')
  }

  async run(handler: Handler<P, G, R>): Promise<AttemptEnd> {
    let result: string | undefined
    let thrown: unknown
    try {
      result = await this.handle(handler)
    } catch (error) {
      thrown = error
    }
    this.returned = true
    this.options.handled()
    const { grant, transitions } = this
    const end =
      result === undefined
        ? await this.endWith(thrown)
        : await this.finish('completed', (progress) => transitions.complete(grant, result, progress))
    this.reporter.close()
    return end
  }

  private async handle(handler: Handler<P, G, R>): Promise<string> {
    if (this.unfit) throw this.unfit
    const { timeoutMs, stallMs } = this.grant
    const result = await (timeoutMs > 0 || stallMs > 0 ? this.watched(handler) : handler(this))
    // A handler that returns nothing has the result null.
    return encode(this.definition.result, result ?? null, 'INVALID_RESULT', LIMITS.resultBytes)
  }

  private async watched(handler: Handler<P, G, R>): Promise<R> {
    const { timeoutMs, stallMs } = this.grant
    // What a timer can not wait for is left to the reaper.
    const limited = timeoutMs > 0 && timeoutMs <= MAX_TIMER_MS
    const timer = limited ? setTimeout(() => this.abort('TIMED_OUT'), timeoutMs) : undefined
    this.reportedAt = performance.now()
    let stall: NodeJS.Timeout | undefined
    // A report only leaves its time; the timer looks how long ago the last one was.
    const look = () => {
      const leftMs = this.reportedAt + stallMs - performance.now()
      if (leftMs > 0) stall = setTimeout(look, Math.min(Math.ceil(leftMs), MAX_TIMER_MS))
      else this.abort('STALLED')
    }
    if (stallMs > 0) look()
    try {
      return await Promise.race([
        handler(this),
        new Promise<never>((_, reject) => {
          this.stopHandling = reject
        }),
      ])
    } finally {
      clearTimeout(timer)
      clearTimeout(stall)
    }
  }

  private async endWith(thrown: unknown): Promise<AttemptEnd> {
    const { grant, transitions } = this
    const why = this.aborted?.code
    if (why === 'OWNERSHIP_LOST') return { end: 'lost' }
    if (why === 'CANCEL_REQUESTED')
      return this.finish('cancelled', (progress) => transitions.abort(grant, progress))
    if (why === 'SHUTTING_DOWN')
      return this.finish('released', (progress) => transitions.release(grant, progress))
    const error = jobErrorOf(thrown)
    const text = JSON.stringify(error)
    // A payload that does not fit will not fit the next time.
    if (this.unfit || isFinal(thrown) || grant.failures + 1 >= grant.maxAttempts)
      return this.finish('failed', (progress) => transitions.fail(grant, text, progress), error)
    const delayMs = backoffMs(backoffOf(grant.backoff), grant.failures + 1)
    return this.finish('retrying', (progress) => transitions.retry(grant, text, delayMs, progress), error)
  }

  /** Writes the outcome, however long Redis is away: the work is done, only its end is missing. */
  private async finish(
    end: Exclude<AttemptEnd['end'], 'lost' | 'given_up'>,
    move: (progress: string) => Promise<Outcome>,
    error?: JobError,
  ): Promise<AttemptEnd> {
    for (;;) {
      try {
        const { progress, written } = await this.reporter.end()
        const [outcome] = await Promise.all([move(progress), written])
        if (!outcome.ok) return { end: 'lost' }
        if (outcome.state === 'CANCELLED' && end !== 'cancelled') return { end: 'cancelled' }
        return { end, ...(error ? { error } : {}) } as AttemptEnd
      } catch (failure) {
        this.options.trouble(failure)
        if (this.givenUp) return { end: 'given_up' }
        await new Promise((resolve) => setTimeout(resolve, OUTCOME_RETRY_MS))
      }
    }
  }
}

/** A schema may do anything, even throw: the other jobs of the worker must not notice. */
const payloadOf = <P>(
  { payload: schema }: Pick<JobDefinition<P, unknown, unknown, unknown>, 'payload'>,
  text: string,
): { payload: P; unfit: StateError | undefined } => {
  let payload: unknown
  const unfit = (why: string, cause?: unknown) =>
    new StateError('INVALID_PAYLOAD', `The payload does not fit this worker's schema: ${why}`, { cause })
  try {
    payload = JSON.parse(text)
    const parsed = schema?.safeParse(payload)
    if (!parsed?.success && parsed)
      return { payload: payload as P, unfit: unfit(parsed.error.issues[0]?.message ?? 'unknown') }
    return { payload: (parsed ? parsed.data : payload) as P, unfit: undefined }
  } catch (thrown) {
    return { payload: payload as P, unfit: unfit(jobErrorOf(thrown).message, thrown) }
  }
}

/** Milliseconds between tries to write an outcome while Redis is away. */
const OUTCOME_RETRY_MS = 500

const REASONS: Record<AbortCode, string> = {
  CANCEL_REQUESTED: 'The job was cancelled.',
  OWNERSHIP_LOST: 'The job was given to another worker, has ended or is gone.',
  TIMED_OUT: 'The attempt did not end in its time.',
  STALLED: 'The attempt reported nothing for longer than it may.',
  SHUTTING_DOWN: 'The worker is stopping.',
}
