// What a job's routes answer over plain HTTP: refusals in the words of a WebSocket, and snapshots, which their readers have to
// take in time and which count among what all sockets together may leave untaken.
import type { ServerResponse } from 'node:http'
import type { ErrorCode } from '@jobs/protocol'
import { rounds, type Sender } from '../sockets/rounds.ts'
import { errorOf } from '../sockets/subscriptions.ts'
import type { Refusal } from './refusal.ts'

/** What one client is told is not for another, nor for a page of another origin. */
export const VARY = { vary: 'Authorization, Origin' }
export const JSON_TYPE = 'application/json; charset=utf-8'
/** Milliseconds that a reader has for its snapshot: as long as anything may wait for a WebSocket. */
const ANSWER_MS = 10_000

/** Milliseconds after which a reader of a stream comes back. */
export const RETRY_MS = 2_000
export const EVENT_STREAM = {
  'content-type': 'text/event-stream; charset=utf-8',
  'cache-control': 'no-store',
  // nginx holds answers back otherwise.
  'x-accel-buffering': 'no',
}

const CODES: Record<number, ErrorCode> = {
  400: 'bad_request',
  401: 'unauthorized',
  403: 'unauthorized',
  404: 'not_found',
  405: 'bad_request',
  429: 'rate_limited',
  431: 'too_large',
  503: 'unavailable',
}

/** What passes. A browser's EventSource comes back after a stream has ended, and after any other answer never again. */
const PASSES = new Set([429, 503])
const isEventSource = ({ req }: ServerResponse): boolean =>
  req.method === 'GET' && (req.headers.accept?.includes('text/event-stream') ?? false)

/** Answers what is refused before anything else was told. */
export const refuseJob = (response: ServerResponse, refusal: Refusal): void => {
  if (response.headersSent || response.destroyed) return
  const { status, message, code = CODES[status] ?? 'internal', headers = {} } = refusal
  const retryAfter = headers['retry-after']
  const retryAfterMs = retryAfter === undefined ? undefined : Number(retryAfter) * 1_000
  const body = JSON.stringify(errorOf(code, message, { retryAfterMs }))
  if (PASSES.has(status) && isEventSource(response)) {
    response.writeHead(200, { ...VARY, ...EVENT_STREAM, ...headers })
    // Not all of them at the same time.
    const retryMs = Math.round(Math.max(retryAfterMs ?? 0, RETRY_MS) * (1 + Math.random()))
    response.end(`retry: ${retryMs}\n\ndata: ${body}\n\n`)
    return
  }
  response.writeHead(status, {
    ...VARY,
    'content-type': JSON_TYPE,
    'content-length': Buffer.byteLength(body),
    'cache-control': 'no-store',
    ...headers,
  })
  response.end(body)
}

/** A snapshot on its way to a reader that did not take it at once. */
class Answer implements Sender {
  private readonly response: ServerResponse
  private readonly since = performance.now()

  constructor(response: ServerResponse) {
    this.response = response
  }

  get queuedBytes(): number {
    return this.response.writableLength
  }

  /** The system has been given all of it. */
  flush(): void {}

  look(now: number): boolean {
    if (now - this.since >= ANSWER_MS) this.cut()
    return !this.response.destroyed
  }

  cut(): void {
    this.response.destroy()
  }
}

/** All of a gateway's. */
export class Answers {
  private readonly lagging = new Set<Answer>()

  /** Bytes that readers have not taken yet. */
  get queuedBytes(): number {
    let bytes = 0
    for (const answer of this.lagging) bytes += answer.queuedBytes
    return bytes
  }

  send(response: ServerResponse, body: Buffer): void {
    response.end(body)
    if (response.writableLength === 0) return
    const answer = new Answer(response)
    this.lagging.add(answer)
    response.on('close', () => {
      this.lagging.delete(answer)
      rounds.forget(answer)
    })
    rounds.lag(answer)
  }
}
