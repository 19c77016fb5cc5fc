// @jobs/state: live, crash-proof job state on Redis.

export { addressOf } from './address.ts'
export type { AttemptEnd, Handler, JobContext } from './attempt.ts'
export type { Backoff } from './backoff.ts'
export type { ConnectOptions } from './connect-options.ts'
export type { LinkOptions } from './connection.ts'
export { defineJob, type JobDefinition } from './define.ts'
export { DAMAGES, type Damage, type DamageCode } from './doctor/damage.ts'
export { caretakerOf, type DoctorOptions, type DoctorReport, examine } from './doctor/doctor.ts'
export type { Ack } from './durability.ts'
export type { EnqueueOptions } from './enqueue.ts'
export { isStateError, StateError, type StateErrorCode } from './errors.ts'
export {
  type Continuation,
  eventOfMessage,
  type Gap,
  type LiveRead,
  readLive,
  readSince,
  readSnapshot,
  readWhetherLast,
  type StoredEvent,
} from './events.ts'
export type { Explanation } from './explain.ts'
export { FinalError } from './failure.ts'
export type { AttemptRecord } from './history.ts'
export type { BatchItem, Enqueued } from './intake.ts'
export { connectJobs, Jobs } from './jobs.ts'
export { type Keys, keysOf, partitionOf } from './keys.ts'
export { checkLayout } from './layout.ts'
export type { ListOptions, Page } from './listing.ts'
export type { Lease, Live } from './live.ts'
export type {
  Attempt,
  Claimant,
  Expired,
  Grant,
  Moved,
  Outcome,
  Promoted,
  Rate,
  Reaped,
  Rejection,
  SweepStep,
} from './outcomes.ts'
export type { WorkerAbout } from './presence.ts'
export type { Crash, Quarantined, QuarantineOutcome, QuarantineWhich } from './quarantine.ts'
export type { QueueStats } from './queues.ts'
export { reaperOf, type SweepReport } from './recovery.ts'
export { RedisLink } from './redis.ts'
export { type Revocation, type Revoked, readRevocations, revocationOfMessage } from './revocation.ts'
export { checkRights } from './rights.ts'
export * from './schema/index.ts'
export {
  checkServer,
  type Finding,
  guardServer,
  type ServerCheckOptions,
  type ServerGuard,
} from './server-check.ts'
export type { SnapshotOf } from './snapshot-of.ts'
export { type Listener, type Probe, Subscriber } from './subscriber.ts'
export {
  countChange,
  noCounts,
  readTagCounts,
  type StateCounts,
  type TagChange,
  type TagCounts,
  tagChangeOf,
} from './tags.ts'
export type { Token, TokenFor, TokenOptions } from './tokens.ts'
export type { Transitions } from './transitions.ts'
export { Worker, type WorkerEvents, type WorkerOptions } from './worker.ts'
