// What one client's subscriptions cost Redis, however it asks.
import { afterEach, beforeEach, expect, it, vi } from 'vitest'
import { EVERYTHING } from '../src/auth/grant.ts'
import { granted, Tally } from '../src/limits.ts'
import type { Rooms } from '../src/rooms/rooms.ts'
import { Subscriptions } from '../src/sockets/subscriptions.ts'

beforeEach(() => {
  vi.useFakeTimers()
})
afterEach(() => {
  vi.useRealTimers()
})

it('reads at once what a connection may watch, and what comes after at the rate of its commands', async () => {
  const join = vi.fn<Rooms['join']>(async () => false)
  const client = {
    ...{ grant: EVERYTHING, shares: new Tally(1_000), hasRoom: true },
    ...{ push: vi.fn(), refused: vi.fn(), fault: vi.fn() },
  }
  const subscriptions = new Subscriptions(client, { join } as unknown as Rooms)
  // None of them exists, so each makes room for another.
  const jobs = Array.from({ length: 100 }, (_, i) => `job${i}`)
  for (let list = 0; list < 3; list++) {
    subscriptions.subscribe({ type: 'subscribe', jobs })
    await vi.advanceTimersByTimeAsync(0)
  }
  expect(join).toHaveBeenCalledTimes(granted.subscriptions)
  await vi.advanceTimersByTimeAsync(1_000)
  const paced = join.mock.calls.length - granted.subscriptions
  expect(paced).toBeGreaterThanOrEqual(granted.commandsPerSecond - 1)
  expect(paced).toBeLessThanOrEqual(granted.commandsPerSecond + 1)
  await vi.advanceTimersByTimeAsync(10_000)
  expect(join.mock.calls.length).toBeGreaterThanOrEqual(200)
  subscriptions.end()
  expect(vi.getTimerCount()).toBe(0)
})
