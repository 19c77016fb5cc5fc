// The end of a token, on a clock that the test moves: a warning, a grace, the close.
import { CLOSE, type ServerMessage } from '@jobs/protocol'
import { afterEach, beforeEach, expect, it, vi } from 'vitest'
import { type Denied, openToAll } from '../src/auth/auth.ts'
import { Credentials } from '../src/auth/credentials.ts'
import { EVERYTHING, type Grant } from '../src/auth/grant.ts'
import { Tally } from '../src/limits.ts'

const MINUTE = 60_000
const DAY = 86_400_000

beforeEach(() => void vi.useFakeTimers())
afterEach(() => void vi.useRealTimers())

const start = (lifeMs: number, next?: Grant | Denied) => {
  const told: (ServerMessage | number)[] = []
  const holder = {
    ...{ connection: 'c', peer: undefined, regranted: () => undefined },
    say: (message: ServerMessage) => void told.push(message),
    close: ({ code }: { code: number }) => {
      told.push(code)
      credentials.end()
    },
  }
  const shares = { connections: new Tally(1), subscriptions: new Tally(1) }
  const auth = openToAll({ judgeOrigin: () => undefined, audit: () => undefined, shares })
  const grant: Grant = { ...EVERYTHING, issuedAt: Date.now(), expiresAt: Date.now() + lifeMs }
  const credentials = new Credentials({ ...auth, ofToken: async () => next ?? grant }, holder, grant)
  return { told, credentials }
}

it('warns at 80 % of the life, and closes with 4101 a grace of 25 s after its end', async () => {
  const { told, credentials } = start(10 * MINUTE)
  await vi.advanceTimersByTimeAsync(8 * MINUTE - 1)
  expect(told).toEqual([])
  await vi.advanceTimersByTimeAsync(1)
  expect(told).toEqual([{ type: 'expiring', inMs: 2 * MINUTE }])
  await vi.advanceTimersByTimeAsync(2 * MINUTE)
  expect(credentials.expired).toBe(true)
  await vi.advanceTimersByTimeAsync(25_000 - 1)
  expect(told).toHaveLength(1)
  await vi.advanceTimersByTimeAsync(1)
  expect(told.at(-1)).toBe(4101)
  await vi.advanceTimersByTimeAsync(DAY)
  expect(told).toHaveLength(2)
})

it('counts anew from a refresh, even in the grace', async () => {
  const { told, credentials } = start(MINUTE, {
    ...EVERYTHING,
    issuedAt: Date.now(),
    expiresAt: Date.now() + DAY,
  })
  await vi.advanceTimersByTimeAsync(MINUTE + 24_000)
  await credentials.present('another')
  expect(credentials.expired).toBe(false)
  await vi.advanceTimersByTimeAsync(MINUTE)
  expect(told).toHaveLength(1)
  await vi.advanceTimersByTimeAsync(DAY)
  expect(told.slice(1)).toMatchObject([{ type: 'expiring' }, 4101])
})

it('goes on with the token it has where a refresh cannot be judged, and ends with it', async () => {
  const unavailable: Denied = {
    status: 503,
    code: 'unavailable',
    message: 'Try again.',
    close: CLOSE.internal,
  }
  const { told, credentials } = start(MINUTE, unavailable)
  expect(await credentials.present('another')).toBe(false)
  expect(told).toEqual([
    { type: 'error', code: 'unavailable', message: 'Try again.', retryable: true, retryAfterMs: 2_000 },
  ])
  await vi.advanceTimersByTimeAsync(MINUTE + 25_000)
  expect(told.slice(1)).toMatchObject([{ type: 'expiring' }, 4101])
})

it('keeps no timer once the connection has ended', () => {
  start(MINUTE).credentials.end()
  expect(vi.getTimerCount()).toBe(0)
})
