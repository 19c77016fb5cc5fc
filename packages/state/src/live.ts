// What a watcher is told of a job beside its snapshot, and what only holds at the moment of the read: how its worker's lease
// stands, and when it may be done.
import { fieldsOf, nowOf, runOf, snapshotOf } from './record.ts'
import type { Snapshot } from './schema/job.ts'

export interface Lease {
  /** Milliseconds since the worker last beat, or took the job. */
  ageMs: number
  /** Until it is taken for lost. */
  remainingMs: number
  /** The lease is over: as soon as a reaper looks, the job goes to another worker. */
  lost: boolean
}

export interface Live extends Snapshot {
  /** Of the current attempt, else null. */
  lease: Lease | null
  /** Milliseconds the attempt may still take, by its progress; null where that tells nothing. */
  etaMs: number | null
}

/**
 * @param heartbeatEndsAt PEXPIRETIME of the heartbeat: negative where there is none
 * @param now milliseconds of Redis' clock
 */
export const liveOf = (id: string, reply: unknown, heartbeatEndsAt: number, now: number): Live | null => {
  const snapshot = snapshotOf(id, reply)
  if (!snapshot) return null
  const hash = fieldsOf(reply)
  const { leaseMs } = runOf(hash.run)
  const lease = leaseOf(snapshot, leaseMs, heartbeatEndsAt, now)
  const resumed = snapshot.attempt > 1 && (nowOf(hash.now)?.checkpointKept ?? false)
  return { ...snapshot, lease, etaMs: lease && !lease.lost && !resumed ? etaOf(snapshot, now) : null }
}

/** As lua/reap.lua sees it: an attempt that started within its lease need not have beaten yet. Null where none runs. */
export const leaseOf = (
  { state, startedAt }: Snapshot,
  leaseMs: number,
  heartbeatEndsAt: number,
  now: number,
): Lease | null => {
  if (state !== 'PROCESSING' || startedAt === null) return null
  const remainingMs = Math.max(0, Math.max(heartbeatEndsAt, startedAt + leaseMs) - now)
  return { ageMs: Math.max(0, leaseMs - remainingMs), remainingMs, lost: remainingMs === 0 }
}

const etaOf = ({ progress, startedAt, updatedAt }: Snapshot, now: number): number | null => {
  const done = fractionOf(progress)
  const tookMs = updatedAt - (startedAt ?? updatedAt)
  if (done === null || !(done > 0 && done <= 1) || tookMs <= 0) return null
  const etaMs = Math.round((tookMs * (1 - done)) / done - (now - updatedAt))
  return Number.isSafeInteger(etaMs) ? Math.max(0, etaMs) : null
}

/** A number below 1 is a fraction, one above a percentage; 1 alone may be either. */
const fractionOf = (progress: unknown): number | null => {
  if (typeof progress === 'number') return progress === 1 ? null : progress > 1 ? progress / 100 : progress
  if (typeof progress !== 'object' || progress === null) return null
  const { fraction, done, total } = progress as Record<string, unknown>
  if (typeof fraction === 'number') return fraction
  return typeof done === 'number' && typeof total === 'number' && total > 0 ? done / total : null
}
