// Reading a job's hash: from Redis' flat strings to the snapshot.
import type { JobError, Snapshot } from './schema/job.ts'
import { msOf, seqOf } from './schema/limits.ts'
import type { State } from './schema/machine.ts'

/** A reply to HGETALL, in either of the shapes that clients give. */
export const fieldsOf = (reply: unknown): Record<string, string> => {
  if (!Array.isArray(reply)) return (reply ?? {}) as Record<string, string>
  const fields: Record<string, string> = {}
  for (let i = 0; i + 1 < reply.length; i += 2) fields[String(reply[i])] = String(reply[i + 1])
  return fields
}

const json = (text: string | undefined) => (text ? JSON.parse(text) : null)
const time = (text: string | undefined) => (text ? Number(text) : null)

/** The snapshot that a job's hash holds, or null when there is no such job. Unknown fields are ignored. */
export const snapshotOf = (id: string, reply: unknown): Snapshot | null => {
  const hash = fieldsOf(reply)
  if (!hash.state || !hash.cursor) return null
  const state = hash.state as State
  return {
    id,
    name: hash.name ?? '',
    state,
    attempt: Number(hash.attempt),
    failures: Number(hash.failures),
    crashes: Number(hash.crashes),
    maxAttempts: Number(hash.maxAttempts),
    maxCrashes: Number(hash.maxCrashes),
    seq: seqOf(hash.cursor),
    cursor: hash.cursor,
    progress: json(hash.progress),
    result: json(hash.result),
    error: json(hash.error) as JobError | null,
    cancelRequested: Boolean(hash.cancel),
    worker: state === 'PROCESSING' ? (hash.worker ?? null) : null,
    createdAt: Number(hash.createdAt),
    updatedAt: msOf(hash.cursor),
    startedAt: time(hash.startedAt),
    endedAt: time(hash.endedAt),
    runAt: time(hash.runAt),
  }
}
