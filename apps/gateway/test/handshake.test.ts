// What is refused before it is a socket, and how: by bytes on the wire, as no well-behaved client would send them.
import { connect } from 'node:net'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { dial, say } from './dial.ts'
import { type Harness, startHarness } from './harness.ts'

let h: Harness
beforeAll(async () => {
  h = await startHarness()
})
afterAll(() => h.stop())

const KEY = 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n'
const UPGRADE = `Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n`
const HOST = 'Host: x\r\n'
const get = (headers: string, first = 'GET /v1/ws HTTP/1.1') => `${first}\r\n${headers}\r\n`

it.each([
  ['an upgrade as it should be', get(HOST + UPGRADE + KEY), 101],
  ['a POST', get(HOST + UPGRADE + KEY, 'POST /v1/ws HTTP/1.1'), 405],
  ['no key', get(HOST + UPGRADE), 400],
  ['a short key', get(`${HOST + UPGRADE}Sec-WebSocket-Key: abc\r\n`), 400],
  ['two keys', get(HOST + UPGRADE + KEY + KEY), 400],
  ['an upgrade to h2c', get(`${HOST}Connection: Upgrade\r\nUpgrade: h2c\r\n`), 400],
  ['no version', get(`${HOST}Connection: Upgrade\r\nUpgrade: websocket\r\n${KEY}`), 426],
  ['version 12', get((HOST + UPGRADE + KEY).replace('13', '12')), 426],
  ['version 8', get((HOST + UPGRADE + KEY).replace('13', '8')), 400],
  ['HTTP/1.0', get(HOST + UPGRADE + KEY, 'GET /v1/ws HTTP/1.0'), 400],
  ['no Host', get(UPGRADE + KEY), 400],
  ['two Hosts', get(HOST + HOST + UPGRADE + KEY), 400],
  ['a length and chunks', get(`${HOST}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n`), 400],
  ['a bare LF', `GET /v1/ws HTTP/1.1\nHost: x\n\n`, 400],
  ['a folded header', get(`${HOST}A: b\r\n c\r\n`), 400],
  ['a NUL in a header', get(`${HOST}A: b\0c\r\n`), 400],
  ['a header of 20 KB', get(`${HOST}A: ${'x'.repeat(20_000)}\r\n`), 431],
  ['a URL of 20 KB', get(HOST, `GET /${'x'.repeat(20_000)} HTTP/1.1`), 431],
  ['1,000 headers', get(HOST + UPGRADE + KEY + 'A: b\r\n'.repeat(1_000)), 431],
  ['3,000 headers', get(HOST + UPGRADE + KEY + 'A: b\r\n'.repeat(3_000)), 431],
  ['the same subprotocol twice', get(`${HOST + UPGRADE + KEY}Sec-WebSocket-Protocol: a, a\r\n`), 400],
  [
    'a subprotocol that is no token',
    get(`${HOST + UPGRADE + KEY}Sec-WebSocket-Protocol: jobs.v1.json, a b\r\n`),
    400,
  ],
  ['an empty subprotocol', get(`${HOST + UPGRADE + KEY}Sec-WebSocket-Protocol: ,\r\n`), 400],
  ['a ClientHello of TLS', '\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03', 400],
  ['another path', get(HOST, 'GET /etc/passwd HTTP/1.1'), 404],
  ['an absolute URL', get(HOST + UPGRADE + KEY, 'GET http://other/v1/ws HTTP/1.1'), 404],
])('answers %s with its status', async (_, text, status) => {
  expect(await say(h.gateway.port, text)).toEqual([status])
})

it('answers one response to requests sent one behind the other, and closes', async () => {
  expect(await say(h.gateway.port, get(HOST) + get(HOST) + get(HOST), 9)).toEqual([426])
})

it('cuts whoever was refused and goes on sending, a byte at a time', async () => {
  const socket = connect(h.gateway.port, '127.0.0.1')
  socket.on('error', () => undefined)
  // What came is not to end it.
  socket.on('data', () => undefined)
  socket.write('no request\r\n\r\n')
  const trickle = setInterval(() => socket.write('x'), 200)
  const closed = await new Promise<boolean>((resolve) => {
    socket.on('close', () => resolve(true))
    setTimeout(() => resolve(false), 4_000)
  })
  clearInterval(trickle)
  expect(closed).toBe(true)
})

it('closes connections that never finish a request, and serves others meanwhile', async () => {
  const slow = ['', 'G', 'GET /v1/ws HTTP/1.1\r\nHost: x\r\nA: '].map((text) => say(h.gateway.port, text, 9))
  expect((await dial(h.gateway.port)).status).toBe(101)
  expect((await Promise.all(slow)).map(([status]) => status)).toEqual([408, 408, 408])
  expect((await h.metrics()).jobs_gateway_handshakes).toBe(0)
})

it('lives on when requests and upgrades are reset at any byte', async () => {
  const text = get(HOST + UPGRADE + KEY)
  const resets = Array.from({ length: text.length }, async (_, end) => {
    const socket = connect(h.gateway.port, '127.0.0.1')
    socket.on('error', () => undefined)
    await new Promise<void>((resolve) => socket.write(text.slice(0, end + 1), () => resolve()))
    socket.resetAndDestroy()
  })
  await Promise.all(resets)
  const { status, socket } = await dial(h.gateway.port)
  expect(status).toBe(101)
  socket?.destroy()
})
