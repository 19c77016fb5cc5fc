// Pages of other origins over plain HTTP: a browser asks whether it may send a token, and shows a page no answer that does
// not name its origin. And who was refused is told by the address behind a proxy of ours.
import { request } from 'node:http'
import { until } from '@jobs/testkit'
import { afterAll, beforeAll, expect, it } from 'vitest'
import type { Harness } from './harness.ts'
import { type Guarded, sign, startGuarded } from './tokens.ts'

const APP = 'https://app.example'

let guarded: Guarded
let h: Harness
beforeAll(async () => {
  guarded = await startGuarded({ GATEWAY_ORIGINS: APP, GATEWAY_TRUSTED_PROXIES: '127.0.0.1' })
  h = guarded.h
})
afterAll(() => h.stop())

/** `fetch` leaves out what a browser alone may say. */
const ask = (method: string, path: string, headers: Record<string, string>) =>
  new Promise<{ status: number | undefined; headers: Record<string, unknown> }>((resolve, reject) => {
    const asked = request({ host: '127.0.0.1', port: h.gateway.port, method, path, headers, agent: false })
    asked.on('response', (response) => {
      response.destroy()
      resolve({ status: response.statusCode, headers: response.headers })
    })
    asked.on('error', reject)
    asked.end()
  })
const preflight = (path: string, origin: string) =>
  ask('OPTIONS', path, {
    origin,
    'access-control-request-method': 'GET',
    'access-control-request-headers': 'authorization',
  })
const granting = (headers: Record<string, unknown>) =>
  Object.keys(headers).filter((name) => name.startsWith('access-control-'))

it.each(['/v1/jobs/a', '/v1/jobs/a/events'])(
  'lets a page of an allowed origin send a token to %s',
  async (path) => {
    const { status, headers } = await preflight(path, APP)
    expect(status).toBe(204)
    expect(headers).toMatchObject({
      'access-control-allow-origin': APP,
      'access-control-allow-methods': 'GET, HEAD',
      'access-control-allow-headers': expect.stringMatching(/Authorization.*Last-Event-ID/),
      'access-control-max-age': '600',
      vary: 'Origin',
    })
    expect(headers['access-control-allow-credentials']).toBeUndefined()
  },
)

it.each(['https://evil.example', 'null', 'http://app.example', `${APP}.evil.example`])(
  'refuses a page of %s, with nothing that allows anything',
  async (origin) => {
    for (const answer of [
      await preflight('/v1/jobs/a', origin),
      await ask('GET', '/v1/jobs/a', { origin, authorization: `Bearer ${await sign()}` }),
    ])
      expect([answer.status, granting(answer.headers)]).toEqual([403, []])
  },
)

it('takes what is no preflight for a method that is not used here', async () => {
  for (const headers of [{ origin: APP }, { 'access-control-request-method': 'GET' }] as object[])
    expect((await ask('OPTIONS', '/v1/jobs/a', { ...headers })).status).toBe(405)
  expect((await preflight('/v1/ws', APP)).status).toBe(405)
})

it('lets an allowed page see why it is refused', async () => {
  for (const [path, authorization, status] of [
    ['/v1/jobs/nobody', `Bearer ${await sign()}`, 404],
    ['/v1/jobs/nobody', 'Bearer x.y.z', 401],
    ['/v1/jobs/nobody/events', 'Bearer x.y.z', 401],
    ['/v1/jobs/nobody?token=x', 'Bearer x.y.z', 400],
  ] as const) {
    const answer = await ask('GET', path, { origin: APP, authorization })
    expect([answer.status, answer.headers['access-control-allow-origin']]).toEqual([status, APP])
  }
})

it('writes the address behind a proxy into the audit log, whatever was refused', async () => {
  const refused = { origin: 'https://evil.example' }
  const bad = { authorization: 'Bearer x.y.z' }
  const foreign = { authorization: `Bearer ${await sign({ jobs: ['mine'] })}` }
  for (const [i, headers] of [refused, bad, foreign].entries())
    await ask('GET', '/v1/jobs/other', { ...headers, 'x-forwarded-for': `203.0.113.${i}` })
  for (const [i, what] of ['origin', 'token', 'job'].entries())
    await until(
      () =>
        h.gateway.stdout.some(
          (line) => line.includes(`"what":"${what}"`) && line.includes(`"peer":"203.0.113.${i}"`),
        ),
      { what: `the line for ${what}` },
    )
})
