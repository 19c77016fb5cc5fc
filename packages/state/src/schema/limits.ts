// What an id may look like and how large a value may be. One place, since both ends refuse by the same rule.
import { z } from 'zod'

/** Bytes, as JSON in UTF-8. Payload and result live in the job's hash; the rest travels in events. */
export const LIMITS = {
  payloadBytes: 1_048_576,
  resultBytes: 1_048_576,
  progressBytes: 8_192,
  logBytes: 8_192,
  errorBytes: 8_192,
  /** A result above this stays out of the event, which then tells its size as `resultBytes`. */
  inlineResultBytes: 8_192,
  /** Events kept per running job; older ones are trimmed and a watcher behind them is reset. */
  eventsKept: 1_000,
} as const

const SAFE_TEXT = /^[A-Za-z0-9._~-]+$/

/** An id is part of a Redis key: no braces (hash tag), colons, spaces or control characters. */
export const JobId = z.string().min(1).max(128).regex(SAFE_TEXT, 'use only A-Z a-z 0-9 . _ ~ -')
export const JobName = z.string().min(1).max(64).regex(SAFE_TEXT, 'use only A-Z a-z 0-9 . _ ~ -')
export const Namespace = z.string().min(1).max(64).regex(SAFE_TEXT, 'use only A-Z a-z 0-9 . _ ~ -')

/** `<seq>-<ms>`: the id of an event in its job's stream. `0-0` stands before the first. */
export const Cursor = z
  .string()
  .regex(/^(0|[1-9]\d{0,14})-(0|[1-9]\d{0,14})$/, 'a cursor looks like 12-1795457647345')

export const seqOf = (cursor: string): number => Number(cursor.slice(0, cursor.indexOf('-')))
export const msOf = (cursor: string): number => Number(cursor.slice(cursor.indexOf('-') + 1))
