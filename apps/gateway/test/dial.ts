// A client before it has a socket: asks for the upgrade from an address of its choice, and tells what it was answered.
import { randomBytes } from 'node:crypto'
import { request } from 'node:http'
import { connect, type Socket } from 'node:net'

export interface Answer {
  /** 101 for a socket; 0 when the connection was closed without a word. */
  status: number
  retryAfter: string | undefined
  socket: Socket | undefined
}

export const dial = (
  port: number,
  { from, headers = {} }: { from?: string; headers?: Record<string, string> } = {},
): Promise<Answer> =>
  new Promise((resolve) => {
    const asked = request({
      ...{ host: '127.0.0.1', port, path: '/v1/ws', agent: false },
      ...(from === undefined ? {} : { localAddress: from }),
      headers: {
        connection: 'upgrade',
        upgrade: 'websocket',
        'sec-websocket-key': randomBytes(16).toString('base64'),
        'sec-websocket-version': '13',
        ...headers,
      },
    })
    asked.on('upgrade', (_, socket) => {
      socket.on('error', () => undefined)
      resolve({ status: 101, retryAfter: undefined, socket: socket as Socket })
    })
    asked.on('response', (response) => {
      response.resume()
      resolve({
        status: response.statusCode ?? 0,
        retryAfter: response.headers['retry-after'],
        socket: undefined,
      })
    })
    asked.on('error', () => resolve({ status: 0, retryAfter: undefined, socket: undefined }))
    asked.end()
  })

/** Sends these bytes; answers the status of each response that came back until the end, at most `count`. */
export const say = (port: number, text: string, count = 1): Promise<number[]> =>
  new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1')
    let heard = ''
    const statuses = () => [...heard.matchAll(/^HTTP\/1\.1 (\d{3})/gm)].map(([, status]) => Number(status))
    socket.on('data', (data) => {
      heard += data
      if (statuses().length >= count) socket.destroy()
    })
    socket.on('error', () => undefined)
    socket.on('close', () => resolve(statuses()))
    socket.write(text)
  })
