// Reading a job's hash: from Redis' flat strings to the snapshot.
import type { JobError, Snapshot } from './schema/job.ts'
import { DEFAULTS, msOf, seqOf } from './schema/limits.ts'
import { isState, isTerminal, type Priority, type State } from './schema/machine.ts'

/** A reply to HGETALL, in either of the shapes that clients give. */
export const fieldsOf = (reply: unknown): Record<string, string> => {
  if (!Array.isArray(reply)) return (reply ?? {}) as Record<string, string>
  const fields: Record<string, string> = {}
  for (let i = 0; i + 1 < reply.length; i += 2) fields[String(reply[i])] = String(reply[i + 1])
  return fields
}

/** The parts of the hash's field `now`, which one write keeps together: see lua/prelude.lua. */
export interface Now {
  state: State
  cursor: string
  /** The move that led here. */
  last: string
  attempt: number
  fence: string
  cancelRequested: boolean
  checkpointKept: boolean
  failures: number
  crashes: number
}

export const nowOf = (text: string | undefined): Now | null => {
  const [state, cursor, last, fence, , flags, failures, crashes] = (text ?? '').split(' ')
  if (!isState(state) || !cursor || !fence || crashes === undefined) return null
  return {
    state,
    cursor,
    last: last ?? '',
    attempt: Number.parseInt(fence, 10),
    fence,
    cancelRequested: flags?.includes('x') ?? false,
    checkpointKept: flags?.includes('k') ?? false,
    failures: Number(failures),
    crashes: Number(crashes),
  }
}

/** The hash's field `run`: `<startedAt>`, and while it runs ` <leaseMs>`. */
export const runOf = (text: string | undefined): { startedAt: number | null; leaseMs: number } => {
  const [startedAt, leaseMs] = (text ?? '').split(' ')
  return { startedAt: Number(startedAt) || null, leaseMs: Number(leaseMs ?? DEFAULTS.leaseMs) }
}

/** What enqueue was told and is not the default. */
interface Options {
  maxAttempts?: number
  maxCrashes?: number
  priority?: Priority
  tags?: string
}

/** JSON; text that is none (a damaged hash) is told as null rather than taking the reader down. */
const json = (text: string | undefined) => {
  if (!text) return null
  try {
    return JSON.parse(text)
  } catch {
    return null
  }
}

/** The snapshot that a job's hash holds, or null when there is no such job. Unknown fields are ignored. */
export const snapshotOf = (id: string, reply: unknown): Snapshot | null => {
  const hash = fieldsOf(reply)
  const now = nowOf(hash.now)
  if (!now) return null
  const { state, cursor } = now
  const {
    maxAttempts = DEFAULTS.maxAttempts,
    maxCrashes = DEFAULTS.maxCrashes,
    priority = 'normal',
    tags,
  } = (json(hash.options) ?? {}) as Options
  const labels = typeof tags === 'string' && tags !== '' ? tags.split(' ') : []
  const { startedAt } = runOf(hash.run)
  return {
    id,
    name: hash.name ?? '',
    state,
    attempt: now.attempt,
    failures: now.failures,
    crashes: now.crashes,
    maxAttempts,
    maxCrashes,
    priority,
    tags: labels.filter((label) => !label.startsWith('@')),
    owner: labels.find((label) => label.startsWith('@'))?.slice(1) ?? null,
    seq: seqOf(cursor),
    cursor,
    progress: json(hash.progress),
    result: json(hash.result),
    error: json(hash.error) as JobError | null,
    cancelRequested: now.cancelRequested,
    worker: state === 'PROCESSING' ? (hash.worker ?? null) : null,
    createdAt: Number(hash.createdAt),
    updatedAt: msOf(cursor),
    startedAt,
    // Nothing happens to a job after its end.
    endedAt: isTerminal(state) ? msOf(cursor) : null,
    runAt: state === 'SCHEDULED' ? Number(hash.place) : null,
  }
}
