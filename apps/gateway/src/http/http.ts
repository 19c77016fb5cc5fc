// The public port before a socket is one: refuses in plain HTTP what is not a WebSocket of our protocol.
import { createServer, type IncomingMessage, type Server } from 'node:http'
import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { SUBPROTOCOL } from '@jobs/protocol'
import { WebSocketServer } from 'ws'
import { type Auth, tokenInQuery } from '../auth/auth.ts'
import type { Grant } from '../auth/grant.ts'
import { type Admission, granted, type KeptOut } from '../limits.ts'
import { bump, counts } from '../metrics.ts'
import { refuseJob } from './answers.ts'
import { allowOrigin, answerPreflight, isPreflight } from './cors.ts'
import { type JobRoutes, jobRouteOf } from './job-routes.ts'
import { PublicSocket } from './public-socket.ts'
import { bodyOf, DRAINING, isRefusal, type Refusal, reasonOf, refuse } from './refusal.ts'

const PATH = '/v1/ws'
/** Headers a request may have; Node by itself drops what is above its limit and goes on. */
const MAX_HEADERS = 100
/** Requests of a connection that are refused since the one before them is not answered; one more, and it is cut. */
const MOST_AHEAD = 16
/** Milliseconds a client has for its request's headers. */
const HEADERS_TIMEOUT_MS = 5_000

export interface PublicServer {
  readonly server: Server
  /** From now on: 503 to everybody. */
  drain(): void
}

const KEPT_OUT: Record<KeptOut, Refusal> = {
  connections: {
    status: 503,
    reason: 'connections',
    message: 'this gateway has as many connections as it may; try again, or another one',
    headers: { 'retry-after': '5' },
  },
  address: {
    status: 429,
    reason: 'address',
    code: 'limit_exceeded',
    message: 'this address has as many connections as it may',
    headers: { 'retry-after': '10' },
  },
  address_rate: {
    status: 429,
    reason: 'address_rate',
    message: 'this address connects, or asks, too often',
    headers: { 'retry-after': '2' },
  },
  rate: {
    status: 503,
    reason: 'rate',
    message: 'too many connect at this moment; try again',
    headers: { 'retry-after': '1' },
  },
}

interface PublicServerOptions {
  auth: Auth
  /** Whether a token may stand in the URL. */
  tokenInQuery: boolean
  admission: Admission
  /**
   * Gets every accepted socket before any message of it is read, with its client's address; without a grant it is yet to
   * send its token.
   */
  onSocket: (socket: PublicSocket, address: string, grant: Grant | undefined) => void
  /** Hears of those that a limit keeps out. */
  onKeptOut: (why: KeptOut, address: string) => void
  jobs: JobRoutes
}

export const publicServer = (options: PublicServerOptions): PublicServer => {
  const { auth, admission, onSocket, onKeptOut, jobs } = options
  let draining = false
  const refusalOf = (request: IncomingMessage): Refusal | null =>
    (!options.tokenInQuery && tokenInQuery(request) ? TOKEN_IN_QUERY : null) ?? (draining ? DRAINING : null)
  const server = createServer({
    headersTimeout: HEADERS_TIMEOUT_MS,
    requestTimeout: 10_000,
    connectionsCheckingInterval: 1_000,
  })
  server.maxConnections = admission.mostConnections
  server.on('drop', () => bump(counts.refused, 'dropped'))
  server.on('connection', (socket) => {
    if (admission.knock(socket)) return
    bump(counts.refused, 'dropped')
    socket.destroy()
  })
  const sockets = new WebSocketServer({
    noServer: true,
    WebSocket: PublicSocket,
    maxPayload: granted.messageBytes,
    perMessageDeflate: false,
    maxFragments: 16,
    maxBufferedChunks: 64,
    closeTimeout: 2_000,
    clientTracking: false,
    // Ours, wherever it stands in the list: the first may be a bearer token, which is never echoed.
    handleProtocols: (offered) => (offered.has(SUBPROTOCOL) ? SUBPROTOCOL : false),
  } as ConstructorParameters<typeof WebSocketServer>[0])

  const addressOf = (request: IncomingMessage, socket: Socket) =>
    admission.addressOf(socket, request.headers['x-forwarded-for'] as string)
  const admitted = (keptOut: KeptOut | null, address: string): Refusal | null => {
    if (keptOut) onKeptOut(keptOut, address)
    return keptOut && KEPT_OUT[keptOut]
  }

  /** Requests of a connection that are not answered yet. */
  const unanswered = new WeakMap<Duplex, number>()

  server.on('request', (request, response) => {
    const { socket } = request
    const ahead = unanswered.get(socket) ?? 0
    if (ahead > MOST_AHEAD) {
      socket.destroy()
      return
    }
    unanswered.set(socket, ahead + 1)
    response.on('close', () => unanswered.set(socket, (unanswered.get(socket) ?? 1) - 1))
    // A job's payload is its owner's to write: no browser is to take it for a page.
    response.setHeader('x-content-type-options', 'nosniff')
    const route = jobRouteOf(pathOf(request))
    const address = addressOf(request, socket)
    const preflight = route !== null && isPreflight(request)
    let refused = (ahead > 0 ? AHEAD : null) ?? (preflight ? null : refusalOfForm(request))
    if (route && !refused) {
      refused = auth.refusalOfPage(request, address) ?? null
      if (!refused) allowOrigin(request, response)
    }
    refused ??= refusalOf(request)
    if (preflight && !refused) {
      answerPreflight(response)
      return
    }
    if (route && !refused) {
      // A stream holds its connection like a WebSocket does, and is admitted like one.
      const keptOut = route.events ? admission.admit(socket, address) : admission.ask(address)
      refused = admitted(keptOut, address)
    }
    if (route && !refused) {
      // Admitted once, and for one stream.
      if (route.events) response.shouldKeepAlive = false
      void jobs(request, response, route, address)
      return
    }
    const refusal = refused ?? UPGRADE_REQUIRED
    bump(counts.refused, reasonOf(refusal))
    if (route) {
      response.shouldKeepAlive = false
      refuseJob(response, refusal)
      return
    }
    response.writeHead(refusal.status, {
      'content-type': 'application/json',
      connection: 'close',
      ...refusal.headers,
    })
    response.end(request.method === 'HEAD' ? '' : bodyOf(refusal))
  })

  server.on('upgrade', (request, socket, head) => {
    // A reset before the upgrade is through would end the process.
    socket.on('error', destroyOnError)
    if (unanswered.get(socket)) {
      socket.destroy()
      return
    }
    const address = addressOf(request, socket as Socket)
    const refusal =
      refusalOfForm(request) ??
      refusalOf(request) ??
      upgradeRefusal(request) ??
      auth.refusalOfPage(request, address) ??
      admitted(admission.admit(socket as Socket, address), address)
    if (refusal) {
      refuse(socket, refusal)
      return
    }
    void auth.ofUpgrade(request, address).then((grant) => {
      // It may have gone meanwhile.
      if (socket.destroyed) return
      if (isRefusal(grant)) refuse(socket, grant)
      else if (draining) refuse(socket, DRAINING)
      else {
        // What greets it goes out in one write with the answer.
        socket.cork()
        sockets.handleUpgrade(request, socket, head, (accepted) =>
          onSocket(accepted as PublicSocket, address, grant),
        )
        socket.uncork()
      }
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

/** Not a closure: one made in the handler would keep the request, some 3 KB, for as long as the socket lives. */
function destroyOnError(this: Duplex): void {
  this.destroy()
}

const UPGRADE_REQUIRED: Refusal = {
  status: 426,
  message: `this is a WebSocket endpoint: connect with the subprotocol ${SUBPROTOCOL}`,
  headers: { upgrade: 'websocket' },
}

const TOKEN_IN_QUERY: Refusal = {
  status: 400,
  message: 'a token does not belong in a URL: send it in hello or as Authorization header',
}

const pathOf = (request: IncomingMessage): string => (request.url ?? '').split('?')[0] as string

/** Its answer would wait behind the one before, out of sight of every limit, and nobody would hear that the client has gone. */
const AHEAD: Refusal = {
  status: 400,
  reason: 'ahead',
  message: 'send a request once the one before it has been answered, or over another connection',
}

const refusalOfForm = (request: IncomingMessage): Refusal | null => {
  if (request.rawHeaders.length / 2 > MAX_HEADERS) return { status: 431, message: 'too many headers' }
  if (request.method !== 'GET' && request.method !== 'HEAD')
    return { status: 405, message: 'use GET', headers: { allow: 'GET, HEAD' } }
  const path = pathOf(request)
  if (path !== PATH && !jobRouteOf(path))
    return {
      status: 404,
      message: `the WebSocket is at ${PATH}, a job at /v1/jobs/ID and /v1/jobs/ID/events`,
    }
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
