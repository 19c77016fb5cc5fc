// Reading a job's hash: from Redis' flat strings to the snapshot.
import type { JobError, Snapshot } from './schema/job.ts'
import { DEFAULTS, msOf, seqOf } from './schema/limits.ts'
import { isTerminal, type Priority, type State } from './schema/machine.ts'

/** A reply to HGETALL, in either of the shapes that clients give. */
export const fieldsOf = (reply: unknown): Record<string, string> => {
  if (!Array.isArray(reply)) return (reply ?? {}) as Record<string, string>
  const fields: Record<string, string> = {}
  for (let i = 0; i + 1 < reply.length; i += 2) fields[String(reply[i])] = String(reply[i + 1])
  return fields
}

/** JSON that a caller wrote; text that is none (a damaged hash) is told as null rather than taking the reader down. */
const json = (text: string | undefined) => {
  if (!text) return null
  try {
    return JSON.parse(text)
  } catch {
    return null
  }
}
const time = (text: string | undefined) => (text ? Number(text) : null)

/** The snapshot that a job's hash holds, or null when there is no such job. Unknown fields are ignored. */
export const snapshotOf = (id: string, reply: unknown): Snapshot | null => {
  const hash = fieldsOf(reply)
  if (!hash.state || !hash.cursor) return null
  const state = hash.state as State
  const labels = hash.tags ? hash.tags.split(' ') : []
  return {
    id,
    name: hash.name ?? '',
    state,
    attempt: Number(hash.attempt ?? 0),
    failures: Number(hash.failures ?? 0),
    crashes: Number(hash.crashes ?? 0),
    maxAttempts: Number(hash.maxAttempts ?? DEFAULTS.maxAttempts),
    maxCrashes: Number(hash.maxCrashes ?? DEFAULTS.maxCrashes),
    priority: (hash.priority ?? 'normal') as Priority,
    tags: labels.filter((label) => !label.startsWith('@')),
    owner: labels.find((label) => label.startsWith('@'))?.slice(1) ?? null,
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
    // Nothing happens to a job after its end.
    endedAt: isTerminal(state) ? msOf(hash.cursor) : null,
    runAt: time(hash.runAt),
  }
}
