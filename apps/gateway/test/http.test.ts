// A job over plain HTTP, as curl sees it: snapshot, ETag, every refusal.
import { request } from 'node:http'
import { connect } from 'node:net'
import { keysOf } from '@jobs/state'
import { until } from '@jobs/testkit'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { type Harness, startHarness } from './harness.ts'

let h: Harness
beforeAll(async () => {
  h = await startHarness()
})
afterAll(() => h.stop())

const at = (path: string) => `http://127.0.0.1:${h.gateway.port}${path}`
const get = (id: string, headers: Record<string, string> = {}, method = 'GET') =>
  fetch(at(`/v1/jobs/${id}`), { method, headers })

it('tells the same snapshot as a WebSocket, for nobody else to keep', async () => {
  const id = await h.enqueue()
  await h.jobs.transitions.progress(await h.claim(id), 1, '{"done":1,"total":4}')
  const response = await get(id)
  expect(response.status).toBe(200)
  expect(response.headers.get('content-type')).toBe('application/json; charset=utf-8')
  expect(response.headers.get('x-content-type-options')).toBe('nosniff')
  expect(response.headers.get('cache-control')).toBe('private, no-cache')
  expect(response.headers.get('vary')).toContain('Authorization')
  const watcher = await h.watch()
  watcher.send({ type: 'subscribe', job: id })
  const { lease: _, etaMs: __, ...snapshot } = await watcher.next('snapshot')
  expect(await response.json()).toMatchObject(snapshot)
  expect(response.headers.get('etag')).toBe(`W/"${snapshot.cursor}"`)
  watcher.terminate()
})

it('says 304 while nothing has happened, by any form of the tag, and the next snapshot once it has', async () => {
  const id = await h.enqueue()
  const etag = String((await get(id)).headers.get('etag'))
  for (const seen of [etag, etag.slice(2), `"other", ${etag}`, '*']) {
    const response = await get(id, { 'if-none-match': seen })
    expect([seen, response.status, await response.text()]).toEqual([seen, 304, ''])
    expect(response.headers.get('etag')).toBe(etag)
  }
  await h.jobs.cancel(id)
  const response = await get(id, { 'if-none-match': etag })
  expect(response.status).toBe(200)
  expect(await response.json()).toMatchObject({ state: 'CANCELLED', lease: null, etaMs: null })
})

it('answers HEAD as GET, without the body', async () => {
  const id = await h.enqueue()
  const [head, full] = [await get(id, {}, 'HEAD'), await get(id)]
  expect(head.status).toBe(200)
  for (const name of ['etag', 'content-type', 'content-length'])
    expect(head.headers.get(name)).toBe(full.headers.get(name))
  expect(await head.text()).toBe('')
  expect((await get('none', {}, 'HEAD')).status).toBe(404)
})

it.each([
  ['an unknown job', 'none', 404, 'not_found'],
  ['an id with braces', 'a}b', 400, 'bad_request'],
  ['an id that climbs', '..%2F..', 400, 'bad_request'],
  ['an id that is too long', 'a'.repeat(129), 400, 'bad_request'],
  ['no id', '', 400, 'bad_request'],
])('refuses %s, as itself and as a stream', async (_, id, status, code) => {
  for (const path of [id, `${id}/events`]) {
    const response = await get(path)
    expect(response.status).toBe(status)
    expect(await response.json()).toMatchObject({ type: 'error', code, retryable: false })
  }
})

it.each(['POST', 'PUT', 'DELETE', 'OPTIONS'])('refuses %s and says what to use', async (method) => {
  const response = await get('a', {}, method)
  expect(response.status).toBe(405)
  expect(response.headers.get('allow')).toBe('GET, HEAD')
})

it.each([
  ['a token in the URL', '/v1/jobs/a?token=secret', 400],
  ['another path below the job', '/v1/jobs/a/b', 404],
])('refuses %s', async (_, path, status) => {
  expect((await fetch(at(path))).status).toBe(status)
})

it('is no WebSocket: an upgrade is refused', async () => {
  const status = await new Promise((resolve) => {
    const upgrade = {
      ...{ connection: 'Upgrade', upgrade: 'websocket', 'sec-websocket-version': '13' },
      'sec-websocket-key': 'dGhlIHNhbXBsZSBub25jZQ==',
    }
    request(at('/v1/jobs/a'), { headers: upgrade }, (response) => {
      response.resume()
      resolve(response.statusCode)
    }).end()
  })
  expect(status).toBe(404)
})

it('tells how the lease stands, who is lost, and when the job may be done', async () => {
  const id = await h.enqueue()
  const held = await h.claim(id)
  const key = keysOf(h.jobs.namespace, 0).job(id)
  const look = async () => (await get(id)).json() as Promise<Record<string, never>>
  expect(await look()).toMatchObject({ lease: { lost: false }, etaMs: null })
  // 20 s ago by its clock, and a quarter done now.
  const startedAt = Date.now() - 20_000
  await h.redis.client().hset(key, 'run', `${startedAt} 60000`)
  await h.jobs.transitions.progress(held, 1, '{"done":1,"total":4}')
  await h.jobs.transitions.heartbeat(held)
  const { lease, etaMs } = (await look()) as unknown as { lease: Record<string, number>; etaMs: number }
  expect(Number(lease.ageMs) + Number(lease.remainingMs)).toBe(60_000)
  expect(lease.ageMs).toBeLessThan(10_000)
  expect(etaMs).toBeGreaterThan(50_000)
  expect(etaMs).toBeLessThanOrEqual(75_000)
  await h.redis.client().hset(key, 'run', `${startedAt} 1`)
  await h.redis.client().del(keysOf(h.jobs.namespace, 0).heartbeat(id))
  expect(await look()).toMatchObject({ lease: { lost: true, remainingMs: 0 }, etaMs: null })
})

it('answers the first of several requests sent at once, refuses those behind it, and closes', async () => {
  const id = await h.enqueue()
  const text = await new Promise<string>((resolve) => {
    const socket = connect(h.gateway.port, '127.0.0.1')
    let heard = ''
    socket.on('data', (data) => {
      heard += data
    })
    socket.on('close', () => resolve(heard))
    socket.write(`GET /v1/jobs/${id} HTTP/1.1\r\nHost: localhost\r\n\r\n`.repeat(3))
  })
  expect([...text.matchAll(/HTTP\/1\.1 (\d+)/g)].map(([, status]) => status)).toEqual(['200', '400'])
  expect(text).toContain('"code":"bad_request","message":"send a request once')
})

it.each([
  ['another method', 'a', { method: 'POST' }, 405, 'bad_request'],
  ['a token in the URL', 'a?token=secret', {}, 400, 'bad_request'],
  ['another page', 'a', { headers: { origin: 'https://evil.example' } }, 403, 'unauthorized'],
] as const)(
  'tells %s what is wrong as an error message, for nobody to keep',
  async (_, path, init, status, code) => {
    for (const at of [path, path.replace('a', 'a/events')]) {
      const response = await fetch(`http://127.0.0.1:${h.gateway.port}/v1/jobs/${at}`, init)
      expect([response.status, response.headers.get('cache-control')]).toEqual([status, 'no-store'])
      expect(await response.json()).toMatchObject({ type: 'error', code, retryable: false })
    }
  },
)

it('says 503 and when to come back while Redis is away', async () => {
  const id = await h.enqueue()
  await h.redis.kill('SIGKILL')
  for (const path of [id, `${id}/events`]) {
    const response = await get(path)
    expect(response.status).toBe(503)
    expect(response.headers.get('retry-after')).toBe('1')
    expect(await response.json()).toMatchObject({ code: 'unavailable', retryable: true, retryAfterMs: 1_000 })
  }
  // A browser's EventSource would never come back: it is told in a stream.
  const response = await get(`${id}/events`, { accept: 'text/event-stream' })
  expect(response.status).toBe(200)
  const [, retryMs, error = ''] = /^retry: (\d+)\n\ndata: (.*)\n\n$/.exec(await response.text()) ?? []
  expect(Number(retryMs)).toBeGreaterThanOrEqual(2_000)
  expect(JSON.parse(error)).toMatchObject({ type: 'error', code: 'unavailable', retryAfterMs: 1_000 })
  await h.redis.restart()
  await until(async () => (await get('none')).status === 404)
})

it('lets a page of an allowed origin read it, and no other', async () => {
  const id = await h.enqueue()
  const allowed = await get(id, { origin: 'http://localhost:3000' })
  expect(allowed.headers.get('access-control-allow-origin')).toBe('http://localhost:3000')
  const other = await get(id, { origin: 'https://evil.example' })
  expect([other.status, other.headers.get('access-control-allow-origin')]).toEqual([403, null])
})
