// An answer in plain HTTP to a request that goes no further.
import { STATUS_CODES } from 'node:http'
import type { Duplex } from 'node:stream'
import { SUBPROTOCOL } from '@jobs/protocol'

export interface Refusal {
  status: number
  message: string
  headers?: Record<string, string>
}

export const isRefusal = (value: object | undefined): value is Refusal =>
  value !== undefined && 'status' in value

export const bodyOf = ({ message }: Refusal) =>
  `${JSON.stringify({ error: message, supported: [SUBPROTOCOL] })}\n`

/** Answers a request for an upgrade, whose socket has no response object any more. */
export const refuse = (socket: Duplex, refusal: Refusal): void => {
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
}
