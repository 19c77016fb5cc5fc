// @jobs/state: live, crash-proof job state on Redis.
export type { Handler, JobContext } from './attempt.ts'
export { defineJob, type JobDefinition } from './define.ts'
export { isStateError, StateError, type StateErrorCode } from './errors.ts'
export {
  type Continuation,
  type EventHead,
  type Gap,
  headOf,
  readSince,
  readSnapshot,
  type StoredEvent,
} from './events.ts'
export {
  type ConnectOptions,
  checkLayout,
  connectJobs,
  type Enqueued,
  type EnqueueOptions,
  Jobs,
} from './jobs.ts'
export { type Keys, keysOf, partitionOf } from './keys.ts'
export type { Page } from './listing.ts'
export { addressOf, type LinkOptions, RedisLink } from './redis.ts'
export * from './schema/index.ts'
export { type Listener, Subscriber } from './subscriber.ts'
export type {
  Attempt,
  Grant,
  Moved,
  Outcome,
  Reaped,
  Rejection,
  SweepStep,
  Transitions,
} from './transitions.ts'
export { Worker, type WorkerEvents, type WorkerOptions } from './worker.ts'
