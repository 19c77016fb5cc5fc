// What a backend may say of a new job: checked here, before Redis hears of it, and turned into the arguments of the move.
import { createHash, randomFillSync } from 'node:crypto'
import { z } from 'zod'
import { Backoff } from './backoff.ts'
import { encode, type JobDefinition } from './define.ts'
import { ACKS } from './durability.ts'
import { StateError } from './errors.ts'
import { partitionOf } from './keys.ts'
import type { Enqueue } from './outcomes.ts'
import { DEFAULTS, JobId, Label, LIMITS } from './schema/limits.ts'
import { PRIORITIES } from './schema/machine.ts'

const DAY = 86_400_000
const ms = (min: number, max = 3_650 * DAY) => z.int().min(min).max(max)

/** When it may run: a Date, or Redis' time in milliseconds. */
const runAt = z.union([z.date().transform((date) => date.getTime()), z.int().min(0)])

const EnqueueOptions = z
  .strictObject({
    /** Your own id (a repeated enqueue with it is the same job); default: sortable, with 128 random bits. */
    id: z.string().optional(),
    /** Idempotency key: the same key, name and payload is the same job, even after it has ended. */
    key: z.string().min(1).max(512).optional(),
    /** Milliseconds that the key is kept. */
    keyWindowMs: ms(1_000).default(DAY),
    /** Milliseconds before it may run. */
    delayMs: ms(0).default(0),
    /** When it may run: a Date, or Redis' time in milliseconds. */
    runAt: runAt.optional(),
    /** high goes before normal before low; a lower one still gets a share, so that it is never starved. */
    priority: z.enum(PRIORITIES).optional(),
    /** Labels to list by. */
    tags: z.array(Label).max(LIMITS.tagsPerJob).optional(),
    /** Whose job it is: to list by, and for the gateway to decide who may watch. */
    owner: Label.optional(),
    /** Runs that may end in an error before the job has FAILED; default: 3. */
    maxAttempts: z.int().min(1).max(1_000).optional(),
    /** Workers that may die under the job and it still runs again; one more and it has FAILED as CRASHED; default: 3. */
    maxCrashes: z.int().min(0).max(1_000).optional(),
    /** The wait before the next attempt after an error. */
    backoff: Backoff.optional(),
    /** The same after a crash; default: none, another worker takes it at once. */
    crashBackoff: Backoff.optional(),
    /** Milliseconds that one attempt may take. */
    timeoutMs: ms(10).optional(),
    /**
     * Milliseconds that a handler may go without a report (progress or a log line) before it counts as hung, and the
     * attempt as failed. Give it more than the worker's `progressIntervalMs`.
     */
    stallMs: ms(100).optional(),
    /** Milliseconds without a heartbeat after which its worker counts as gone; default: the worker's `leaseMs`. */
    leaseMs: ms(200, 3_600_000).optional(),
    /** Milliseconds it may wait for its first attempt; then it has FAILED as EXPIRED. */
    ttlMs: ms(1).optional(),
    /** Milliseconds that the ended job stays readable; default: a day. */
    retentionMs: ms(1_000).default(DEFAULTS.retentionMs),
    /** Trace context, handed to the handler (W3C traceparent). */
    trace: z.string().max(512).optional(),
    /** What the worker's `ratePerKey` counts by: a tenant, a host that is called. */
    rateKey: Label.optional(),
    /** How far the job must have got before it counts as accepted; default: what `connectJobs` was given, else memory. */
    ack: z.enum(ACKS).optional(),
  })
  .refine(
    ({ id, key }) => id === undefined || key === undefined,
    'give an id or a key, not both: each makes a repeat the same job',
  )
  .refine(({ delayMs, runAt }) => delayMs === 0 || runAt === undefined, 'give delayMs or runAt, not both')
export type EnqueueOptions = z.input<typeof EnqueueOptions>

const When = z.union([z.strictObject({ delayMs: ms(0) }), z.strictObject({ runAt })])
export type When = z.input<typeof When>

/** @throws StateError INVALID_OPTIONS */
export const whenOf = (when: When): { delayMs?: number; runAt?: number } => {
  const parsed = When.safeParse(when)
  if (parsed.success) return parsed.data
  throw new StateError(
    'INVALID_OPTIONS',
    'Give delayMs as milliseconds from 0 on, or runAt as a valid Date or as milliseconds.',
  )
}

export const validId = (id: string): string => {
  if (!JobId.safeParse(id).success)
    throw new StateError(
      'INVALID_JOB_ID',
      `${JSON.stringify(String(id).slice(0, 80))} is not a job id: 1 to 128 of A-Z a-z 0-9 . _ ~ -`,
    )
  return id
}

const RANDOM_BYTES = 16
const pool = Buffer.alloc(RANDOM_BYTES * 256)
let used = pool.length

/** In the order of their codes: seven of these hold the milliseconds until the year 2109, so ids sort by time. */
const DIGITS = '-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz'
let at = 0
let told = ''
const timeText = (): string => {
  const now = Date.now()
  if (now === at) return told
  at = now
  told = ''
  for (let left = now, i = 0; i < 7; i++, left = Math.floor(left / 64)) told = DIGITS[left % 64] + told
  return told
}

export const newId = (): string => {
  if (used === pool.length) {
    randomFillSync(pool)
    used = 0
  }
  const random = pool.toString('base64url', used, used + RANDOM_BYTES)
  used += RANDOM_BYTES
  return timeText() + random
}

/** An id whose partition is the one that the text belongs to: a job lives beside its idempotency key. */
const newIdBeside = (text: string, partitions: number): string => {
  const partition = partitionOf(text, partitions)
  for (;;) {
    const id = newId()
    if (partitionOf(id, partitions) === partition) return id
  }
}

/**
 * The move that creates the job.
 *
 * @throws StateError INVALID_PAYLOAD, TOO_LARGE, INVALID_JOB_ID, INVALID_OPTIONS
 */
export const enqueueOf = <P, I>(
  job: JobDefinition<P, unknown, unknown, I>,
  payload: I,
  options: EnqueueOptions | undefined,
  partitions: number,
): Enqueue => {
  const text = encode(job.payload, payload, 'INVALID_PAYLOAD', LIMITS.payloadBytes)
  if (options === undefined)
    return { id: newId(), idGiven: false, name: job.name, payload: text, delayMs: 0, options: {} }
  const parsed = EnqueueOptions.safeParse(options)
  if (!parsed.success)
    throw new StateError('INVALID_OPTIONS', `The enqueue options are wrong. ${z.prettifyError(parsed.error)}`)
  const { id, key, keyWindowMs, delayMs, runAt, backoff, crashBackoff, priority, tags, ack, ...rest } =
    parsed.data
  const digest =
    key === undefined ? undefined : createHash('sha256').update(key).digest('base64url').slice(0, 22)
  const made = digest === undefined ? newId() : newIdBeside(digest, partitions)
  return {
    id: id === undefined ? made : validId(id),
    idGiven: id !== undefined,
    name: job.name,
    payload: text,
    delayMs,
    runAt,
    key: digest,
    keyMs: keyWindowMs,
    ack,
    options: {
      ...rest,
      priority: priority === 'normal' ? undefined : priority,
      tags: tags && [...new Set(tags)],
      backoff: backoff && JSON.stringify(backoff),
      crashBackoff: crashBackoff && JSON.stringify(crashBackoff),
    },
  }
}
