// What transitions are given and what they answer. Expected outcomes are values, not errors.
import type { Ack } from './durability.ts'
import type { Priority, State } from './schema/machine.ts'

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
