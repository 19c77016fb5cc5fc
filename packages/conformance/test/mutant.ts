// A gateway that breaks one promise: a proxy before a good one that changes what it says.
import { createServer, type IncomingMessage, request } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Duplex } from 'node:stream'
import { WebSocket, WebSocketServer } from 'ws'
import type { Message } from '../src/client.ts'

export interface Mutation {
  /** What is told in place of a message. One function for each connection, so that it may remember. */
  messages?: () => (message: Message) => Message[]
  /** The close code. */
  close?: (code: number) => number
  /** The answer to a request. */
  answer?: (answer: { status: number; body: string }, path: string) => { status: number; body: string }
  /** The subprotocol that is selected of those offered. */
  protocol?: (offered: Set<string>, selected: string) => string | false
}

export interface Mutant {
  url: string
  close(): Promise<void>
}

export const startMutant = async (port: number, mutation: Mutation): Promise<Mutant> => {
  const target = { host: '127.0.0.1', port }
  const sockets = new Set<WebSocket>()

  /** Forwards a request that is answered in HTTP. */
  const forward = (
    asked: IncomingMessage,
    answer: (status: number, body: string, headers: object) => void,
  ) => {
    const far = request(
      { ...target, path: asked.url, method: asked.method, headers: asked.headers },
      (response) => {
        let body = ''
        response.setEncoding('utf8').on('data', (chunk) => {
          body += chunk
        })
        response.on('end', () => {
          const { 'transfer-encoding': _, 'content-length': __, ...headers } = response.headers
          const mutated = (mutation.answer ?? ((same) => same))(
            { status: response.statusCode ?? 0, body },
            asked.url ?? '',
          )
          answer(mutated.status, mutated.body, headers)
        })
      },
    )
    far.on('error', () => answer(502, '', {}))
    far.end()
  }
  const server = createServer((asked, response) =>
    forward(asked, (status, body, headers) => {
      response.writeHead(status, { ...headers } as Record<string, string>)
      response.end(body)
    }),
  )

  const upgraded = (asked: IncomingMessage, socket: Duplex, head: Buffer, far: WebSocket) => {
    const near = new WebSocketServer({
      noServer: true,
      autoPong: false,
      handleProtocols: (offered) =>
        (mutation.protocol ?? ((_, same) => same || false))(offered, far.protocol),
    } as ConstructorParameters<typeof WebSocketServer>[0])
    near.handleUpgrade(asked, socket, head, (client) => {
      sockets.add(client).add(far)
      const mutate = mutation.messages?.() ?? ((message: Message) => [message])
      far.on('message', (data) => {
        for (const message of [JSON.parse(data.toString())].flat())
          for (const said of mutate(message)) client.send(JSON.stringify(said))
      })
      far.on('ping', (data) => client.ping(data))
      far.on('pong', (data) => client.pong(data))
      client.on('message', (data, binary) => far.send(data, { binary }))
      client.on('ping', (data) => far.ping(data))
      client.on('pong', (data) => far.pong(data))
      client.on('error', () => undefined)
      far.on('close', (code) => {
        sockets.delete(far)
        if (code === 1005 || code === 1006) client.terminate()
        else client.close((mutation.close ?? ((same) => same))(code))
      })
      client.on('close', () => {
        sockets.delete(client)
        far.terminate()
      })
      // What came before there was somebody to tell it to.
      far.resume()
    })
  }

  server.on('upgrade', (asked, socket, head) => {
    socket.on('error', () => socket.destroy())
    const offered = (asked.headers['sec-websocket-protocol'] ?? '').split(',').map((name) => name.trim())
    const { authorization, 'sec-websocket-version': version = '13' } = asked.headers
    const far = new WebSocket(`ws://127.0.0.1:${port}${asked.url}`, offered.filter(Boolean), {
      perMessageDeflate: false,
      autoPong: false,
      // What ws asks by itself is version 13; another one is forwarded as it is.
      headers: authorization ? { authorization } : {},
    })
    far.on('error', () => undefined)
    const refused = () => {
      far.terminate()
      forward(asked, (status, body, headers) => {
        const lines = Object.entries(headers)
          .filter(([name]) => name !== 'connection')
          .map(([name, value]) => `${name}: ${value}`)
        socket.end(
          [
            `HTTP/1.1 ${status} Mutant`,
            ...lines,
            `content-length: ${Buffer.byteLength(body)}`,
            'connection: close',
            '',
            body,
          ].join('\r\n'),
        )
      })
    }
    if (version !== '13') return refused()
    far.on('unexpected-response', refused)
    far.on('open', () => {
      far.pause()
      upgraded(asked, socket, head, far)
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return {
    url: `ws://127.0.0.1:${(server.address() as AddressInfo).port}/v1/ws`,
    close: () =>
      new Promise((resolve) => {
        for (const socket of sockets) socket.terminate()
        server.close(() => resolve())
        server.closeAllConnections()
      }),
  }
}
