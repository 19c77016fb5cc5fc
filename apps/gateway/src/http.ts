// The public port before a socket is one: refuses in plain HTTP what is not a WebSocket of our protocol.
import { createServer, type IncomingMessage, type Server } from 'node:http'
import { LIMITS_V1, SUBPROTOCOL } from '@jobs/protocol'
import { type WebSocket, WebSocketServer } from 'ws'
import type { Auth } from './auth.ts'
import type { Grant } from './grant.ts'
import { type JobRoutes, jobRouteOf } from './job-routes.ts'
import { bodyOf, isRefusal, type Refusal, refuse } from './refusal.ts'

const PATH = '/v1/ws'
/** Headers a request may have; Node by itself drops what is above its limit and goes on. */
const MAX_HEADERS = 100
/** Milliseconds a client has for its request's headers. */
const HEADERS_TIMEOUT_MS = 5_000

export interface PublicServer {
  readonly server: Server
  /** From now on: 503 to everybody. */
  drain(): void
}

/** Gets every accepted socket before any message of it is read; without a grant it is yet to send its token. */
type OnSocket = (socket: WebSocket, grant: Grant | undefined) => void

export const publicServer = (onSocket: OnSocket, auth: Auth, jobs: JobRoutes): PublicServer => {
  let draining = false
  const server = createServer({
    headersTimeout: HEADERS_TIMEOUT_MS,
    requestTimeout: 10_000,
    connectionsCheckingInterval: 1_000,
  })
  const sockets = new WebSocketServer({
    noServer: true,
    maxPayload: LIMITS_V1.messageBytes,
    perMessageDeflate: false,
    maxFragments: 16,
    maxBufferedChunks: 64,
    closeTimeout: 2_000,
    clientTracking: false,
    // Ours, wherever it stands in the list: the first may be a bearer token, which is never echoed.
    handleProtocols: (offered) => (offered.has(SUBPROTOCOL) ? SUBPROTOCOL : false),
  } as ConstructorParameters<typeof WebSocketServer>[0])

  server.on('request', (request, response) => {
    const route = jobRouteOf(pathOf(request))
    const refused = refusalOf(request, draining)
    if (route && !refused) {
      void jobs(request, response, route)
      return
    }
    const refusal = refused ?? UPGRADE_REQUIRED
    response.writeHead(refusal.status, {
      'content-type': 'application/json',
      connection: 'close',
      ...refusal.headers,
    })
    response.end(request.method === 'HEAD' ? '' : bodyOf(refusal))
  })

  server.on('upgrade', (request, socket, head) => {
    // A reset before the upgrade is through would end the process.
    socket.on('error', () => socket.destroy())
    const refusal = refusalOf(request, draining) ?? upgradeRefusal(request)
    if (refusal) {
      refuse(socket, refusal)
      return
    }
    void auth.ofUpgrade(request).then((granted) => {
      // It may have gone meanwhile.
      if (socket.destroyed) return
      if (isRefusal(granted)) refuse(socket, granted)
      else sockets.handleUpgrade(request, socket, head, (opened) => onSocket(opened, granted))
    })
  })

  server.on('clientError', (error: NodeJS.ErrnoException, socket) => {
    if (!socket.writable) return
    const status =
      error.code === 'HPE_HEADER_OVERFLOW' ? 431 : error.code === 'ERR_HTTP_REQUEST_TIMEOUT' ? 408 : 400
    refuse(socket, { status, message: 'this is not a request that can be understood' })
  })

  return {
    server,
    drain: () => {
      draining = true
    },
  }
}

const UPGRADE_REQUIRED: Refusal = {
  status: 426,
  message: `this is a WebSocket endpoint: connect with the subprotocol ${SUBPROTOCOL}`,
  headers: { upgrade: 'websocket' },
}

const pathOf = (request: IncomingMessage): string => (request.url ?? '').split('?')[0] as string

const refusalOf = (request: IncomingMessage, draining: boolean): Refusal | null => {
  if (request.rawHeaders.length / 2 > MAX_HEADERS) return { status: 431, message: 'too many headers' }
  if (request.method !== 'GET' && request.method !== 'HEAD')
    return { status: 405, message: 'use GET', headers: { allow: 'GET, HEAD' } }
  const path = pathOf(request)
  const query = request.url?.split('?')[1]
  if (path !== PATH && !jobRouteOf(path))
    return {
      status: 404,
      message: `the WebSocket is at ${PATH}, a job at /v1/jobs/ID and /v1/jobs/ID/events`,
    }
  if (query && new URLSearchParams(query).has('token'))
    return {
      status: 400,
      message: 'a token does not belong in a URL: send it in hello or as Authorization header',
    }
  if (draining) return { status: 503, message: 'this gateway is stopping', headers: { 'retry-after': '1' } }
  return null
}

/** What ws lets through or answers otherwise than the contract says. */
const upgradeRefusal = (request: IncomingMessage): Refusal | null => {
  if (request.headers.upgrade?.toLowerCase() !== 'websocket')
    return { status: 400, message: 'the only upgrade here is to websocket' }
  if (pathOf(request) !== PATH) return { status: 404, message: `the WebSocket is at ${PATH}` }
  const hosts = request.rawHeaders.filter((name, i) => i % 2 === 0 && name.toLowerCase() === 'host').length
  if (request.httpVersion !== '1.1' || hosts !== 1)
    return { status: 400, message: 'an upgrade takes HTTP/1.1 and one Host header' }
  const version = request.headers['sec-websocket-version']
  if (version === '8') return { status: 400, message: 'WebSocket version 13 is spoken here' }
  if (version !== '13')
    return {
      status: 426,
      message: 'WebSocket version 13 is spoken here',
      headers: { 'sec-websocket-version': '13' },
    }
  const offered = (request.headers['sec-websocket-protocol'] ?? '').split(',').map((name) => name.trim())
  const named = offered.filter((name) => name !== '' && !name.startsWith('bearer.'))
  if (named.length > 0 && !named.includes(SUBPROTOCOL))
    return {
      status: 400,
      message: `none of the subprotocols offered is supported; supported: ${SUBPROTOCOL}`,
    }
  return null
}
