// Puts the gateway together: public port, connections, rooms, tailer; and takes it apart in order.
import { CLOSE, TIMES_V1 } from '@jobs/protocol'
import { listen } from '@jobs/service'
import type { Auth } from './auth/auth.ts'
import { Answers } from './http/answers.ts'
import type { EventStream } from './http/event-stream.ts'
import { publicServer } from './http/http.ts'
import { jobRoutes } from './http/job-routes.ts'
import type { Admission, KeptOut } from './limits.ts'
import { countClose, counts } from './metrics.ts'
import { Rooms } from './rooms/rooms.ts'
import type { Tailer } from './rooms/tailer.ts'
import { Connection, type Host } from './sockets/connection.ts'
import { Heartbeats } from './sockets/heartbeats.ts'

/** Milliseconds that each connection adds to the time which a drain spreads its closes over: the others take 500/s. */
const SPREAD_PER_CONNECTION_MS = 2
/** Milliseconds that closed sockets get to go: what `ws` gives them, and a little. */
const CLOSE_GRACE_MS = 3_000
/** Milliseconds between looks at Redis, and how long trouble lasts before clients are told. */
const LOOK_MS = 500
const BLIP_MS = 2_000
/** Sockets told the same thing in one turn of the loop. */
const TOLD_AT_ONCE = 500

export interface GatewayOptions {
  host: string
  port: number
  /** Whether other gateways may listen to the port too. */
  reusePort: boolean
  /** Milliseconds between pings of a connection. */
  heartbeatMs: number
  auth: Auth
  /** Whether a token may stand in the URL. */
  tokenInQuery: boolean
  admission: Admission
  /** Jobs and tags watched at the same time. */
  maxRooms: number
  /** Milliseconds that a drain takes at most. */
  drainMs: number
  onError: (error: unknown) => void
  onKeptOut: (why: KeptOut, address: string) => void
  onClosed: (about: { connection: string; address: string; code: number }) => void
}

export interface Gateway {
  readonly port: number
  readonly rooms: Rooms
  /** Bytes that clients have not taken yet. */
  readonly queuedBytes: number
  /** Refuses newcomers, tells everybody, closes sockets spread over time. */
  drain(): Promise<void>
}

export const startGateway = async (tailer: Tailer, options: GatewayOptions): Promise<Gateway> => {
  const { admission, auth, onError, onKeptOut, onClosed } = options
  const rooms = new Rooms(tailer, options.maxRooms)
  const connections = new Set<Connection | EventStream>()
  const answers = new Answers()
  let draining = false
  let emptied: () => void = () => undefined
  /** Since when Redis has been away, and whether clients know. */
  let awaySince: number | undefined
  let toldAway = false

  const leave = (connection: Connection | EventStream) => {
    connections.delete(connection)
    if (draining && connections.size === 0) emptied()
  }
  const host: Host = {
    auth,
    rooms,
    heartbeats: new Heartbeats(options.heartbeatMs, Math.min(TIMES_V1.pong, options.heartbeatMs)),
    get redisAway() {
      return toldAway
    },
    onFault: onError,
    onClosed: (connection, code) => {
      countClose(code)
      onClosed({ connection: connection.connection, address: connection.peer, code })
      leave(connection)
    },
  }
  const open = publicServer({
    auth,
    tokenInQuery: options.tokenInQuery,
    admission,
    onSocket: (socket, peer, grant) => {
      const connection = new Connection(socket, host, { grant, peer })
      connections.add(connection)
      counts.opened++
      // Its token was still being looked at when the drain began.
      if (draining) connection.close(CLOSE.draining)
    },
    onKeptOut,
    jobs: jobRoutes({
      rooms,
      auth,
      answers,
      heartbeatMs: options.heartbeatMs,
      onStream: (stream, response) => {
        connections.add(stream)
        response.on('close', () => leave(stream))
        // As above.
        if (draining) stream.close(CLOSE.draining)
      },
      onError,
    }),
  })
  const port = await listen(open.server, options.host, options.port, options.reusePort)

  const tellAll = async (available: boolean): Promise<void> => {
    let told = 0
    for (const connection of [...connections]) {
      connection.sayRedis(available)
      if (++told % TOLD_AT_ONCE === 0) await new Promise((resolve) => setImmediate(resolve))
    }
  }
  const looks = setInterval(() => {
    const now = performance.now()
    if (tailer.trouble === null) awaySince = undefined
    else awaySince ??= now
    const away = awaySince !== undefined && now - awaySince >= BLIP_MS
    // Told that it is back once every room has caught up.
    if (away === toldAway || (toldAway && awaySince !== undefined)) return
    toldAway = away
    void tellAll(!away)
  }, LOOK_MS)

  return {
    port,
    rooms,
    get queuedBytes() {
      let bytes = answers.queuedBytes
      for (const connection of connections) bytes += connection.queuedBytes
      return bytes
    },
    drain: async () => {
      draining = true
      open.drain()
      clearInterval(looks)
      const graceMs = Math.min(CLOSE_GRACE_MS, options.drainMs)
      const spreadMs = Math.min(options.drainMs - graceMs, connections.size * SPREAD_PER_CONNECTION_MS)
      const leaving = [...connections]
      for (const connection of leaving) connection.say({ type: 'draining', spreadMs })
      const gone = new Promise<void>((resolve) => {
        emptied = resolve
        if (connections.size === 0) resolve()
      })
      for (const [i, connection] of leaving.entries())
        setTimeout(() => connection.close(CLOSE.draining), (spreadMs * i) / leaving.length)
      const deadline = new Promise<void>((resolve) => setTimeout(resolve, spreadMs + graceMs).unref())
      await Promise.race([gone, deadline])
      open.server.close()
      open.server.closeAllConnections()
    },
  }
}
