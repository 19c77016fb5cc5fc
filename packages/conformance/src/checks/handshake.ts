// Before the upgrade, and the first messages after it.
import { randomBytes } from 'node:crypto'
import { request } from 'node:http'
import { SUBPROTOCOL } from '@jobs/protocol'
import { must, skip } from '../outcome.ts'
import type { Bench, Check } from '../run.ts'

interface Answer {
  status: number
  headers: Record<string, string | string[] | undefined>
  body: string
}

const ask = (bench: Bench, path: string, headers: Record<string, string> = {}): Promise<Answer> =>
  new Promise((resolve, reject) => {
    const asked = request(bench.origin + path, { headers, timeout: bench.waitMs }, (response) => {
      let body = ''
      response.setEncoding('utf8').on('data', (chunk) => {
        body += chunk
      })
      response.on('end', () => resolve({ status: response.statusCode ?? 0, headers: response.headers, body }))
    })
    asked.on('upgrade', (response, socket) => {
      socket.destroy()
      resolve({ status: 101, headers: response.headers, body: '' })
    })
    asked.on('timeout', () => asked.destroy(new Error(`no answer to GET ${path}`)))
    asked.on('error', reject)
    asked.end()
  })

const upgrade = async (bench: Bench, headers: Record<string, string>, query = ''): Promise<Answer> =>
  ask(bench, `/v1/ws${query}`, {
    connection: 'Upgrade',
    upgrade: 'websocket',
    'sec-websocket-version': '13',
    'sec-websocket-key': randomBytes(16).toString('base64'),
    ...(bench.token ? { authorization: `Bearer ${await bench.token()}` } : {}),
    ...headers,
  })

export const handshake: Check[] = [
  {
    name: 'handshake/subprotocol',
    promise: `${SUBPROTOCOL} is selected where it is offered; a client that offers none gets v1`,
    run: async (bench) => {
      const offered = await bench.open()
      must(offered.socket.protocol === SUBPROTOCOL, `${SUBPROTOCOL} is selected`, offered.socket.protocol)
      await (await bench.open({ protocols: [] })).settle()
    },
  },
  {
    name: 'handshake/unknown-subprotocol',
    promise: 'a client that offers only unknown subprotocols gets HTTP 400 that names those supported',
    run: async (bench) => {
      const { status, body } = await upgrade(bench, { 'sec-websocket-protocol': 'jobs.v0.xml' })
      must(status === 400, 'HTTP 400', status)
      must(body.includes(SUBPROTOCOL), `the answer names ${SUBPROTOCOL}`, body)
    },
  },
  {
    name: 'handshake/bearer-not-echoed',
    promise: 'a token that came as subprotocol bearer.<jwt> is never echoed',
    run: async (bench) => {
      const token = (await bench.token?.()) ?? 'none'
      const client = await bench.open({ protocols: [`bearer.${token}`, SUBPROTOCOL], token: undefined })
      must(client.socket.protocol === SUBPROTOCOL, `only ${SUBPROTOCOL} is selected`, client.socket.protocol)
    },
  },
  {
    name: 'handshake/no-upgrade',
    promise: 'a plain GET of the WebSocket’s path gets 426',
    run: async (bench) => {
      const { status } = await ask(bench, '/v1/ws')
      must(status === 426, 'HTTP 426', status)
    },
  },
  {
    name: 'handshake/wrong-path',
    promise: 'another path gets 404',
    run: async (bench) => {
      const { status } = await ask(bench, '/v1/elsewhere')
      must(status === 404, 'HTTP 404', status)
    },
  },
  {
    name: 'handshake/version',
    promise: 'another version of WebSocket gets 426 and the version that is spoken',
    run: async (bench) => {
      const { status, headers } = await upgrade(bench, { 'sec-websocket-version': '12' })
      must(status === 426 && headers['sec-websocket-version'] === '13', 'HTTP 426 with version 13', [
        status,
        headers,
      ])
    },
  },
  {
    name: 'handshake/token-in-query',
    promise: 'a token in the query string is refused with 400, unless the gateway is configured to take it',
    run: async (bench) => {
      const { status } = await upgrade(bench, {}, '?token=x')
      if (status === 401) skip('this gateway is configured to take tokens there')
      must(status === 400, 'HTTP 400', status)
    },
  },
  {
    name: 'hello/welcome',
    promise: '`welcome` is the first message and tells heartbeatMs, limits and the time',
    run: async (bench) => {
      const client = await bench.open()
      const first = await client.find('`welcome`', () => true)
      must(first.type === 'welcome', '`welcome` is the first message', first)
      must(first.heartbeatMs > 0 && Object.keys(first.limits).length > 0, 'it tells what is granted', first)
      must(Math.abs(first.time - Date.now()) < 60_000, 'it tells the time in milliseconds', first)
    },
  },
  {
    name: 'hello/once',
    promise: '`hello` comes once; a second one is a bad request',
    run: async (bench) => {
      const client = await bench.open()
      client.send({ type: 'hello' })
      client.send({ type: 'hello' })
      const error = await client.next('error')
      must(error.code === 'bad_request', 'bad_request', error)
    },
  },
  {
    name: 'hello/token',
    promise: 'a token may come in `hello`; one that is not accepted closes the connection with 4100',
    run: async (bench) => {
      const token = bench.token ?? skip('this gateway asks for no token (give --token)')
      const good = await bench.open({ token: undefined })
      good.send({ type: 'hello', token: await token() })
      await good.find('`welcome`', ({ type }) => type === 'welcome')
      const bad = await bench.open({ token: undefined })
      bad.send({ type: 'hello', token: 'e30.e30.e30' })
      const code = await bad.end()
      must(code === 4100, 'close code 4100', code)
    },
  },
  {
    name: 'hello/in-time',
    promise: 'where a token is asked for, a connection without one is closed with 4201 after 5 s',
    run: async (bench) => {
      if (!bench.token) skip('this gateway asks for no token (give --token)')
      const client = await bench.open({ token: undefined })
      const code = await client.end(5_000 + bench.waitMs)
      must(code === 4201, 'close code 4201', code)
    },
  },
]
