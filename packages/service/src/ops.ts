// The ops port: /livez says the process runs, /readyz that it does its work, /metrics how. Apart from the public port.
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'

/** Null when ready, else the reason why not, for people. */
export type Readiness = () => string | null

export interface OpsServer {
  port: number
  close(): Promise<void>
}

/** What Prometheus scrapes. */
export interface Metrics {
  contentType: string
  text(): Promise<string>
}

export const serveOps = async (
  host: string,
  port: number,
  readiness: Readiness,
  metrics?: Metrics,
): Promise<OpsServer> => {
  const server = createServer(async (request, response) => {
    const path = request.url?.split('?')[0]
    if (request.method !== 'GET' && request.method !== 'HEAD')
      return answer(405, { error: 'use GET' }, { allow: 'GET, HEAD' })
    if (path === '/livez') return answer(200, { status: 'ok' })
    if (path === '/metrics' && metrics) {
      // What cannot be counted is no reason to end a process that does its work.
      const text = await metrics.text().catch((error: Error) => error)
      if (text instanceof Error) return answer(500, { error: `the metrics cannot be told: ${text.message}` })
      return answer(200, text, { 'content-type': metrics.contentType })
    }
    if (path !== '/readyz')
      return answer(404, { error: `this port has /livez${metrics ? ', /metrics' : ''} and /readyz` })
    const reason = readiness()
    return reason === null ? answer(200, { status: 'ready' }) : answer(503, { status: 'not ready', reason })

    function answer(status: number, body: object | string, headers: Record<string, string> = {}) {
      response.writeHead(status, {
        'content-type': 'application/json',
        'cache-control': 'no-store',
        ...headers,
      })
      const text = typeof body === 'string' ? body : `${JSON.stringify(body)}\n`
      response.end(request.method === 'HEAD' ? '' : text)
    }
  })
  return { port: await listen(server, host, port), close: () => closeServer(server) }
}

/**
 * Listens and returns the real port. Rejects with the system's error when the address is taken.
 *
 * @param reusePort several processes may listen to it; the system spreads connections over them
 */
export const listen = (server: Server, host: string, port: number, reusePort = false): Promise<number> =>
  new Promise((resolve, reject) => {
    server.once('error', reject)
    // As many as the system lets wait to be accepted: the clients of a gateway that died come together.
    server.listen({ port, host, reusePort, backlog: 4_096 }, () => {
      server.off('error', reject)
      resolve((server.address() as AddressInfo).port)
    })
  })

export const closeServer = (server: Server): Promise<void> =>
  new Promise((resolve) => {
    server.close(() => resolve())
    server.closeAllConnections()
  })
