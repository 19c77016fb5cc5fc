// Puts the gateway together: public port, connections, rooms, tailer; and takes it apart in order.
import type { ServerResponse } from 'node:http'
import { CLOSE } from '@jobs/protocol'
import { listen } from '@jobs/service'
import type { WebSocket } from 'ws'
import { openToAll } from './auth.ts'
import { Connection } from './connection.ts'
import type { EventStream } from './event-stream.ts'
import { EVERYTHING } from './grant.ts'
import { publicServer } from './http.ts'
import { jobRoutes } from './job-routes.ts'
import { Rooms } from './rooms.ts'
import type { Tailer } from './tailer.ts'

/** Milliseconds that a drain spreads its closes over, at most; and what each connection adds. */
const MAX_SPREAD_MS = 5_000
const SPREAD_PER_CONNECTION_MS = 2
/** Milliseconds that closed sockets get to go. */
const CLOSE_GRACE_MS = 3_000

export interface Gateway {
  readonly port: number
  /** Refuses newcomers, tells everybody, closes sockets spread over time. */
  drain(): Promise<void>
}

export const startGateway = async (
  tailer: Tailer,
  { host, port, onError }: { host: string; port: number; onError: (error: unknown) => void },
): Promise<Gateway> => {
  const rooms = new Rooms(tailer)
  const connections = new Set<Connection | EventStream>()
  let draining = false
  let emptied: () => void = () => undefined

  const keep = (connection: Connection | EventStream, until: WebSocket | ServerResponse) => {
    connections.add(connection)
    until.on('close', () => {
      connections.delete(connection)
      if (draining && connections.size === 0) emptied()
    })
  }
  const auth = openToAll
  const open = publicServer(
    (socket, grant) => keep(new Connection(socket, rooms, onError, grant ?? EVERYTHING), socket),
    auth,
    jobRoutes({ rooms, auth, onStream: keep, onError }),
  )
  const realPort = await listen(open.server, host, port)

  return {
    port: realPort,
    drain: async () => {
      draining = true
      open.drain()
      const spreadMs = Math.min(MAX_SPREAD_MS, connections.size * SPREAD_PER_CONNECTION_MS)
      const leaving = [...connections]
      for (const connection of leaving) connection.say({ type: 'draining', spreadMs })
      const gone = new Promise<void>((resolve) => {
        emptied = resolve
        if (connections.size === 0) resolve()
      })
      for (const [i, connection] of leaving.entries())
        setTimeout(() => connection.close(CLOSE.draining), (spreadMs * i) / leaving.length)
      const deadline = new Promise<void>((resolve) => setTimeout(resolve, spreadMs + CLOSE_GRACE_MS).unref())
      await Promise.race([gone, deadline])
      open.server.close()
      open.server.closeAllConnections()
    },
  }
}
