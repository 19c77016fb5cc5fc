// The events of a job's stream, and how a snapshot folds them. The fold is the specification of every Lua commit:
// tests compare it with the hash after each move.
import { z } from 'zod'
import { JobError, type Snapshot } from './job.ts'
import { DEFAULTS } from './limits.ts'
import { isTerminal, MOVE_NAMES, PRIORITIES, STATES } from './machine.ts'

const position = { seq: z.int().positive(), at: z.int() }

export const StateEvent = z.object({
  ...position,
  type: z.literal('state'),
  move: z.enum(MOVE_NAMES as [(typeof MOVE_NAMES)[number], ...typeof MOVE_NAMES]),
  state: z.enum(STATES),
  attempt: z.int().nonnegative(),
  /** enqueue: the job's name, and of the rest what is not the default. */
  name: z.string().optional(),
  maxAttempts: z.int().optional(),
  maxCrashes: z.int().optional(),
  priority: z.enum(PRIORITIES).optional(),
  tags: z.array(z.string()).optional(),
  owner: z.string().optional(),
  /** claim: who runs it. reap: who is lost. */
  worker: z.string().optional(),
  /** When the job is due, if the move scheduled it. */
  runAt: z.int().optional(),
  error: JobError.optional(),
  /** The attempt's last progress, when it was not told before the attempt ended. */
  progress: z.json().optional(),
  /** complete: the result, or its size in bytes when it is too large for an event (read it from the snapshot). */
  result: z.json().optional(),
  resultBytes: z.int().optional(),
  /** reap, defer: why. */
  reason: z.enum(['worker_lost', 'rate_limited']).optional(),
  /** reap, timeout, expire: what happened and what follows, as a sentence for people. */
  message: z.string().optional(),
})

export const ProgressEvent = z.object({
  ...position,
  type: z.literal('progress'),
  attempt: z.int(),
  progress: z.json(),
})

export const LogEvent = z.object({
  ...position,
  type: z.literal('log'),
  attempt: z.int(),
  line: z.string(),
})

/** One entry of a job's stream; its id there is `<seq>-<at>`. */
export const JobEvent = z.discriminatedUnion('type', [StateEvent, ProgressEvent, LogEvent])
export type JobEvent = z.infer<typeof JobEvent>
type StateEvent = z.infer<typeof StateEvent>

export const cursorOf = (event: Pick<JobEvent, 'seq' | 'at'>): string => `${event.seq}-${event.at}`

/**
 * The snapshot after one more event. Starts from null with the first event, so a whole stream folds to the job's hash
 * (but for a result too large for its event). Throws a RangeError when `event` is not the next one.
 */
export const fold = (before: Snapshot | null, event: JobEvent, id: string): Snapshot => {
  if (event.seq !== (before?.seq ?? 0) + 1)
    throw new RangeError(`event ${event.seq} does not follow ${before?.seq ?? 0}`)
  const told = { seq: event.seq, cursor: cursorOf(event), updatedAt: event.at }
  if (event.type === 'state') return { ...foldState(before, event, id), ...told }
  if (!before) throw new RangeError('a stream starts with the event of enqueue')
  return event.type === 'progress' ? { ...before, ...told, progress: event.progress } : { ...before, ...told }
}

const foldState = (before: Snapshot | null, event: StateEvent, id: string): Snapshot => {
  const base = before ?? created(event, id)
  const next: Snapshot = {
    ...base,
    state: event.state,
    attempt: event.attempt,
    runAt: event.runAt ?? null,
    worker: event.state === 'PROCESSING' ? base.worker : null,
    error: event.error ?? base.error,
    progress: event.progress === undefined ? base.progress : event.progress,
    endedAt: isTerminal(event.state) ? event.at : null,
  }
  switch (event.move) {
    case 'claim':
      return { ...next, worker: event.worker ?? null, startedAt: event.at, progress: null }
    case 'complete':
      return { ...next, result: event.result ?? null, error: null }
    case 'cancel':
      return { ...next, cancelRequested: true }
    case 'retry':
    case 'fail':
    case 'timeout':
      return { ...next, failures: base.failures + 1 }
    case 'reap':
      return { ...next, crashes: base.crashes + 1 }
    case 'rerun':
      return { ...next, failures: 0, crashes: 0, result: null, error: null, cancelRequested: false }
    default:
      return next
  }
}

const created = (event: StateEvent, id: string): Snapshot => ({
  id,
  name: event.name ?? '',
  state: event.state,
  attempt: 0,
  failures: 0,
  crashes: 0,
  maxAttempts: event.maxAttempts ?? DEFAULTS.maxAttempts,
  maxCrashes: event.maxCrashes ?? DEFAULTS.maxCrashes,
  priority: event.priority ?? 'normal',
  tags: event.tags ?? [],
  owner: event.owner ?? null,
  seq: event.seq,
  cursor: cursorOf(event),
  progress: null,
  result: null,
  error: null,
  cancelRequested: false,
  worker: null,
  createdAt: event.at,
  updatedAt: event.at,
  startedAt: null,
  endedAt: null,
  runAt: event.runAt ?? null,
})
