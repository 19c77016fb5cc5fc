// What every message, code and value of the protocol means, in words and by example: for the documents that gen.ts makes.
// The shapes are in src/messages.ts alone. An example that does not fit its shape fails `pnpm gen`; a message without one
// gets one made from its shape.

interface Words {
  readonly says: string
  /** Each with what matters of it: the rest of what is required is filled in. */
  readonly examples?: readonly object[]
}

const job = '3xQ0uTt7bqfYyqS1n3x6wA'
const at = 1_795_457_647_345
const cursor = `4-${at}`

export const CLIENT_WORDS: Readonly<Record<string, Words>> = {
  hello: {
    says: 'The first message where a token is asked for and did not come with the upgrade; once, and within 5 s.',
    examples: [{}],
  },
  subscribe: {
    says:
      'Watch one job, or up to 100 at once. With `cursor`, the position of the last event seen, goes on from there; ' +
      '`0-0` asks for the whole history. Answered for each job by `snapshot` and `live` (or `complete`), or by the events ' +
      'after the cursor and `live`, or by `reset`, `snapshot` and `live`, or by `error`. `detail: state` leaves out ' +
      'progress and log lines, `latest` all but the last progress; their numbers are still told. With `tag`, watch the jobs ' +
      'that carry it: answered by `counts`, then by one `job` for each change of state.',
    examples: [
      { job, id: 's1' },
      { job, cursor, detail: 'state' },
      { jobs: [job, 'another-job'] },
      { tag: 'batch-7' },
    ],
  },
  unsubscribe: {
    says: 'Stop watching. Answered by `unsubscribed`, or by `error` with `not_found` where nothing was watched.',
    examples: [{ job, id: 'u1' }, { tag: 'batch-7' }],
  },
  refresh: { says: 'A new token on the open connection, before the old one ends.' },
  ping: { says: 'Answered by `pong`.', examples: [{ id: 'p1' }] },
}

export const SERVER_WORDS: Readonly<Record<string, Words>> = {
  welcome: {
    says: 'The connection is accepted. `heartbeatMs` is how often a sign of life comes; `limits` is what is granted.',
    examples: [
      {
        connection: 'q9Zb0pXn3vKd',
        heartbeatMs: 25_000,
        limits: { subscriptions: 128, messageBytes: 16_384 },
        time: at,
      },
    ],
  },
  snapshot: {
    says: 'The whole job, true at exactly `cursor`, read atomically. Times are milliseconds of Redis’ clock.',
    examples: [
      {
        job,
        name: 'transcribe',
        state: 'PROCESSING',
        attempt: 1,
        maxAttempts: 3,
        maxCrashes: 3,
        priority: 'normal',
        seq: 4,
        cursor,
        progress: { done: 7, total: 10 },
        worker: 'host-1:4711',
        lease: { ageMs: 300, remainingMs: 4_700, lost: false },
        etaMs: 300,
        createdAt: at - 900,
        startedAt: at - 700,
        updatedAt: at,
      },
    ],
  },
  events: {
    says:
      'The events `from..to`; `from` is the last number told + 1. Items may be fewer than the range where progress was ' +
      'folded or `detail` leaves it out: `conflated` says how many are missing. State changes never are.',
    examples: [
      {
        job,
        from: 3,
        to: 4,
        cursor,
        conflated: 1,
        items: [{ seq: 4, at, type: 'progress', attempt: 1, progress: { done: 7, total: 10 } }],
      },
      {
        job,
        from: 5,
        to: 5,
        cursor: `5-${at + 9}`,
        items: [
          {
            seq: 5,
            at: at + 9,
            type: 'state',
            move: 'complete',
            state: 'COMPLETED',
            attempt: 1,
            result: 'done',
          },
        ],
      },
    ],
  },
  counts: {
    says:
      'How many jobs that carry the tag are in each state; anew whenever single changes may have been missed, and in place ' +
      'of as many as `folded` says where a client does not take them.',
    examples: [
      {
        tag: 'batch-7',
        counts: { SCHEDULED: 0, QUEUED: 80, PROCESSING: 8, COMPLETED: 409, FAILED: 3, CANCELLED: 0 },
        at,
      },
    ],
  },
  job: {
    says: 'A job that carries the tag changed its state: one less in `from` (null for a new job), one more in `state`.',
    examples: [{ tag: 'batch-7', job, from: 'PROCESSING', state: 'COMPLETED', seq: 5 }],
  },
  live: { says: 'The replay is over; what follows is live.', examples: [{ job, cursor }] },
  reset: {
    says:
      'The position can’t be continued; a `snapshot` follows at once. `trimmed`: the events after it are no longer kept. ' +
      '`diverged`, `ahead`: this history never had it. `too_far`: more is missing than is replayed. `redis_recovered`: ' +
      'Redis lost what was told.',
    examples: [{ job, reason: 'trimmed' }],
  },
  complete: {
    says: 'The job has ended, everything is told, and the subscription is over. Once per subscription.',
    examples: [{ job, state: 'COMPLETED', cursor }],
  },
  unsubscribed: { says: 'The subscription is over, on request, or since the job can no longer be watched.' },
  error: {
    says: 'One message could not be served; the connection lives on. `retryable`: the same may work after `retryAfterMs`.',
    examples: [
      { code: 'not_found', message: 'There is no such job.', retryable: false, job, id: 's1' },
      {
        code: 'unavailable',
        message: 'Try again.',
        retryable: true,
        retryAfterMs: 1_000,
        job,
      },
    ],
  },
  expiring: { says: 'The token ends soon: send `refresh`.', examples: [{ inMs: 180_000 }] },
  draining: {
    says: 'This gateway stops: it closes its connections within `spreadMs`, with 4300.',
    examples: [{ spreadMs: 5_000 }],
  },
  redis: {
    says:
      'Redis has been away for more than two seconds: what happens is told late, and nothing is lost. `available: true` ' +
      'follows once everything has been told.',
    examples: [{ available: false }],
  },
  pong: { says: 'The answer to `ping`.', examples: [{ id: 'p1' }] },
  heartbeat: { says: 'A sign of life, for pages, which can’t see control frames.' },
}

export const ERROR_WORDS: Readonly<Record<string, string>> = {
  bad_request: 'The message is not understood; ten of them close the connection with 4010.',
  unauthorized: 'A token is asked for first.',
  not_found: 'There is no such job, or it is not for this client: one answer for both.',
  token_expired: 'The token has ended.',
  already_subscribed: 'This connection watches that already.',
  limit_exceeded:
    'The connection has as many subscriptions as it may have; if `retryable`, the gateway watches as many jobs as it may.',
  rate_limited: 'Too many messages a second; who goes on is closed with 4204.',
  unavailable: 'Redis can’t be read at the moment; the same works later.',
  too_large: 'What is asked for is larger than what may be sent.',
  internal: 'The gateway failed at this.',
}

/** Values that many messages share, by the name they have in the documents. */
export const VALUE_WORDS = {
  JobId: { says: 'The id of a job, as the backend got it when it enqueued the job.', examples: [job] },
  Cursor: {
    says: 'The position of one event: `<seq>-<ms>`. Opaque to clients, who keep the last one and hand it back.',
    examples: [cursor],
  },
  JobEvent: { says: 'One event of a job’s history.', examples: [] },
  JobError: { says: 'Why an attempt or a job failed; `code` is stable.', examples: [] },
  EchoId: {
    says: 'Chosen by the client for one message, and echoed in every direct answer to it.',
    examples: ['s1'],
  },
} as const
