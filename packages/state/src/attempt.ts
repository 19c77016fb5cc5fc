// One attempt: runs the handler, carries its reports, and ends the job by the outcome. Every write carries the fence;
// what Redis refuses is not ours to decide any more.
import { encode, type JobDefinition } from './define.ts'
import { isStateError, StateError } from './errors.ts'
import { Reporter } from './reporter.ts'
import type { JobError } from './schema/job.ts'
import { LIMITS } from './schema/limits.ts'
import type { Grant, Outcome, Transitions } from './transitions.ts'

/** What a handler gets. */
export interface JobContext<P, G> {
  readonly id: string
  readonly name: string
  /** 1 for the first run. With the id it makes a key for your own side effects: Redis cannot fence those. */
  readonly attempt: number
  readonly payload: P
  /** Fires with a StateError: CANCEL_REQUESTED, OWNERSHIP_LOST or SHUTTING_DOWN. */
  readonly signal: AbortSignal
  /** Replaces the progress. Coalesced: under the rate cap the last value wins, and the last one is always written. */
  progress(value: G): void
  /** Appends a line to the job's stream; longer ones are cut to 2,000 characters. */
  log(line: string): void
}

export type Handler<P, G, R> = (job: JobContext<P, G>) => R | Promise<R>

/** How an attempt ended; `lost` means another owns the job now, `given_up` that Redis stayed away until the stop. */
export type AttemptEnd =
  | { end: 'completed' }
  | { end: 'failed' | 'retrying'; error: JobError }
  | { end: 'cancelled' | 'released' | 'lost' | 'given_up' }

export interface AttemptOptions {
  progressIntervalMs: number
  retryDelayMs: (failures: number) => number
  trouble: (error: unknown) => void
}

const MAX_LINE = 2_000

export class RunningAttempt<P, G, R> {
  readonly grant: Grant
  private readonly definition: JobDefinition<P, G, R>
  private readonly transitions: Transitions
  private readonly options: AttemptOptions
  private readonly controller = new AbortController()
  private readonly reporter: Reporter
  private givenUp = false

  constructor(
    grant: Grant,
    definition: JobDefinition<P, G, R>,
    transitions: Transitions,
    options: AttemptOptions,
  ) {
    this.grant = grant
    this.definition = definition
    this.transitions = transitions
    this.options = options
    this.reporter = new Reporter(
      {
        progress: (op, text) => transitions.progress(grant, op, text),
        log: (op, line) => transitions.log(grant, op, line),
        lost: () => this.abort('OWNERSHIP_LOST'),
        trouble: options.trouble,
      },
      options.progressIntervalMs,
    )
  }

  /** Stops the handler; the first reason counts, but losing the job outdoes a wish to stop. */
  abort(reason: 'CANCEL_REQUESTED' | 'OWNERSHIP_LOST' | 'SHUTTING_DOWN'): void {
    if (reason === 'OWNERSHIP_LOST') this.reporter.close()
    this.lostNow ||= reason === 'OWNERSHIP_LOST'
    this.controller.abort(new StateError(reason, REASONS[reason]))
  }
  private lostNow = false

  /** Stops waiting for Redis to take the outcome: the process ends. */
  giveUp(): void {
    this.givenUp = true
  }

  /** One beat. Redis' answer tells of a cancel, and of a job that is not ours any more. */
  async beat(): Promise<void> {
    const answer = await this.transitions.heartbeat(this.grant)
    if (!answer.ok) this.abort('OWNERSHIP_LOST')
    else if (answer.cancelRequested) this.abort('CANCEL_REQUESTED')
  }

  async run(handler: Handler<P, G, R>): Promise<AttemptEnd> {
    try {
      const result = await this.handle(handler)
      return await this.finish('completed', () => this.transitions.complete(this.grant, result))
    } catch (error) {
      return await this.endWith(error)
    } finally {
      this.reporter.close()
    }
  }

  private async handle(handler: Handler<P, G, R>): Promise<string> {
    const { grant, definition, reporter } = this
    const payload = definition.payload.safeParse(JSON.parse(grant.payload))
    if (!payload.success)
      throw new StateError(
        'INVALID_PAYLOAD',
        `The payload does not fit this worker's schema: ${payload.error.issues[0]?.message ?? 'unknown'}`,
      )
    const result = await handler({
      id: grant.id,
      name: definition.name,
      attempt: grant.attempt,
      payload: payload.data,
      signal: this.controller.signal,
      progress: (value) =>
        reporter.progress(encode(definition.progress, value, 'INVALID_PROGRESS', LIMITS.progressBytes)),
      log: (line) => reporter.log(String(line).slice(0, MAX_LINE)),
    })
    // A handler that returns nothing has the result null.
    return encode(definition.result, result ?? null, 'INVALID_RESULT', LIMITS.resultBytes)
  }

  private async endWith(thrown: unknown): Promise<AttemptEnd> {
    const { grant, transitions } = this
    const why = this.lostNow
      ? 'OWNERSHIP_LOST'
      : (this.controller.signal.reason as StateError | undefined)?.code
    if (why === 'OWNERSHIP_LOST') return { end: 'lost' }
    if (why === 'CANCEL_REQUESTED') return this.finish('cancelled', () => transitions.abort(grant))
    if (why === 'SHUTTING_DOWN') return this.finish('released', () => transitions.release(grant))
    const error = jobErrorOf(thrown)
    const text = JSON.stringify(error)
    // A payload that does not fit will not fit the next time.
    if (grant.failures + 1 >= grant.maxAttempts || isStateError(thrown, 'INVALID_PAYLOAD'))
      return this.finish('failed', () => transitions.fail(grant, text), error)
    const delayMs = Math.max(0, Math.round(this.options.retryDelayMs(grant.failures + 1)))
    return this.finish('retrying', () => transitions.retry(grant, text, delayMs), error)
  }

  /** What was reported comes before the outcome; but where memory is full for reports, the outcome is taken all the same. */
  private async flushReports(): Promise<void> {
    try {
      await this.reporter.flush()
    } catch (error) {
      if (!isStateError(error, 'REDIS_OUT_OF_MEMORY')) throw error
      this.reporter.close()
    }
  }

  /** Writes the outcome, however long Redis is away: the work is done, only its end is missing. */
  private async finish(
    end: Exclude<AttemptEnd['end'], 'lost' | 'given_up'>,
    move: () => Promise<Outcome>,
    error?: JobError,
  ): Promise<AttemptEnd> {
    for (;;) {
      try {
        await this.flushReports()
        const outcome = await move()
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

/** Milliseconds between tries to write an outcome while Redis is away. */
const OUTCOME_RETRY_MS = 500

const REASONS = {
  CANCEL_REQUESTED: 'The job was cancelled.',
  OWNERSHIP_LOST: 'The job was given to another worker, has ended or is gone.',
  SHUTTING_DOWN: 'The worker is stopping.',
}

const cut = (text: string, characters: number) =>
  text.length > characters ? `${text.slice(0, characters)}…` : text

/** What is stored of a thrown value. */
export const jobErrorOf = (thrown: unknown): JobError => {
  if (!(thrown instanceof Error)) return { name: 'Error', message: cut(String(thrown), 2_000) }
  const { code } = thrown as { code?: unknown }
  return {
    name: cut(thrown.name, 100),
    message: cut(thrown.message, 2_000),
    ...(typeof code === 'string' ? { code: cut(code, 100) } : {}),
    ...(thrown.stack ? { stack: cut(thrown.stack, 2_000) } : {}),
  }
}
