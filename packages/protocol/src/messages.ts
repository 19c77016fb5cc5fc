// Every message of protocol v1, both ways. Clients ignore what they don't know; the server refuses it.
import {
  Cursor,
  JobEventSchema,
  JobId,
  Label,
  Snapshot,
  STATES,
  type State,
  TERMINAL_STATES,
} from '@jobs/state/schema'
import { z } from 'zod'
import { ERROR_CODES } from './errors.ts'

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
  /** Objects in one frame of a client. */
  messagesPerFrame: 100,
  /** A replay beyond either is a reset instead. */
  replayEvents: 300,
  replayBytes: 262_144,
  /** Messages that may be malformed before the connection is closed. */
  errors: 10,
} as const

/** Milliseconds. */
export const TIMES_V1 = {
  heartbeat: 25_000,
  pong: 10_000,
  /** A client has this long to send its token. */
  hello: 5_000,
  /** A connection outlives its token by this long, for a `refresh` that comes late. */
  grace: 25_000,
} as const

export const DETAILS = ['all', 'state', 'latest'] as const
export type Detail = (typeof DETAILS)[number]

/** Chosen by the client for one message, and echoed in every direct answer to it. */
export const EchoId = z.string().min(1).max(128)
const id = EchoId.optional()

export const Subscribe = z
  .strictObject({
    type: z.literal('subscribe'),
    job: JobId.optional(),
    jobs: z.array(JobId).min(1).max(LIMITS_V1.jobsPerSubscribe).optional(),
    tag: Label.optional(),
    cursor: Cursor.optional(),
    detail: z.enum(DETAILS).optional(),
    id,
  })
  .refine(
    ({ job, jobs, tag }) => [job, jobs, tag].filter((each) => each !== undefined).length === 1,
    'name one `job`, several as `jobs`, or a `tag`',
  )
  .refine(({ job, cursor }) => job !== undefined || cursor === undefined, 'a cursor belongs to one `job`')
  .refine(({ tag, detail }) => tag === undefined || detail === undefined, 'a `tag` has no detail')

/** Judged as a token, whatever it is: its faults are `unauthorized`. */
const token = z.string()

export const ClientMessage = z.discriminatedUnion('type', [
  z.strictObject({ type: z.literal('hello'), token: token.optional() }),
  Subscribe,
  z
    .strictObject({ type: z.literal('unsubscribe'), job: JobId.optional(), tag: Label.optional(), id })
    .refine(({ job, tag }) => (job === undefined) !== (tag === undefined), 'name one `job`, or a `tag`'),
  z.strictObject({ type: z.literal('refresh'), token }),
  z.strictObject({ type: z.literal('ping'), id }),
])
export type ClientMessage = z.infer<typeof ClientMessage>

export const RESET_REASONS = ['trimmed', 'diverged', 'ahead', 'too_far', 'redis_recovered'] as const
export type ResetReason = (typeof RESET_REASONS)[number]

const direct = { job: JobId, id }
const ms = z.int().nonnegative()
const { id: _, ...snapshot } = Snapshot.shape

/** An event of a kind that a later release has: to be passed over, and counted. */
const LaterEvent = z.looseObject({
  type: z.string().regex(/^(?!(?:state|progress|log)$)/),
  seq: z.int().positive(),
  at: z.int(),
})
// Typed as the kinds that are known, so that `item.type` tells which.
const Item = z.union([JobEventSchema, LaterEvent]) as unknown as typeof JobEventSchema

/** What a client may get; it ignores types and fields that are not here. */
export const ServerMessage = z.discriminatedUnion('type', [
  z.object({
    type: z.literal('welcome'),
    connection: z.string(),
    heartbeatMs: z.int(),
    limits: z.record(z.string(), z.int()),
    time: z.int(),
    /** Milliseconds since 1970 at which the token ends. */
    expiresAt: z.int().optional(),
  }),
  z.object({
    type: z.literal('snapshot'),
    ...snapshot,
    ...direct,
    /** Of the running attempt, at the moment of the read; null when none runs. */
    lease: z.object({ ageMs: ms, remainingMs: ms, lost: z.boolean() }).nullable(),
    /** Milliseconds that the attempt may still take, by its progress; null where that tells nothing. */
    etaMs: ms.nullable(),
  }),
  z
    .object({
      type: z.literal('events'),
      ...direct,
      from: z.int().positive(),
      to: z.int().positive(),
      cursor: Cursor,
      items: z.array(Item),
      /** How many of `from..to` are not among the items. */
      conflated: z.int().positive().optional(),
    })
    .refine(
      ({ from, to, items, conflated = 0 }) => items.length + conflated === to - from + 1,
      'items and conflated account for from..to',
    ),
  z.object({ type: z.literal('live'), ...direct, cursor: Cursor }),
  z.object({ type: z.literal('reset'), ...direct, reason: z.enum(RESET_REASONS) }),
  z.object({ type: z.literal('complete'), ...direct, state: z.enum(TERMINAL_STATES), cursor: Cursor }),
  z.object({
    type: z.literal('counts'),
    tag: Label,
    counts: z.object(Object.fromEntries(STATES.map((state) => [state, ms])) as Record<State, typeof ms>),
    at: ms,
    /** `job` messages that were left out, since the client did not take them. */
    folded: z.int().positive().optional(),
    id,
  }),
  z.object({
    type: z.literal('job'),
    tag: Label,
    job: JobId,
    /** The state it was in before; null for a new job. */
    from: z.enum(STATES).nullable(),
    state: z.enum(STATES),
    seq: z.int().positive(),
  }),
  z.object({
    type: z.literal('unsubscribed'),
    job: JobId.optional(),
    tag: Label.optional(),
    id,
    code: z.enum(['requested', 'not_found']),
  }),
  z.object({
    type: z.literal('error'),
    code: z.enum(ERROR_CODES),
    message: z.string(),
    retryable: z.boolean(),
    retryAfterMs: z.int().optional(),
    job: JobId.optional(),
    tag: Label.optional(),
    id,
  }),
  /** The token has this long to live: `refresh` it. */
  z.object({ type: z.literal('expiring'), inMs: z.int() }),
  z.object({ type: z.literal('draining'), spreadMs: z.int() }),
  /** Redis has been away for a while: what happens is told late, and nothing is lost. Then: all is told again. */
  z.object({ type: z.literal('redis'), available: z.boolean() }),
  z.object({ type: z.literal('pong'), id }),
  z.object({ type: z.literal('heartbeat') }),
])
export type ServerMessage = z.infer<typeof ServerMessage>
