// What one socket gets when it keeps up, falls behind, or stops reading.

import { eventOfMessage } from '@jobs/state'
import { afterEach, beforeEach, expect, it, vi } from 'vitest'
import type { Told } from '../src/rooms/told.ts'
import { Outbox } from '../src/sockets/outbox.ts'
import { Rounds } from '../src/sockets/rounds.ts'

beforeEach(() => {
  vi.useFakeTimers()
})
afterEach(() => {
  vi.useRealTimers()
})

/** The text of a frame as a server sends it. */
const textIn = (frame: Buffer): string => {
  const length = (frame[1] as number) & 0x7f
  return frame.toString('utf8', length < 126 ? 2 : length === 126 ? 4 : 10)
}

/** A socket whose system takes frames at once, or when the test says so. */
const fakeSocket = () => {
  const frames: string[] = []
  const pending: number[] = []
  const socket = {
    readyState: 1 as const,
    OPEN: 1 as const,
    stuck: false,
    get bufferedAmount() {
      return pending.reduce((sum, bytes) => sum + bytes, 0)
    },
    _socket: {
      write: (frame: Buffer) => {
        frames.push(textIn(frame))
        if (socket.stuck) pending.push(frame.length)
      },
    },
    take: () => pending.shift(),
  }
  return { socket, frames, messages: () => frames.flatMap((frame) => JSON.parse(frame)) }
}

const open = () => {
  const fake = fakeSocket()
  const [slow, drained] = [vi.fn(), vi.fn()]
  return { ...fake, slow, drained, outbox: new Outbox(fake.socket, { slow, drained }, { of: new Rounds() }) }
}

const event = (seq: number, type: string, size = 10) => {
  const text = 'x'.repeat(size)
  const stored = type === 'state' ? `claim>PROCESSING 1,"x":"${text}"` : `${type} 1 "${text}"`
  const item = eventOfMessage(`${seq}-5 ${stored}`)
  if (!item) throw new Error('no event')
  return item
}

const told = (seq: number, type: string, { job = 'a', size = 10, latest = false } = {}): Told => {
  const item = event(seq, type, size)
  return {
    job,
    from: seq,
    to: seq,
    cursor: item.cursor,
    items: [item],
    id: undefined,
    latest,
    bytes: item.body.length,
  }
}

/** Longer than the pause between two looks at a socket that lags. */
const tick = () => vi.advanceTimersByTimeAsync(25)

it('sends what comes in one tick as one frame, and a lone message as an object', async () => {
  const { outbox, frames } = open()
  outbox.push('{"type":"pong"}')
  await tick()
  outbox.push('{"type":"pong"}')
  outbox.push(told(1, 'log'))
  await tick()
  expect(frames.map((frame) => JSON.parse(frame))).toMatchObject([
    { type: 'pong' },
    [{ type: 'pong' }, { from: 1 }],
  ])
})

it('keeps frames of many messages below what clients take', async () => {
  const { outbox, frames, messages } = open()
  for (let seq = 1; seq <= 100; seq++) outbox.push(told(seq, 'log', { size: 8_000 }))
  await vi.advanceTimersByTimeAsync(50)
  expect(messages().flatMap((message) => message.items.map((item: { seq: number }) => item.seq))).toEqual(
    Array.from({ length: 100 }, (_, i) => i + 1),
  )
  expect(Math.max(...frames.map((frame) => frame.length))).toBeLessThan(300_000)
})

it('folds progress above the soft limit, exactly counted; state changes and log lines stay', async () => {
  const { outbox, socket, messages, slow } = open()
  socket.stuck = true
  outbox.push(`"${'x'.repeat(300_000)}"`)
  await tick()
  const types = ['progress', 'progress', 'state', 'progress', 'log', 'progress', 'progress', 'state']
  for (const [i, type] of types.entries()) {
    outbox.push(told(i + 1, type))
    outbox.push(told(i + 1, type, { job: 'b' }))
    await tick()
  }
  socket.stuck = false
  socket.take()
  await tick()
  expect(slow).not.toHaveBeenCalled()
  for (const job of ['a', 'b']) {
    const events = messages().filter((message) => message.job === job)
    expect(events).toMatchObject([{ from: 1, to: 8, cursor: '8-5', conflated: 4 }])
    expect(events[0].items.map((item: { seq: number }) => item.seq)).toEqual([3, 5, 7, 8])
  }
})

it('moves nothing across another message', async () => {
  const { outbox, socket, messages } = open()
  socket.stuck = true
  outbox.push(`"${'x'.repeat(300_000)}"`)
  await tick()
  outbox.push(told(1, 'progress'))
  outbox.push('{"type":"reset"}')
  outbox.push(told(2, 'progress'))
  await tick()
  socket.stuck = false
  socket.take()
  await tick()
  expect(messages().slice(1)).toMatchObject([{ from: 1, to: 1 }, { type: 'reset' }, { from: 2, to: 2 }])
})

it('cuts a socket with more than the hard limit waiting, but not for what its client asked for', async () => {
  const asked = open()
  asked.socket.stuck = true
  for (let i = 0; i < 4; i++) {
    asked.outbox.push(`"${'x'.repeat(700_000)}"`, true)
    await tick()
  }
  expect(asked.slow).not.toHaveBeenCalled()
  const flooded = open()
  flooded.socket.stuck = true
  for (let seq = 1; seq <= 200; seq++) {
    flooded.outbox.push(told(seq, 'log', { size: 8_000 }))
    await tick()
  }
  expect(flooded.slow).toHaveBeenCalled()
})

it('cuts a socket that has taken nothing for ten seconds, not one that is always busy', async () => {
  const stuck = open()
  stuck.socket.stuck = true
  stuck.outbox.push('{}')
  await vi.advanceTimersByTimeAsync(9_900)
  expect(stuck.slow).not.toHaveBeenCalled()
  await vi.advanceTimersByTimeAsync(200)
  expect(stuck.slow).toHaveBeenCalled()

  const busy = open()
  busy.socket.stuck = true
  for (let round = 0; round < 300; round++) {
    busy.outbox.push(told(round + 1, 'log', { size: 100_000 }))
    await vi.advanceTimersByTimeAsync(100)
    // Two of them are always under way.
    if (round > 1) busy.socket.take()
  }
  expect(busy.slow).not.toHaveBeenCalled()
})

it('gives who asked for the latest only the last progress of a tick', async () => {
  const { outbox, messages } = open()
  for (let seq = 1; seq <= 5; seq++) outbox.push(told(seq, 'progress', { latest: true }))
  await tick()
  expect(messages()).toMatchObject([{ from: 1, to: 5, conflated: 4, items: [{ seq: 5 }] }])
})

it('says that there is room again when folding alone has made it', async () => {
  const { outbox, drained } = open()
  for (let seq = 1; seq <= 3; seq++) outbox.push(told(seq, 'progress', { latest: true, size: 120_000 }))
  expect(outbox.hasRoom).toBe(false)
  await tick()
  expect(outbox.hasRoom).toBe(true)
  expect(drained).toHaveBeenCalledOnce()
})
