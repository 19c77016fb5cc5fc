// Which pages may connect: an origin is on the list, to the letter, or it is not.
import { openWatcher } from '@jobs/testkit'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { dial, say } from './dial.ts'
import { type Harness, startHarness } from './harness.ts'

const UPGRADE = `Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n`

describe('with a list', () => {
  let h: Harness
  beforeAll(async () => {
    h = await startHarness({
      env: {
        GATEWAY_ORIGINS: 'https://App.example:443/, http://localhost:8000',
        GATEWAY_REQUIRE_ORIGIN: 'true',
      },
    })
  })
  afterAll(() => h.stop())

  it.each(['https://app.example', 'http://localhost:8000'])('takes a page of %s', async (origin) => {
    const watcher = await openWatcher(h.url(), ['jobs.v1.json'], { origin })
    await watcher.next('welcome')
    watcher.terminate()
  })

  it.each([
    'null',
    '',
    '*',
    'http://app.example',
    'https://app.example:8443',
    'https://app.example:443',
    'https://app.example.',
    'https://app.example/',
    'https://APP.example',
    'HTTPS://app.example',
    'https://app.example.evil.example',
    'https://evil-app.example',
    'https://evil.example/https://app.example',
    'https://evil.example#https://app.example',
    'https://evil.example?https://app.example',
    'https://app.example@evil.example',
    'https://user@app.example',
    'https://app.example,https://evil.example',
    'https://app.example https://app.example',
    'https://app.example%00.evil.example',
    'https://xn--pp-8ja.example',
    'app.example',
    '//app.example',
    'file://',
    'https://sub.app.example',
    'https://appxexample',
    'http://localhost:8001',
    'http://localhost',
    'http://127.0.0.1:8000',
    'http://localhost:8000.evil.example',
  ])('refuses "%s" with 403', async (origin) => {
    expect((await dial(h.gateway.port, { headers: { origin } })).status).toBe(403)
  })

  it('refuses two of them, and none where one is required', async () => {
    const one = 'Origin: https://app.example\r\n'
    const ask = (headers: string) =>
      say(h.gateway.port, `GET /v1/ws HTTP/1.1\r\nHost: x\r\n${UPGRADE}${headers}\r\n`)
    expect(await ask(one)).toEqual([101])
    expect(await ask(one + one)).toEqual([403])
    expect(await ask(`${one}Origin: https://evil.example\r\n`)).toEqual([403])
    expect(await ask('')).toEqual([403])
    expect(await ask('Cookie: session=1\r\n')).toEqual([403])
  })

  it('without tokens answers plain requests by its own names and those of the list, to no page that was pointed here', async () => {
    const ask = (host: string) => say(h.gateway.port, `GET /v1/jobs/nobody HTTP/1.1\r\nHost: ${host}\r\n\r\n`)
    for (const host of ['evil.example', 'localhost.evil.example', 'a@127.0.0.1', ''])
      expect(await ask(host)).toEqual([403])
  })

  it('says who was refused in the audit log', () => {
    const lines = h.gateway.stdout.filter((line) => line.includes('"what":"origin"'))
    expect(lines.some((line) => line.includes('"reason":"https://evil-app.example"'))).toBe(true)
  })
})

describe('without a list, on loopback', () => {
  let h: Harness
  beforeAll(async () => {
    h = await startHarness()
  })
  afterAll(() => h.stop())

  it.each(['http://localhost:8000', 'http://127.0.0.1:3000', 'https://localhost', 'http://[::1]:8000'])(
    'takes a page of this machine, %s, and what is no page',
    async (origin) => {
      for (const headers of [{ origin }, {}] as Record<string, string>[]) {
        const { status, socket } = await dial(h.gateway.port, { headers })
        expect(status).toBe(101)
        socket?.destroy()
      }
    },
  )

  it('answers plain requests by names of this machine, and no page whose name was pointed here', async () => {
    const ask = (host: string) => say(h.gateway.port, `GET /v1/jobs/nobody HTTP/1.1\r\nHost: ${host}\r\n\r\n`)
    for (const host of ['localhost', 'localhost:8080', '127.0.0.1:8080', '[::1]:8080'])
      expect(await ask(host)).toEqual([404])
    for (const host of [
      'evil.example',
      'evil.example:8080',
      'localhost.evil.example',
      'localhost@evil.example',
      '',
    ])
      expect(await ask(host)).toEqual([403])
  })

  it.each(['https://app.example', 'http://localhost.evil.example', 'http://127.0.0.1.evil.example', 'null'])(
    'refuses a page of %s with 403',
    async (origin) => {
      expect((await dial(h.gateway.port, { headers: { origin, host: 'localhost' } })).status).toBe(403)
    },
  )
})
