// Every message of protocol v1, both ways. Clients ignore what they don't know; the server refuses it.
import { Cursor, JobId } from '@jobs/state/schema'
import { z } from 'zod'

export const SUBPROTOCOL = 'jobs.v1.json'

/** What the gateway grants every connection; told in `welcome`. */
export const LIMITS_V1 = {
  /** Bytes of one message from a client. */
  messageBytes: 16_384,
  subscriptions: 128,
  jobsPerSubscribe: 100,
  /** Commands a second, and how many at once after a pause. */
  commandsPerSecond: 20,
  commandBurst: 100,
  /** A replay beyond either is a reset instead. */
  replayEvents: 300,
  replayBytes: 262_144,
  /** Messages that may be malformed before the connection is closed. */
  errors: 10,
} as const

/** Milliseconds. */
export const TIMES_V1 = { heartbeat: 25_000, pong: 10_000 } as const

export const DETAILS = ['all', 'state', 'latest'] as const
export type Detail = (typeof DETAILS)[number]

const id = z.string().min(1).max(128).optional()

export const Subscribe = z
  .strictObject({
    type: z.literal('subscribe'),
    job: JobId.optional(),
    jobs: z.array(JobId).min(1).max(LIMITS_V1.jobsPerSubscribe).optional(),
    cursor: Cursor.optional(),
    detail: z.enum(DETAILS).optional(),
    id,
  })
  .refine(
    ({ job, jobs }) => (job === undefined) !== (jobs === undefined),
    'name one `job`, or several as `jobs`',
  )
  .refine(({ jobs, cursor }) => jobs === undefined || cursor === undefined, 'a cursor belongs to one `job`')

export const ClientMessage = z.discriminatedUnion('type', [
  z.strictObject({ type: z.literal('hello'), token: z.string().max(8_192).optional() }),
  Subscribe,
  z.strictObject({ type: z.literal('unsubscribe'), job: JobId, id }),
  z.strictObject({ type: z.literal('refresh'), token: z.string().max(8_192) }),
  z.strictObject({ type: z.literal('ping'), id }),
])
export type ClientMessage = z.infer<typeof ClientMessage>

export const RESET_REASONS = ['trimmed', 'diverged', 'ahead', 'too_far', 'redis_recovered'] as const
export type ResetReason = (typeof RESET_REASONS)[number]

export const ERROR_CODES = [
  'bad_request',
  'unauthorized',
  'not_found',
  'token_expired',
  'already_subscribed',
  'limit_exceeded',
  'rate_limited',
  'unavailable',
  'too_large',
  'internal',
] as const
export type ErrorCode = (typeof ERROR_CODES)[number]

/** What the server says, but for `snapshot` and `events`, whose bodies are spliced from stored JSON. */
export type ServerMessage =
  | { type: 'welcome'; connection: string; heartbeatMs: number; limits: typeof LIMITS_V1; time: number }
  | { type: 'live'; job: string; cursor: string; id?: string }
  | { type: 'reset'; job: string; reason: ResetReason; id?: string }
  | { type: 'complete'; job: string; state: string; cursor: string; id?: string }
  | { type: 'unsubscribed'; job: string; code: 'requested' | 'not_found'; id?: string }
  | {
      type: 'error'
      code: ErrorCode
      message: string
      retryable: boolean
      retryAfterMs?: number
      job?: string
      id?: string
    }
  | { type: 'draining'; spreadMs: number }
  | { type: 'pong'; id?: string }
  | { type: 'heartbeat' }
