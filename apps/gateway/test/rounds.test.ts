// When sockets are written to: in slices, with a rest after what took long, and never more untaken bytes than may be.
import { expect, it, vi } from 'vitest'
import type { Told } from '../src/rooms/told.ts'
import { Outbox } from '../src/sockets/outbox.ts'
import { Rounds, type Sender } from '../src/sockets/rounds.ts'

const sender = (flush: () => void): Sender => ({
  flush,
  queuedBytes: 0,
  look: () => false,
  cut: () => undefined,
})

const spin = (ms: number) => {
  const end = performance.now() + ms
  while (performance.now() < end);
}

const open = (rounds: Rounds, { stuck = false } = {}) => {
  const frames: Buffer[] = []
  const socket = {
    readyState: 1 as const,
    OPEN: 1 as const,
    bufferedAmount: 0,
    _socket: {
      write: (frame: Buffer) => {
        frames.push(frame)
        if (stuck) socket.bufferedAmount += frame.length
      },
    },
  }
  const slow = vi.fn(() => outbox.stop())
  const outbox: Outbox = new Outbox(socket, { slow, drained: () => undefined }, { of: rounds })
  return { outbox, frames, slow }
}

const told = (seq: number): Told => ({
  job: 'a',
  from: seq,
  to: seq,
  cursor: `${seq}-5`,
  items: [{ cursor: `${seq}-5`, seq, type: 'log', state: null, body: `{"seq":${seq}}` }],
  id: undefined,
  latest: false,
  bytes: 12,
})

it('lets the loop go on between slices of a round, and keeps the order', async () => {
  const rounds = new Rounds()
  const order: (number | 'loop')[] = []
  const done = Promise.withResolvers<void>()
  for (let i = 0; i < 2_000; i++)
    rounds.send(
      sender(() => {
        if (i === 0) setImmediate(() => order.push('loop'))
        order.push(i)
        if (i === 1_999) done.resolve()
      }),
    )
  await done.promise
  const at = order.indexOf('loop')
  expect(at).toBeGreaterThan(0)
  expect(at).toBeLessThan(600)
  expect(order.filter((each) => each !== 'loop')).toEqual(Array.from({ length: 2_000 }, (_, i) => i))
})

it('rests after a round as long as it took, and merges what comes meanwhile', async () => {
  const rounds = new Rounds()
  const first = Promise.withResolvers<number>()
  const second = Promise.withResolvers<number>()
  rounds.send(
    sender(() => {
      spin(20)
      first.resolve(performance.now())
    }),
  )
  const ended = await first.promise
  const { outbox, frames } = open(rounds)
  outbox.push(told(1))
  outbox.push(told(2))
  rounds.send(sender(() => second.resolve(performance.now())))
  expect((await second.promise) - ended).toBeGreaterThan(15)
  expect(frames).toHaveLength(1)
})

it('makes one frame for all sockets that get the same events', async () => {
  const rounds = new Rounds()
  const watchers = [open(rounds), open(rounds), open(rounds)]
  const events = [told(1), told(2)]
  for (const { outbox } of watchers) for (const event of events) outbox.push(event)
  watchers[2]?.outbox.push(told(3))
  await new Promise((resolve) => setImmediate(resolve))
  const [one, other, longer] = watchers.map(({ frames }) => frames[0])
  expect(other).toBe(one)
  expect(longer).not.toBe(one)
})

it('cuts those with the most when all together leave more than may be, and nobody else', async () => {
  const rounds = new Rounds()
  rounds.maxQueuedBytes = 1_000_000
  const prompt = open(rounds)
  const small = Array.from({ length: 10 }, () => open(rounds, { stuck: true }))
  for (const { outbox } of small) outbox.push(`"${'x'.repeat(1_000)}"`)
  const large = Array.from({ length: 10 }, () => open(rounds, { stuck: true }))
  for (const { outbox } of large) outbox.push(`"${'x'.repeat(150_000)}"`)
  prompt.outbox.push(told(1))
  await new Promise((resolve) => setImmediate(resolve))
  const held = (group: ReturnType<typeof open>[]) => group.filter(({ slow }) => slow.mock.calls.length === 0)
  expect(held(small)).toHaveLength(10)
  const left = held(large).length
  expect(left).toBeGreaterThan(3)
  expect(left * 150_000).toBeLessThan(1_000_000)
  expect(prompt.frames).toHaveLength(1)
  for (const { outbox } of [...small, ...large]) outbox.stop()
})
