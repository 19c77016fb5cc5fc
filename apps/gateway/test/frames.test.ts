// Broken WebSocket frames, one by one, by a client that says any bytes: each ends its own connection, with the code that
// RFC 6455 or the contract has for it, and harms no other.
import { readFile } from 'node:fs/promises'
import { until } from '@jobs/testkit'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type Harness, startHarness } from './harness.ts'
import { BINARY, CLOSE, CONTINUATION, closeFrame, frame, openRaw, PING, TEXT } from './raw.ts'

let h: Harness
beforeAll(async () => {
  h = await startHarness({ env: { GATEWAY_HEARTBEAT_MS: '2000' } })
})
afterAll(() => h.stop())

const part = (opcode: number, payload: string | Buffer = 'x', fin = false) => frame(payload, { opcode, fin })
const parts = (count: number, payload: string) =>
  Buffer.concat(Array.from({ length: count }, (_, i) => part(i === 0 ? TEXT : CONTINUATION, payload)))

describe.each([
  [
    1002,
    [
      ['an unmasked frame', frame('{}', { masked: false })],
      ['RSV1, which no extension was agreed for', frame('{}', { rsv: 4 })],
      ['RSV2', frame('{}', { rsv: 2 })],
      ['RSV3', frame('{}', { rsv: 1 })],
      ['opcode 3', frame('{}', { opcode: 3 })],
      ['opcode 11', frame('', { opcode: 11 })],
      ['a continuation of nothing', part(CONTINUATION, 'x', true)],
      ['a text inside another', Buffer.concat([part(TEXT), frame('{}')])],
      ['a fragmented ping', frame('', { opcode: PING, fin: false })],
      ['a ping of 126 bytes', frame('x'.repeat(126), { opcode: PING })],
      ['a close body of one byte', frame('x', { opcode: CLOSE })],
      ['the close code 999', closeFrame(999)],
      ['the close code 1004', closeFrame(1004)],
      ['the close code 1005', closeFrame(1005)],
      ['the close code 1006', closeFrame(1006)],
      ['the close code 1015', closeFrame(1015)],
      ['the close code 5000', closeFrame(5000)],
    ],
  ],
  [
    1007,
    [
      ['bytes that are not UTF-8', frame(Buffer.from([0x22, 0xc3, 0x28, 0x22]))],
      ['an overlong encoding', frame(Buffer.from([0xc0, 0xaf]))],
      ['half a surrogate pair in UTF-8', frame(Buffer.from([0xed, 0xa0, 0x80]))],
      ['a character cut off', frame(Buffer.from([0xe2, 0x82]))],
      ['a close reason that is not UTF-8', closeFrame(1000, Buffer.from([0xff]))],
    ],
  ],
  [
    1009,
    [
      ['20 KB in one frame', frame('x'.repeat(20_000))],
      ['one byte too many', frame('x'.repeat(16_385))],
      ['an announced length of 2^40', frame('', { announced: 2n ** 40n })],
      ['an announced length of 2^60', frame('', { announced: 2n ** 60n })],
      ['an announced length of 2^64 - 1', frame('', { announced: 2n ** 64n - 1n })],
      ['fragments that are too much together', parts(3, 'x'.repeat(6_000))],
    ],
  ],
  [
    1008,
    [
      ['17 fragments', parts(17, 'x')],
      ['17 empty fragments', parts(17, '')],
    ],
  ],
  [
    1003,
    [
      ['a binary frame', frame('{"type":"ping"}', { opcode: BINARY })],
      ['an empty binary frame', frame('', { opcode: BINARY })],
      ['a binary message in fragments', Buffer.concat([part(BINARY), part(CONTINUATION, 'x', true)])],
    ],
  ],
] as [number, [string, Buffer][]][])('closes with %i', (code, cases) => {
  it.each(cases)('after %s', async (_, bytes) => {
    const client = await openRaw(h.gateway.port)
    client.send(bytes)
    expect(await client.ended).toBe(code)
  })
})

it('takes what RFC 6455 allows: fragments with a ping between, 16 KiB to the byte, an empty ping', async () => {
  const client = await openRaw(h.gateway.port)
  client.send(
    part(TEXT, '{"type":'),
    frame('', { opcode: PING }),
    part(CONTINUATION, '"ping","id":"a"}', true),
    frame(`${' '.repeat(16_384 - 26)}{"type":"ping","id":"b" }  `.slice(0, 16_384)),
  )
  await until(() => client.messages.some(({ id }) => id === 'b'), { what: 'the second pong' })
  expect(client.messages.filter(({ type }) => type !== 'heartbeat')).toEqual([
    expect.objectContaining({ type: 'welcome' }),
    { type: 'pong', id: 'a' },
    { type: 'pong', id: 'b' },
  ])
  client.send(closeFrame(1000, 'bye'))
  expect(await client.ended).toBe(1000)
})

it('agrees on no compression, whatever is offered', async () => {
  const client = await openRaw(h.gateway.port, { headers: ['Sec-WebSocket-Extensions: permessage-deflate'] })
  expect(client.head).toMatch(/^HTTP\/1\.1 101 /)
  expect(client.head).not.toMatch(/extensions/i)
  client.send(frame(Buffer.from([0xaa, 0x56, 0x2a]), { rsv: 4 }))
  expect(await client.ended).toBe(1002)
})

const rssOf = async (): Promise<number> => {
  const status = await readFile(`/proc/${h.gateway.pid}/status`, 'utf8')
  return Number(/VmRSS:\s+(\d+)/.exec(status)?.[1]) * 1_024
}

it('holds no memory for 131,072 fragments of one byte on each of 20 sockets', async () => {
  const before = await rssOf()
  const flood = Buffer.concat(Array.from({ length: 131_072 }, (_, i) => part(i ? CONTINUATION : TEXT, 'x')))
  const clients = await Promise.all(Array.from({ length: 20 }, () => openRaw(h.gateway.port)))
  for (const client of clients) client.send(flood)
  const codes = await Promise.all(clients.map(({ ended }) => ended))
  // Refused at the 17th; a client that writes on may see the reset before the close frame.
  expect(codes.every((code) => code === 1008 || code === null)).toBe(true)
  expect((await rssOf()) - before).toBeLessThan(64 * 1_048_576)
})

it('takes a frame that comes byte by byte', async () => {
  const client = await openRaw(h.gateway.port)
  client.socket.setNoDelay(true)
  for (const byte of frame('{"type":"ping","id":"slow"}')) {
    client.socket.write(Buffer.from([byte]))
    await new Promise((resolve) => setImmediate(resolve))
  }
  await until(() => client.messages.some(({ id }) => id === 'slow'), { what: 'the pong' })
  client.socket.destroy()
})

it('refuses one frame in more pieces than a network makes of it', async () => {
  const client = await openRaw(h.gateway.port)
  client.socket.setNoDelay(true)
  let over = false
  void client.ended.then(() => {
    over = true
  })
  for (const byte of frame('x'.repeat(16_000))) {
    if (over) break
    client.socket.write(Buffer.from([byte]))
    await new Promise((resolve) => setImmediate(resolve))
  }
  // Written on, a client may see the reset before the close frame.
  expect([1008, null]).toContain(await client.ended)
  expect(client.messages.filter(({ type }) => type === 'error')).toEqual([])
})

it('ends a flood of pings with 4204, or at once where the pongs are not read', async () => {
  const ping = frame('x'.repeat(125), { opcode: PING })
  const reading = await openRaw(h.gateway.port)
  // As many as are answered: what is not read yet when the socket goes would cost the close frame.
  reading.socket.on('data', () => reading.send(ping, ping))
  reading.send(ping)
  expect(await reading.ended).toBe(4204)
  const deaf = await openRaw(h.gateway.port)
  deaf.socket.pause()
  const flood = setInterval(() => deaf.send(...Array.from({ length: 100 }, () => ping)), 5)
  await deaf.ended
  clearInterval(flood)
})

it('closes with 4202 where no pong comes', async () => {
  // This client answers no ping.
  const silent = await openRaw(h.gateway.port)
  const startedAt = performance.now()
  expect(await silent.ended).toBe(4202)
  expect(performance.now() - startedAt).toBeGreaterThan(2_000)
})

it('cuts one that never ends its close after 2 s', async () => {
  const rude = await openRaw(h.gateway.port, { closes: false })
  const startedAt = performance.now()
  rude.send(frame('', { opcode: BINARY }))
  expect(await rude.ended).toBe(1003)
  expect(performance.now() - startedAt).toBeGreaterThan(1_900)
})

it('serves the others all the while', async () => {
  const watcher = await h.watch()
  watcher.send({ type: 'ping', id: 'still' })
  await watcher.next(({ id }) => id === 'still')
  expect(h.gateway.stderr).toEqual([])
  watcher.terminate()
})
