// What a job looks like to anyone who reads it: the snapshot, true at its cursor.
import { z } from 'zod'
import { Cursor, JobId, JobName } from './limits.ts'
import { PRIORITIES, STATES } from './machine.ts'

/** Why an attempt or a job failed. `code` is stable; `CRASHED` means its workers died under it. */
export const JobError = z.object({
  name: z.string(),
  message: z.string(),
  code: z.string().optional(),
  stack: z.string().optional(),
  /** What caused it, as far as it was told. */
  get cause() {
    return JobError.optional()
  },
})
export type JobError = z.infer<typeof JobError>

export const Snapshot = z.object({
  id: JobId,
  name: JobName,
  state: z.enum(STATES),
  /** Runs started so far; 0 before the first claim. */
  attempt: z.int().nonnegative(),
  /** Attempts that ended in an error, and attempts whose worker died; each has its own budget. */
  failures: z.int().nonnegative(),
  crashes: z.int().nonnegative(),
  maxAttempts: z.int().positive(),
  maxCrashes: z.int().nonnegative(),
  priority: z.enum(PRIORITIES),
  tags: z.array(z.string()),
  owner: z.string().nullable(),
  seq: z.int().positive(),
  /** Everything here is true at exactly this event. */
  cursor: Cursor,
  /** Last progress of the current attempt; null before its first. */
  progress: z.json(),
  result: z.json(),
  error: JobError.nullable(),
  cancelRequested: z.boolean(),
  /** The worker of the current attempt, else null. */
  worker: z.string().nullable(),
  /** Milliseconds of Redis' clock. */
  createdAt: z.int(),
  updatedAt: z.int(),
  startedAt: z.int().nullable(),
  endedAt: z.int().nullable(),
  /** When a scheduled job is due. */
  runAt: z.int().nullable(),
})
export type Snapshot = z.infer<typeof Snapshot>
