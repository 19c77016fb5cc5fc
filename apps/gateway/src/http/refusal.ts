// An answer in plain HTTP to a request that goes no further.
import { STATUS_CODES } from 'node:http'
import type { Duplex } from 'node:stream'
import { type ErrorCode, SUBPROTOCOL } from '@jobs/protocol'
import { bump, counts } from '../metrics.ts'

export interface Refusal {
  status: number
  message: string
  /** In the `error` message that a job's routes answer, where the status alone does not tell. */
  code?: ErrorCode
  /** For the metrics, where the status alone does not tell. */
  reason?: string
  headers?: Record<string, string>
}

export const isRefusal = (value: object | undefined): value is Refusal =>
  value !== undefined && 'status' in value

export const bodyOf = ({ message }: Refusal) =>
  `${JSON.stringify({ error: message, supported: [SUBPROTOCOL] })}\n`

export const reasonOf = ({ reason, status }: Refusal): string => reason ?? String(status)

export const DRAINING: Refusal = {
  status: 503,
  reason: 'draining',
  message: 'this gateway is stopping; try another one',
  headers: { 'retry-after': '1' },
}

/** Milliseconds that a refused client gets to take its answer and go. */
const GOODBYE_MS = 2_000

/** Answers a request for an upgrade, whose socket has no response object any more. */
export const refuse = (socket: Duplex, refusal: Refusal): void => {
  bump(counts.refused, reasonOf(refusal))
  const body = bodyOf(refusal)
  const headers = {
    connection: 'close',
    'content-type': 'application/json',
    'content-length': String(Buffer.byteLength(body)),
    ...refusal.headers,
  }
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}`)
  socket.end(
    `HTTP/1.1 ${refusal.status} ${STATUS_CODES[refusal.status]}\r\n${lines.join('\r\n')}\r\n\r\n${body}`,
  )
  // It may not, or send on; and after the upgrade nobody else has an eye on it.
  const cut = setTimeout(() => socket.destroy(), GOODBYE_MS).unref()
  socket.on('close', () => clearTimeout(cut))
}
