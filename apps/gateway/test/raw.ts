// A client that says any bytes: plain TCP, frames made by hand, and what came back read as a WebSocket's.
import { randomBytes } from 'node:crypto'
import { connect, type Socket } from 'node:net'
import type { Message } from '@jobs/testkit'

interface Frame {
  fin?: boolean
  /** The three reserved bits, as one number of 0 to 7. */
  rsv?: number
  opcode?: number
  masked?: boolean
  /** What the header says the payload's length is. */
  announced?: bigint
}

export const TEXT = 1
export const BINARY = 2
export const CONTINUATION = 0
export const CLOSE = 8
export const PING = 9
const PONG = 10

/** One frame as a client sends it, or breaks it. */
export const frame = (
  payload: string | Buffer,
  { fin = true, rsv = 0, opcode = TEXT, masked = true, announced }: Frame = {},
): Buffer => {
  const body = Buffer.from(payload)
  const length = announced ?? BigInt(body.length)
  const size = length < 126n ? 0 : length < 65_536n ? 2 : 8
  const head = Buffer.alloc(2 + size)
  head[0] = (fin ? 0x80 : 0) | (rsv << 4) | opcode
  head[1] = (masked ? 0x80 : 0) | (size === 0 ? Number(length) : size === 2 ? 126 : 127)
  if (size === 2) head.writeUInt16BE(Number(length), 2)
  if (size === 8) head.writeBigUInt64BE(length, 2)
  if (!masked) return Buffer.concat([head, body])
  const mask = randomBytes(4)
  for (let i = 0; i < body.length; i++) body[i] = (body[i] as number) ^ (mask[i % 4] as number)
  return Buffer.concat([head, mask, body])
}

export const closeFrame = (code: number, reason: string | Buffer = ''): Buffer =>
  frame(Buffer.concat([Buffer.from([code >> 8, code & 0xff]), Buffer.from(reason)]), { opcode: CLOSE })

export interface RawClient {
  readonly socket: Socket
  /** The answer to the upgrade, head and all. */
  readonly head: string
  readonly messages: Message[]
  /** What no server may say. */
  readonly faults: string[]
  /** Code of the close frame that came, or null when the connection ended without one. */
  readonly ended: Promise<number | null>
  send(...bytes: Buffer[]): void
}

/** `headers`: lines of the request beside the usual ones. `closes`: answers a close frame, as it has to. */
export const openRaw = async (
  port: number,
  { headers = [], closes = true }: { headers?: string[]; closes?: boolean } = {},
): Promise<RawClient> => {
  const socket = connect(port, '127.0.0.1')
  // A reset is one of the ways in which a server may end it.
  socket.on('error', () => undefined)
  const messages: Message[] = []
  const faults: string[] = []
  let code: number | null = null
  let buffer = Buffer.alloc(0)
  let head: string | undefined
  let opened: (head: string) => void = () => undefined
  const open = new Promise<string>((resolve) => {
    opened = resolve
  })
  socket.on('data', (chunk) => {
    buffer = Buffer.concat([buffer, chunk])
    if (head === undefined) {
      const end = buffer.indexOf('\r\n\r\n')
      if (end < 0) return
      head = buffer.subarray(0, end).toString()
      buffer = buffer.subarray(end + 4)
      opened(head)
    }
    for (let next = readFrame(buffer); next; next = readFrame(buffer)) {
      buffer = buffer.subarray(next.size)
      if (next.opcode === CLOSE) {
        code = next.payload.length >= 2 ? next.payload.readUInt16BE(0) : 1005
        if (closes) socket.write(frame(next.payload, { opcode: CLOSE }))
      }
      if (![TEXT, CLOSE, PING, PONG].includes(next.opcode)) faults.push(`a frame of opcode ${next.opcode}`)
      if (next.opcode !== TEXT) continue
      try {
        messages.push(...([JSON.parse(next.payload.toString())].flat() as Message[]))
      } catch {
        faults.push(`a text that is not JSON: ${next.payload.toString().slice(0, 200)}`)
      }
    }
  })
  const ended = new Promise<number | null>((resolve) => {
    socket.on('close', () => {
      opened(head ?? '')
      resolve(code)
    })
  })
  socket.write(
    [
      'GET /v1/ws HTTP/1.1',
      'Host: localhost',
      'Connection: Upgrade',
      'Upgrade: websocket',
      `Sec-WebSocket-Key: ${randomBytes(16).toString('base64')}`,
      'Sec-WebSocket-Version: 13',
      'Sec-WebSocket-Protocol: jobs.v1.json',
      ...headers,
      '',
      '',
    ].join('\r\n'),
  )
  return {
    socket,
    head: await open,
    messages,
    faults,
    ended,
    send: (...bytes) => socket.write(Buffer.concat(bytes)),
  }
}

/** A server's frame is not masked. */
const readFrame = (from: Buffer): { opcode: number; payload: Buffer; size: number } | null => {
  if (from.length < 2) return null
  const short = (from[1] as number) & 0x7f
  const start = short < 126 ? 2 : short === 126 ? 4 : 10
  if (from.length < start) return null
  const length = short < 126 ? short : short === 126 ? from.readUInt16BE(2) : Number(from.readBigUInt64BE(2))
  if (from.length < start + length) return null
  return {
    opcode: (from[0] as number) & 0x0f,
    payload: from.subarray(start, start + length),
    size: start + length,
  }
}
