// An answer in plain HTTP to a request that goes no further.
import { STATUS_CODES } from 'node:http'
import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { SUBPROTOCOL } from '@jobs/protocol'
import { bump, counts } from '../metrics.ts'

export interface Refusal {
  status: number
  message: string
  /** For the metrics, where the status alone does not tell. */
  reason?: string
  headers?: Record<string, string>
}

export const isRefusal = (value: object | undefined): value is Refusal =>
  value !== undefined && 'status' in value

export const bodyOf = ({ message }: Refusal) =>
  `${JSON.stringify({ error: message, supported: [SUBPROTOCOL] })}\n`

export const reasonOf = ({ reason, status }: Refusal): string => reason ?? String(status)

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
  // It may not, and after the upgrade nobody else has an eye on it.
  ;(socket as Socket).setTimeout(GOODBYE_MS, () => socket.destroy())
}
