// How long a failed job waits for its next attempt.
import { z } from 'zod'

const MAX_MS = 30 * 86_400_000

export const Backoff = z.strictObject({
  type: z.enum(['fixed', 'exponential']).default('exponential'),
  /** Milliseconds before the second attempt; exponential: doubled with each failure. */
  delayMs: z.int().min(0).max(MAX_MS).default(1_000),
  /** Milliseconds at most. */
  maxMs: z.int().min(0).max(MAX_MS).default(30_000),
  /** Share of the delay that is random, so that jobs that failed together do not come back together: 0 to 1. */
  jitter: z.number().min(0).max(1).default(0.5),
})
export type Backoff = z.output<typeof Backoff>

const DEFAULT = Backoff.parse({})

/**
 * Milliseconds to wait after so many failures (from 1): the delay with up to half the jitter added or taken away; what
 * would go beyond `maxMs` goes as far below it, so that jobs at the limit do not come back together either.
 */
export const backoffMs = (backoff: Backoff = DEFAULT, failures: number, random = Math.random()): number => {
  const { type, delayMs, maxMs, jitter } = backoff
  const plain = Math.min(type === 'fixed' ? delayMs : delayMs * 2 ** (failures - 1), maxMs)
  const jittered = Math.round(plain * (1 + jitter * (random - 0.5)))
  return jittered > maxMs ? 2 * maxMs - jittered : jittered
}

/** As a job's hash keeps it; what is no backoff, since somebody wrote there, is the default. */
export const backoffOf = (text: string): Backoff => {
  try {
    return Backoff.parse(JSON.parse(text || '{}'))
  } catch {
    return DEFAULT
  }
}
