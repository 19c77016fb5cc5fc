// How a stream of events ends: before its first message with a reason, after its last even if its reader takes nothing.
import { createServer, get, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { CLOSE, type Close } from '@jobs/protocol'
import { afterEach, expect, it } from 'vitest'
import { EventStream } from '../src/http/event-stream.ts'
import type { Member } from '../src/rooms/room.ts'
import type { Rooms } from '../src/rooms/rooms.ts'

const server = createServer()
afterEach(() => void server.close())

const open = async (join: (member: Member) => boolean | Promise<boolean>) => {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const asked = new Promise<ServerResponse>((resolve) => server.once('request', (_, res) => resolve(res)))
  const answered = new Promise<IncomingMessage>((resolve, reject) => {
    get({ port: (server.address() as AddressInfo).port, agent: false }, resolve).on('error', reject)
  })
  const response = await asked
  const stream = new EventStream(response, { headers: {}, resumed: false, heartbeatMs: 60_000 })
  const rooms = { leave: () => undefined, join: async (_: string, member: Member) => join(member) }
  void stream.follow(rooms as unknown as Rooms, 'a', undefined)
  return { stream, answered }
}

it.each<[string, Close, number, object]>([
  ['draining', CLOSE.draining, 503, { code: 'unavailable', retryable: true, retryAfterMs: 1_000 }],
  ['expired', CLOSE.tokenExpired, 401, { code: 'token_expired', retryable: false }],
  ['revoked', CLOSE.revoked, 401, { code: 'unauthorized', retryable: false }],
])('ended before its first message it says why: %s', async (_, why, status, error) => {
  const { stream, answered } = await open(() => new Promise(() => undefined))
  stream.close(why)
  const response = await answered
  expect(response.statusCode).toBe(status)
  let body = ''
  for await (const chunk of response) body += chunk
  expect(JSON.parse(body)).toMatchObject({ type: 'error', ...error })
})

it('ended while its reader takes nothing it is cut', async () => {
  const { answered } = await open((member) => {
    // More than the system buffers.
    member.say(`"${'x'.repeat(32_000_000)}"`, true)
    member.left()
    return true
  })
  const response = (await answered).pause()
  response.on('error', () => undefined)
  const ended = new Promise((resolve) => response.on('close', resolve))
  await new Promise((resolve) => server.close(resolve))
  response.resume()
  await ended
  expect(response.complete).toBe(false)
})
