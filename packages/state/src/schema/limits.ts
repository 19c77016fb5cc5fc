// What an id may look like, how large a value may be, and what a job is given when nothing is said. One place, since
// both ends refuse by the same rule, and a field that is not in a job's hash has the default.
import { z } from 'zod'

/** Bytes, as JSON in UTF-8. The payload lives in the job's stream, the result in its hash; the rest travels in events. */
export const LIMITS = {
  payloadBytes: 1_048_576,
  resultBytes: 1_048_576,
  progressBytes: 8_192,
  logBytes: 8_192,
  errorBytes: 8_192,
  checkpointBytes: 65_536,
  /** A result above this stays out of the event, which then tells its size as `resultBytes`. */
  inlineResultBytes: 8_192,
  /** Progress events and log lines kept per job; a watcher behind older ones is reset. State changes are all kept. */
  reportsKept: 1_000,
  tagsPerJob: 16,
  /** Jobs, and bytes of their payloads, of one batch. */
  batchJobs: 1_000,
  batchBytes: 16_777_216,
  /** Milliseconds that any token lives at most, and that a revocation is kept therefore: one day. */
  tokenLifeMs: 86_400_000,
  /** Milliseconds by which the clock of who makes tokens may be ahead. */
  clockAheadMs: 5_000,
  /** Revocations kept; more of them in a day are a case for another key. */
  revocations: 100_000,
} as const

/** What is not written into a job's hash when it is this. */
export const DEFAULTS = {
  maxAttempts: 3,
  maxCrashes: 3,
  /** One day. */
  retentionMs: 86_400_000,
  leaseMs: 5_000,
} as const

const SAFE_TEXT = /^[A-Za-z0-9._~-]+$/
const safe = (max: number) => z.string().min(1).max(max).regex(SAFE_TEXT, 'use only A-Z a-z 0-9 . _ ~ -')

/** An id is part of a Redis key: no braces (hash tag), colons, spaces or control characters. */
export const JobId = safe(128)
export const JobName = safe(64)
export const Namespace = safe(64)
/** Tags and owners are parts of keys too. */
export const Label = safe(128)

/** `<seq>-<ms>`: the id of an event in its job's stream. `0-0` stands before the first. */
export const Cursor = z
  .string()
  .regex(/^(0|[1-9]\d{0,14})-(0|[1-9]\d{0,14})$/, 'a cursor looks like 12-1795457647345')

export const seqOf = (cursor: string): number => Number(cursor.slice(0, cursor.indexOf('-')))
export const msOf = (cursor: string): number => Number(cursor.slice(cursor.indexOf('-') + 1))
