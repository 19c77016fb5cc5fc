// What lets a page of another origin read a job over plain HTTP (CORS). Only pages that may connect come here: the others are
// refused before, and get none of these headers.
import type { IncomingMessage, ServerResponse } from 'node:http'

/** Seconds that a browser remembers what it was allowed; a list of origins does not change often. */
const MAX_AGE_S = '600'

/** A browser asks before it sends a token. */
export const isPreflight = ({ method, headers }: IncomingMessage): boolean =>
  method === 'OPTIONS' &&
  headers.origin !== undefined &&
  headers['access-control-request-method'] !== undefined

/** On every answer, refusals too: a page that may come is to see why it is not served. */
export const allowOrigin = ({ headers: { origin } }: IncomingMessage, response: ServerResponse): void => {
  if (origin === undefined) return
  response.setHeader('access-control-allow-origin', origin)
  response.setHeader('access-control-expose-headers', 'ETag, Retry-After')
  response.setHeader('vary', 'Origin')
}

export const answerPreflight = (response: ServerResponse): void => {
  response
    .writeHead(204, {
      'access-control-allow-methods': 'GET, HEAD',
      'access-control-allow-headers': 'Authorization, If-None-Match, Last-Event-ID, Cache-Control',
      'access-control-max-age': MAX_AGE_S,
    })
    .end()
}
