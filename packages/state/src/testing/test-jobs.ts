// Jobs in a namespace of their own, which lasts as long as a test: a Jobs like any other that also runs handlers, lets
// time pass and workers die.
import { randomBytes } from 'node:crypto'
import type { Handler } from '../attempt.ts'
import type { ConnectOptions } from '../connect-options.ts'
import type { JobDefinition } from '../define.ts'
import type { EnqueueOptions } from '../enqueue.ts'
import { StateError } from '../errors.ts'
import type { AttemptRecord } from '../history.ts'
import { Jobs } from '../jobs.ts'
import { keysOf } from '../keys.ts'
import { checkLayout } from '../layout.ts'
import { redisTime } from '../redis.ts'
import type { JobEvent } from '../schema/event.ts'
import type { Snapshot } from '../schema/job.ts'
import { isTerminal, type State } from '../schema/machine.ts'
import type { As, SnapshotOf } from '../snapshot-of.ts'
import { Worker, type WorkerOptions } from '../worker.ts'
import { type Duration, keysIn, killWorkerOf, type Passed, passes, shift } from './time.ts'

export interface TestJobsOptions extends Partial<Omit<ConnectOptions, 'namespace'>> {
  /** Default: REDIS_URL, else redis://127.0.0.1:6379. */
  url?: string
  /** What the namespace's name begins with; a random part follows. Default: `test`. */
  namespace?: string
}

export interface TestRun<G, R> {
  /** The ended job. */
  job: SnapshotOf<G, R>
  /** All of its events, in order. */
  events: JobEvent[]
  attempts: AttemptRecord[]
}

const DEFAULT_URL = 'redis://127.0.0.1:6379'
/** Keys that one UNLINK takes. */
const CHUNK = 500

/**
 * Connects to a new, empty namespace. Nothing else of that Redis is touched, and `close` leaves nothing behind.
 *
 * @throws StateError REDIS_UNAVAILABLE (with the address), INVALID_NAMESPACE
 */
export const startTestJobs = async (options: TestJobsOptions = {}): Promise<TestJobs> => {
  const { url = process.env.REDIS_URL ?? DEFAULT_URL, namespace = 'test', ...rest } = options
  const jobs = new TestJobs({ ...rest, url, namespace: `${namespace}-${randomBytes(8).toString('hex')}` })
  try {
    await checkLayout(jobs.link, jobs.namespace, jobs.partitions, true)
  } catch (error) {
    await jobs.disconnect()
    throw error
  }
  return jobs
}

export class TestJobs extends Jobs {
  private readonly started = new Set<{ stop: (options: { graceMs: number }) => Promise<void> }>()
  /** The last `run` of each job name: two at a time would take each other's jobs. */
  private readonly running = new Map<string, Promise<unknown>>()

  /** Starts a worker, as real as any: it beats, and others may take its jobs. `close` stops it. */
  async work<P, G, R, I>(
    definition: JobDefinition<P, G, R, I>,
    handler: Handler<P, G, NoInfer<R>>,
    options?: WorkerOptions,
  ): Promise<Worker<P, G, R>> {
    const worker = new Worker(this, definition, handler, options)
    this.started.add(worker)
    await worker.start()
    return worker
  }

  /**
   * Enqueues a job and runs it with a worker in this process until it has ended, whatever the outcome: a handler that
   * throws makes `job.state` FAILED. Time is stepped over what the job waits for: its delay, backoffs, rates. Runs of
   * one job name wait for each other; the worker also takes what else waits under that name.
   *
   * @throws StateError as `enqueue`
   */
  run<P, G, R, I>(
    definition: JobDefinition<P, G, R, I>,
    handler: Handler<P, G, NoInfer<R>>,
    payload: I,
    options?: EnqueueOptions,
  ): Promise<TestRun<G, R>> {
    const before = this.running.get(definition.name) ?? Promise.resolve()
    const run = before.then(
      () => this.runAlone(definition, handler, payload, options),
      () => this.runAlone(definition, handler, payload, options),
    )
    this.running.set(definition.name, run)
    return run
  }

  private async runAlone<P, G, R, I>(
    definition: JobDefinition<P, G, R, I>,
    handler: Handler<P, G, NoInfer<R>>,
    payload: I,
    options?: EnqueueOptions,
  ): Promise<TestRun<G, R>> {
    const { id } = await this.enqueue(definition, payload, options)
    const worker = await this.work(definition, handler)
    try {
      for (;;) {
        const now = await this.until(id, ({ state }) => isTerminal(state) || state === 'SCHEDULED')
        if (now.state !== 'SCHEDULED') break
        await this.step(
          Math.max(0, (now.runAt ?? 0) - (await redisTime(this.link, this.transitions.keysFor(id).prefix))),
        )
      }
    } finally {
      await worker.stop({ graceMs: 0 })
      this.started.delete(worker)
    }
    const job = await this.wait(id, { of: definition })
    const events: JobEvent[] = []
    for await (const event of this.events(id)) events.push(event)
    return { job, events, attempts: await this.attempts(id) }
  }

  /**
   * Waits until the job is in a state, or as wanted, and answers it.
   *
   * @throws StateError INVALID_STATE when it has ended in another state than the one that is waited for
   */
  override until(
    id: string,
    wanted: State | ((job: Snapshot) => boolean),
    options?: { signal?: AbortSignal | undefined },
  ): Promise<Snapshot>
  override until<P, G, R, I>(
    id: string,
    wanted: State | ((job: Snapshot) => boolean),
    options: { signal?: AbortSignal | undefined } & As<P, G, R, I>,
  ): Promise<SnapshotOf<G, R>>
  override until(
    id: string,
    wanted: State | ((job: Snapshot) => boolean),
    options: { signal?: AbortSignal | undefined } & Partial<As<unknown, unknown, unknown, unknown>> = {},
  ): Promise<Snapshot> {
    const is =
      typeof wanted === 'function'
        ? wanted
        : ({ state, error }: Snapshot) => {
            if (state === wanted || !isTerminal(state)) return state === wanted
            const why = error ? ` (${error.name}: ${error.message})` : ''
            throw new StateError('INVALID_STATE', `The job ${id} is ${state}${why}, and was to be ${wanted}.`)
          }
    return super.until(id, is, options as { signal?: AbortSignal | undefined })
  }

  /**
   * Lets time pass for the namespace, and then does what reapers would have done meanwhile: scheduled jobs and backoffs
   * fall due, times to live, timeouts, keys, rates and retention run out, and so do the leases of workers that are gone.
   * Workers that are there count as having beaten all the while. docs/testing.md says what moves and what does not.
   *
   * @param time milliseconds, or like `'90s'`, `'15m'`, `'1h'`, `'2d'`
   */
  step(time: Duration): Promise<Passed> {
    return shift(this, time)
  }

  /** Does once what a reaper does again and again: queues what is due, ends what is over its time, recovers the lost. */
  sweep(): Promise<Passed> {
    return shift(this, 0)
  }

  /**
   * Lets the worker of a running job die, as if it had not been heard of for its lease: the job is recovered at once.
   * What its handler still does is refused, as after a real crash, and its signal fires at the next heartbeat.
   *
   * @throws StateError UNKNOWN_JOB; INVALID_STATE when the job is not running
   */
  async crash(id: string): Promise<void> {
    const state = await killWorkerOf(this, id)
    if (state === null) throw new StateError('UNKNOWN_JOB', `There is no job ${id} (any more).`)
    if (state !== 'PROCESSING')
      throw new StateError('INVALID_STATE', `The job ${id} is ${state}: no worker has it.`)
    await passes(this, 0)
  }

  /** Stops the workers that were started here, deletes every key of the namespace, and disconnects. */
  override async close(): Promise<void> {
    await Promise.all([...this.started].map((worker) => worker.stop({ graceMs: 0 })))
    this.started.clear()
    for (let partition = 0; partition < this.partitions; partition++) {
      const keys = await keysIn(this.link, keysOf(this.namespace, partition).prefix)
      for (let at = 0; at < keys.length; at += CHUNK)
        await this.link.call('UNLINK', ...keys.slice(at, at + CHUNK))
    }
    await this.disconnect()
  }

  /** Closes the connections and leaves the keys. */
  disconnect(): Promise<void> {
    return super.close()
  }
}
