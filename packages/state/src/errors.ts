// Every exception of this package: one class, a stable code, a message that says what to do.
// Expected outcomes (a lost fence, an ended job) are values, not exceptions: see transitions.ts.

export type StateErrorCode =
  /** Nothing listens at the address, or it refused the connection; nothing was executed. */
  | 'REDIS_UNAVAILABLE'
  /** No answer within the deadline. The call may or may not have been executed; repeating it is safe. */
  | 'REDIS_TIMEOUT'
  /** Redis is at its memory limit and refuses what needs more. */
  | 'REDIS_OUT_OF_MEMORY'
  /** Redis answered with another error: a right that is missing, a full disk, a bug of ours. */
  | 'REDIS_REFUSED'
  | 'LAYOUT_MISMATCH'
  /** The server would lose jobs: it evicts keys, is a replica, is too old … */
  | 'UNSAFE_REDIS'
  /** The user of Redis lacks rights that its part needs; nothing was written. */
  | 'RIGHTS_MISSING'
  | 'INVALID_JOB_ID'
  | 'INVALID_JOB_NAME'
  | 'INVALID_NAMESPACE'
  | 'INVALID_CURSOR'
  | 'INVALID_STATE'
  | 'INVALID_OPTIONS'
  | 'INVALID_PAYLOAD'
  | 'INVALID_PROGRESS'
  | 'INVALID_RESULT'
  | 'INVALID_CHECKPOINT'
  | 'TOO_LARGE'
  /** The id is taken by a job with another name or payload. */
  | 'ID_CONFLICT'
  /** The idempotency key was used for a job with another name or payload. */
  | 'KEY_CONFLICT'
  /** Another job of the same batch was refused, so this one was not enqueued either. */
  | 'BATCH_REFUSED'
  /** The job is there, but a replica (or the disk) has not confirmed it in time; enqueueing it again by its id is safe. */
  | 'NOT_REPLICATED'
  /** The server can't tell whether the wanted level was reached; nothing was enqueued. */
  | 'ACK_UNSUPPORTED'
  /** Too many revocations stand; nothing was revoked. */
  | 'REVOCATIONS_FULL'
  | 'UNKNOWN_JOB'
  /** The stream no longer holds the events after that cursor; read the snapshot and go on from its cursor. */
  | 'EVENTS_TRIMMED'
  /** The attempt is no longer this worker's. */
  | 'OWNERSHIP_LOST'
  /** Reasons of a handler's AbortSignal, beside OWNERSHIP_LOST. */
  | 'CANCEL_REQUESTED'
  | 'TIMED_OUT'
  | 'STALLED'
  | 'SHUTTING_DOWN'
  /** Heartbeats come from the event loop: a handler that blocks it for longer than its lease loses its job. */
  | 'NO_BEAT_THREAD'
  | 'CLOSED'

export class StateError extends Error {
  override name = 'StateError'
  readonly code: StateErrorCode
  constructor(code: StateErrorCode, message: string, options?: { cause?: unknown }) {
    super(message, options)
    this.code = code
  }
}

export const isStateError = (error: unknown, ...codes: StateErrorCode[]): error is StateError =>
  error instanceof StateError && (codes.length === 0 || codes.includes(error.code))
