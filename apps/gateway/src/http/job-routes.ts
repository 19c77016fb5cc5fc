// A job over plain HTTP, on the port of the WebSockets: its snapshot, and its events as a stream.
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { ErrorCode } from '@jobs/protocol'
import { Cursor, isStateError, JobId } from '@jobs/state'
import type { Auth } from '../auth/auth.ts'
import type { Grant } from '../auth/grant.ts'
import { snapshotText } from '../rooms/room.ts'
import { type Rooms, RoomsFullError } from '../rooms/rooms.ts'
import { errorOf } from '../sockets/subscriptions.ts'
import { traced } from '../tracing.ts'
import { EVENT_STREAM, EventStream, lastEventId } from './event-stream.ts'
import { bodyOf, isRefusal } from './refusal.ts'

export interface JobRoute {
  job: string
  events: boolean
}

/** Null for a path that is another's. */
export const jobRouteOf = (path: string): JobRoute | null => {
  const [, job, events] = /^\/v1\/jobs\/([^/]*)(\/events)?$/.exec(path) ?? []
  return job === undefined ? null : { job, events: events !== undefined }
}

const STATUS = {
  bad_request: 400,
  not_found: 404,
  limit_exceeded: 429,
  unavailable: 503,
  internal: 500,
} satisfies Partial<Record<ErrorCode, number>>
const JSON_TYPE = 'application/json; charset=utf-8'
/** Seconds until a reader tries again while Redis is away. */
const RETRY_AFTER_S = 1
/** What Node's timers take, in milliseconds. */
const LONGEST_MS = 2_147_483_647

export interface JobRoutesOptions {
  rooms: Rooms
  auth: Auth
  /** Milliseconds between comments on a stream. */
  heartbeatMs: number
  /** Of every stream that is opened, to be ended when the gateway stops. */
  onStream: (stream: EventStream, response: ServerResponse) => void
  onError: (error: unknown) => void
}

/** `peer` is the client's address. Its page has been found to be one that may. */
export type JobRoutes = (
  request: IncomingMessage,
  response: ServerResponse,
  route: JobRoute,
  peer: string,
) => Promise<void>

export const jobRoutes = ({ rooms, auth, heartbeatMs, onStream, onError }: JobRoutesOptions): JobRoutes => {
  const failed = (response: ServerResponse, error: unknown) => {
    if (isStateError(error) || error instanceof RoomsFullError)
      refuse(response, 'unavailable', 'Jobs cannot be read at the moment; try again.')
    else {
      onError(error)
      refuse(response, 'internal', 'The gateway failed at this; try again.')
    }
  }

  /** The same words for a job that is unknown and one that is not for this client. */
  const unknown = (response: ServerResponse) =>
    refuse(response, 'not_found', 'There is no such job, or it is not for you to watch.')

  const tell = async (request: IncomingMessage, response: ServerResponse, job: string) => {
    const snapshot = await rooms.look(job)
    if (!snapshot) return unknown(response)
    // Weak: what is told beside the snapshot, the lease, goes on while the cursor stands.
    const etag = `W/"${snapshot.cursor}"`
    const headers = { ...VARY, etag, 'cache-control': 'private, no-cache' }
    if (isMatched(request.headers['if-none-match'], etag)) {
      response.writeHead(304, headers).end()
      return
    }
    const body = snapshotText(snapshot, undefined)
    const length = Buffer.byteLength(body)
    response.writeHead(200, { ...headers, 'content-type': JSON_TYPE, 'content-length': length }).end(body)
  }

  const stream = async (request: IncomingMessage, response: ServerResponse, job: string, grant: Grant) => {
    const cursor = lastEventId(request)
    if (cursor !== undefined && !Cursor.safeParse(cursor).success)
      return refuse(response, 'bad_request', 'Last-Event-ID is no cursor; one looks like 12-1795457647345.')
    if (request.method === 'HEAD') {
      if (await rooms.look(job)) response.writeHead(200, { ...VARY, ...EVENT_STREAM }).end()
      else unknown(response)
      return
    }
    const { connections } = auth.shares
    if (!connections.take(grant.subject))
      return refuse(response, 'limit_exceeded', "This token's subject has as many connections as it may.")
    response.on('close', () => connections.giveBack(grant.subject))
    const events = new EventStream(response, { headers: VARY, resumed: cursor !== undefined, heartbeatMs })
    onStream(events, response)
    // The reader comes back, and is refused then.
    const release = auth.onRevoked(grant, () => response.end())
    response.on('close', release)
    if (grant.expiresAt !== undefined) {
      const leftMs = Math.min(LONGEST_MS, Math.max(0, grant.expiresAt - Date.now()))
      const expiry = setTimeout(() => response.end(), leftMs)
      response.on('close', () => clearTimeout(expiry))
    }
    if (!(await events.follow(rooms, job, cursor)) && !response.headersSent) unknown(response)
  }

  return async (request, response, { job, events }, peer) => {
    response.on('error', () => undefined)
    if (!JobId.safeParse(job).success)
      return refuse(response, 'bad_request', 'This is no job id: 1 to 128 of A-Z a-z 0-9 . _ ~ -')
    const grant = await auth.ofRequest(request, peer)
    // The client may have gone meanwhile.
    if (response.destroyed) return
    if (isRefusal(grant)) {
      const headers = { ...VARY, 'content-type': JSON_TYPE, ...grant.headers }
      response.writeHead(grant.status, headers).end(bodyOf(grant))
      return
    }
    try {
      if (!grant.mayWatchJob(job)) {
        const { subject } = grant
        auth.audit({ what: 'job', reason: 'not granted', peer, subject, job })
        unknown(response)
      } else
        await traced(events ? 'stream' : 'read', { job, headers: request.headers }, () =>
          events ? stream(request, response, job, grant) : tell(request, response, job),
        )
    } catch (error) {
      if (!response.headersSent) failed(response, error)
      else if (!isStateError(error)) onError(error)
    }
  }
}

/** What one client is told is not for another, nor for a page of another origin. */
const VARY = { vary: 'Authorization, Origin' }

const refuse = (response: ServerResponse, code: keyof typeof STATUS, message: string): void => {
  if (response.headersSent || response.destroyed) return
  const status = STATUS[code]
  const retryable = status >= 429
  const body = JSON.stringify(
    errorOf(code, message, { retryAfterMs: retryable ? RETRY_AFTER_S * 1_000 : undefined }),
  )
  response.writeHead(status, {
    ...VARY,
    'content-type': JSON_TYPE,
    'content-length': Buffer.byteLength(body),
    'cache-control': 'no-store',
    ...(retryable ? { 'retry-after': String(RETRY_AFTER_S) } : {}),
  })
  response.end(body)
}

/** By the weak comparison, as If-None-Match asks. */
const isMatched = (header: string | undefined, etag: string): boolean => {
  const opaque = (tag: string) => tag.trim().replace(/^W\//, '')
  return header?.split(',').some((tag) => tag.trim() === '*' || opaque(tag) === opaque(etag)) ?? false
}
