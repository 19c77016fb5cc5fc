// A job over plain HTTP, on the port of the WebSockets: its snapshot, and its events as a stream.
import type { IncomingMessage, ServerResponse } from 'node:http'
import { CLOSE } from '@jobs/protocol'
import { Cursor, isStateError, JobId } from '@jobs/state'
import type { Auth } from '../auth/auth.ts'
import type { Grant } from '../auth/grant.ts'
import { snapshotText } from '../rooms/room.ts'
import { type Rooms, RoomsFullError } from '../rooms/rooms.ts'
import { traced } from '../tracing.ts'
import { type Answers, EVENT_STREAM, JSON_TYPE, refuseJob, VARY } from './answers.ts'
import { EventStream, lastEventId } from './event-stream.ts'
import { isRefusal } from './refusal.ts'

export interface JobRoute {
  job: string
  events: boolean
}

/** Null for a path that is another's. */
export const jobRouteOf = (path: string): JobRoute | null => {
  const [, job, events] = /^\/v1\/jobs\/([^/]*)(\/events)?$/.exec(path) ?? []
  return job === undefined ? null : { job, events: events !== undefined }
}

/** Seconds until a reader tries again what can't be had at the moment. */
const LATER = { 'retry-after': '1' }
/** What Node's timers take, in milliseconds. */
const LONGEST_MS = 2_147_483_647

export interface JobRoutesOptions {
  rooms: Rooms
  auth: Auth
  answers: Answers
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

export const jobRoutes = ({
  rooms,
  auth,
  answers,
  heartbeatMs,
  onStream,
  onError,
}: JobRoutesOptions): JobRoutes => {
  const failed = (response: ServerResponse, error: unknown) => {
    if (error instanceof RoomsFullError)
      refuseJob(response, { status: 503, code: 'limit_exceeded', message: error.message, headers: LATER })
    else if (isStateError(error))
      refuseJob(response, {
        status: 503,
        message: 'Jobs cannot be read at the moment; try again.',
        headers: LATER,
      })
    else {
      onError(error)
      refuseJob(response, { status: 500, message: 'The gateway failed at this; try again.', headers: LATER })
    }
  }

  /** The same words for a job that is unknown and one that is not for this client. */
  const unknown = (response: ServerResponse) =>
    refuseJob(response, { status: 404, message: 'There is no such job, or it is not for you to watch.' })

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
    const body = Buffer.from(snapshotText(snapshot, undefined))
    response.writeHead(200, { ...headers, 'content-type': JSON_TYPE, 'content-length': body.length })
    answers.send(response, body)
  }

  const stream = async (request: IncomingMessage, response: ServerResponse, job: string, grant: Grant) => {
    const cursor = lastEventId(request)
    if (cursor !== undefined && !Cursor.safeParse(cursor).success)
      return refuseJob(response, {
        status: 400,
        message: 'Last-Event-ID is no cursor; one looks like 12-1795457647345.',
      })
    if (request.method === 'HEAD') {
      if (await rooms.look(job)) response.writeHead(200, { ...VARY, ...EVENT_STREAM }).end()
      else unknown(response)
      return
    }
    const { connections } = auth.shares
    if (!connections.take(grant.subject))
      return refuseJob(response, {
        status: 429,
        code: 'limit_exceeded',
        message: "This token's subject has as many connections as it may.",
        headers: LATER,
      })
    response.on('close', () => connections.giveBack(grant.subject))
    const events = new EventStream(response, { headers: VARY, resumed: cursor !== undefined, heartbeatMs })
    onStream(events, response)
    // The gateway may be stopping.
    if (response.writableEnded) return
    const release = auth.onRevoked(grant, () => events.close(CLOSE.revoked))
    response.on('close', release)
    if (grant.expiresAt !== undefined) {
      const leftMs = Math.min(LONGEST_MS, Math.max(0, grant.expiresAt - Date.now()))
      const expiry = setTimeout(() => events.close(CLOSE.tokenExpired), leftMs)
      response.on('close', () => clearTimeout(expiry))
    }
    if (!(await events.follow(rooms, job, cursor)) && !response.headersSent) unknown(response)
  }

  return async (request, response, { job, events }, peer) => {
    response.on('error', () => undefined)
    if (!JobId.safeParse(job).success)
      return refuseJob(response, {
        status: 400,
        message: 'This is no job id: 1 to 128 of A-Z a-z 0-9 . _ ~ -',
      })
    const grant = await auth.ofRequest(request, peer)
    // The client may have gone meanwhile.
    if (response.destroyed) return
    if (isRefusal(grant)) return refuseJob(response, grant)
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

/** By the weak comparison, as If-None-Match asks. */
const isMatched = (header: string | undefined, etag: string): boolean => {
  const opaque = (tag: string) => tag.trim().replace(/^W\//, '')
  return header?.split(',').some((tag) => tag.trim() === '*' || opaque(tag) === opaque(etag)) ?? false
}
