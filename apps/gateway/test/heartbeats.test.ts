// When connections are pinged, and who is found silent.
import { afterEach, beforeEach, expect, it, vi } from 'vitest'
import { Heartbeats } from '../src/sockets/heartbeats.ts'

beforeEach(() => {
  vi.useFakeTimers()
})
afterEach(() => {
  vi.useRealTimers()
})

const PERIOD_MS = 10_000

const member = () => ({ beat: vi.fn(), silent: vi.fn() })

it('beats every period for each, the first time within one, and spreads those that came together', async () => {
  const heartbeats = new Heartbeats(PERIOD_MS, 1_000)
  const members = Array.from({ length: 100 }, member)
  for (const each of members) heartbeats.add(each)
  const beats = () => members.reduce((sum, { beat }) => sum + beat.mock.calls.length, 0)
  let most = 0
  for (let spent = 0; spent < PERIOD_MS; spent += 200) {
    const before = beats()
    await vi.advanceTimersByTimeAsync(200)
    most = Math.max(most, beats() - before)
  }
  expect(members.every(({ beat }) => beat.mock.calls.length === 1)).toBe(true)
  expect(most).toBeLessThanOrEqual(8)
  await vi.advanceTimersByTimeAsync(2 * PERIOD_MS)
  expect(members.every(({ beat }) => beat.mock.calls.length === 3)).toBe(true)
})

it('finds who does not answer in time, though asked again meanwhile, and not who answers or is gone', async () => {
  const heartbeats = new Heartbeats(PERIOD_MS, 1_000)
  const [mute, prompt, gone] = [member(), member(), member()]
  const part = heartbeats.add(gone)
  for (const each of [mute, prompt, gone]) heartbeats.ask(each)
  heartbeats.answered(prompt)
  heartbeats.remove(gone, part)
  await vi.advanceTimersByTimeAsync(800)
  heartbeats.ask(mute)
  expect(mute.silent).not.toHaveBeenCalled()
  await vi.advanceTimersByTimeAsync(2 * PERIOD_MS)
  expect(mute.silent).toHaveBeenCalledOnce()
  for (const each of [prompt, gone]) expect(each.silent).not.toHaveBeenCalled()
  expect(gone.beat).not.toHaveBeenCalled()
})
