// The races of a room, each made to happen: the source answers when the test says so.
import { type Continuation, eventOfMessage, type Snapshot } from '@jobs/state'
import { expect, it, vi } from 'vitest'
import { type Member, Room } from '../src/rooms/room.ts'
import type { RoomSource } from '../src/rooms/room-reads.ts'
import { textOf } from '../src/rooms/told.ts'

/** As a script publishes it. */
const message = (seq: number, at: number, type = 'progress') =>
  `${seq}-${at} ${type === 'progress' ? `progress 1 ${seq}` : `complete>${type} 1,"result":1`}`
const stored = (seq: number, at: number, type?: string) => {
  const event = eventOfMessage(message(seq, at, type))
  if (!event) throw new Error('no event')
  return event
}

const snapshotAt = (seq: number, at: number, state = 'PROCESSING') =>
  ({ id: 'j', state, seq, cursor: `${seq}-${at}`, attempt: 1, progress: null }) as unknown as Snapshot

const read = (seq: number, at: number, more: Partial<Continuation> = {}): Continuation => ({
  snapshot: snapshotAt(seq, at),
  events: [],
  more: false,
  gap: null,
  ...more,
})

const setUp = () => {
  const snapshot = vi.fn<RoomSource['snapshot']>()
  const since = vi.fn<RoomSource['since']>()
  const later = vi.fn<RoomSource['later']>()
  const isLast = vi.fn<RoomSource['isLast']>(async () => false)
  const emptied = vi.fn()
  const room = new Room('j', { snapshot, since, later, isLast }, emptied)
  return { snapshot, since, later, isLast, emptied, room }
}

// biome-ignore lint/suspicious/noExplicitAny: tests look into messages freely.
type Message = Record<string, any>

const watcher = (detail: Member['detail'] = 'all') => {
  const messages: Message[] = []
  const member = {
    detail,
    say: (message: Parameters<Member['say']>[0]) => {
      messages.push(JSON.parse(typeof message === 'string' ? message : textOf(message)))
    },
    left: vi.fn(),
  } satisfies Member
  return { member, messages, types: () => messages.map(({ type }) => type) }
}

const settle = () => new Promise<void>((resolve) => setImmediate(resolve))

const seated = async (at: { seq: number; at: number }, detail?: Member['detail']) => {
  const all = setUp()
  all.snapshot.mockResolvedValueOnce(snapshotAt(at.seq, at.at))
  const one = watcher(detail)
  all.room.expect(one.member)
  await all.room.join(one.member, undefined, undefined)
  one.messages.length = 0
  return { ...all, ...one }
}

it('serves all who join at the same moment by one read', async () => {
  const { room, snapshot } = setUp()
  const answer = Promise.withResolvers<Snapshot | null>()
  snapshot.mockReturnValueOnce(answer.promise)
  const watchers = Array.from({ length: 1_000 }, () => watcher())
  const joins = watchers.map(({ member }) => {
    room.expect(member)
    return room.join(member, undefined, undefined)
  })
  answer.resolve(snapshotAt(3, 30))
  expect(new Set(await Promise.all(joins))).toEqual(new Set([true]))
  expect(snapshot).toHaveBeenCalledTimes(1)
  for (const { types } of watchers) expect(types()).toEqual(['snapshot', 'live'])
})

it('asks again for who came after a read that found nothing had begun', async () => {
  const { room, snapshot } = setUp()
  const answer = Promise.withResolvers<Snapshot | null>()
  snapshot.mockReturnValueOnce(answer.promise).mockResolvedValueOnce(snapshotAt(1, 10))
  const [early, late] = [watcher(), watcher()]
  room.expect(early.member)
  const first = room.join(early.member, undefined, undefined)
  room.expect(late.member)
  const second = room.join(late.member, undefined, undefined)
  answer.resolve(null)
  expect(await first).toBe(false)
  expect(await second).toBe(true)
})

it('forgets a watcher that leaves before or during its read', async () => {
  const { room, snapshot } = setUp()
  const one = watcher()
  room.expect(one.member)
  room.leave(one.member)
  await room.join(one.member, undefined, undefined)
  expect(snapshot).not.toHaveBeenCalled()
  expect(room.empty).toBe(true)

  const answer = Promise.withResolvers<Snapshot | null>()
  snapshot.mockReturnValueOnce(answer.promise)
  room.expect(one.member)
  const join = room.join(one.member, undefined, undefined)
  room.leave(one.member)
  answer.resolve(snapshotAt(1, 10))
  await join
  expect(room.empty).toBe(true)
  expect(one.messages).toEqual([])
})

it('fills in what was heard during the read', async () => {
  const { room, snapshot, since } = setUp()
  const answer = Promise.withResolvers<Snapshot | null>()
  snapshot.mockReturnValueOnce(answer.promise)
  const one = watcher()
  room.expect(one.member)
  const join = room.join(one.member, undefined, undefined)
  for (const seq of [2, 3, 4]) room.hear(message(seq, seq * 10))
  answer.resolve(snapshotAt(2, 20))
  await join
  expect(one.messages).toMatchObject([{ type: 'snapshot', seq: 2 }, { type: 'live' }, { from: 3, to: 4 }])
  expect(since).not.toHaveBeenCalled()
})

it('reads once for a gap, however many events show it', async () => {
  const { room, since, messages } = await seated({ seq: 1, at: 10 })
  const answer = Promise.withResolvers<Continuation | null>()
  since.mockReturnValueOnce(answer.promise).mockResolvedValue(read(4, 40))
  for (const seq of [3, 4]) room.hear(message(seq, seq * 10))
  answer.resolve(read(4, 40, { events: [2, 3, 4].map((seq) => stored(seq, seq * 10)) }))
  await settle()
  expect(messages).toMatchObject([{ type: 'events', from: 2, to: 4 }])
  expect(since.mock.calls.map(([, cursor]) => cursor)).toEqual(['1-10', '4-40'])
})

it('hands a repair that failed to be tried again, and loses nothing', async () => {
  const { room, since, later, messages } = await seated({ seq: 1, at: 10 })
  since
    .mockRejectedValueOnce(new Error('gone'))
    .mockResolvedValueOnce(read(3, 30, { events: [stored(2, 20), stored(3, 30, 'COMPLETED')] }))
  room.hear(message(3, 30, 'COMPLETED'))
  await settle()
  expect(later).toHaveBeenCalledWith(room, expect.any(Error))
  await room.recovered()
  expect(messages.map(({ type }) => type)).toEqual(['events', 'complete'])
})

it('says that it is empty once the last watcher was told the end', async () => {
  const { room, snapshot, emptied, messages } = await seated({ seq: 1, at: 10 })
  snapshot.mockResolvedValueOnce(snapshotAt(1, 10))
  const other = watcher()
  room.expect(other.member)
  await room.join(other.member, undefined, undefined)
  room.leave(other.member)
  expect(emptied).not.toHaveBeenCalled()
  room.hear(message(2, 20, 'COMPLETED'))
  expect(messages.map(({ type }) => type)).toEqual(['events', 'complete'])
  expect(emptied).toHaveBeenCalledOnce()
})

it('hands a repair that failed over once, however many events showed the gap', async () => {
  const { room, since, later } = await seated({ seq: 1, at: 10 })
  const answer = Promise.withResolvers<Continuation | null>()
  since.mockReturnValueOnce(answer.promise)
  for (const seq of [3, 5, 7]) room.hear(message(seq, seq * 10))
  answer.reject(new Error('gone'))
  await settle()
  expect(later).toHaveBeenCalledOnce()
  since.mockRejectedValueOnce(new Error('gone'))
  room.hear(message(9, 90))
  await settle()
  expect(later).toHaveBeenCalledTimes(2)
})

it('does not let a live event of another history hide that Redis has lost what was told', async () => {
  const { room, since, messages } = await seated({ seq: 5, at: 50 })
  room.lost()
  // Event 5 was lost and written anew; 6 follows the new one.
  room.hear(message(6, 90))
  since.mockResolvedValueOnce(read(6, 90, { gap: 'diverged' }))
  await room.recovered()
  expect(since).toHaveBeenCalledWith('j', '5-50', expect.anything())
  expect(messages).toMatchObject([
    { type: 'reset', reason: 'redis_recovered' },
    { type: 'snapshot', seq: 6 },
    { type: 'live' },
  ])
  room.hear(message(7, 95))
  expect(messages.at(-1)).toMatchObject({ type: 'events', from: 7, to: 7 })
})

it('tells what was heard while it read after a loss of the connection', async () => {
  const { room, since, messages } = await seated({ seq: 1, at: 10 })
  room.lost()
  const answer = Promise.withResolvers<Continuation | null>()
  since.mockReturnValueOnce(answer.promise)
  const recovered = room.recovered()
  room.hear(message(3, 30))
  answer.resolve(read(2, 20, { events: [stored(2, 20)] }))
  await recovered
  expect(messages).toMatchObject([
    { from: 2, to: 2 },
    { from: 3, to: 3 },
  ])
})

it('calls a stream that was trimmed meanwhile trimmed, and a job that is gone not found', async () => {
  const { room, since, messages, member, emptied } = await seated({ seq: 1, at: 10 })
  since.mockResolvedValueOnce(read(900, 90, { gap: 'trimmed' }))
  await room.recovered()
  expect(messages[0]).toMatchObject({ type: 'reset', reason: 'trimmed' })
  since.mockResolvedValueOnce(null)
  await room.check()
  expect(messages.at(-1)).toEqual({ type: 'unsubscribed', job: 'j', code: 'not_found' })
  expect(member.left).toHaveBeenCalled()
  expect(room.empty).toBe(true)
  expect(emptied).toHaveBeenCalledOnce()
})

it('notices a history that begins anew under a connection that held', async () => {
  const { room, since, messages } = await seated({ seq: 5, at: 50 })
  since.mockResolvedValueOnce(read(1, 90, { gap: 'ahead' }))
  room.hear(message(1, 90))
  await settle()
  expect(messages).toMatchObject([
    { type: 'reset', reason: 'redis_recovered' },
    { type: 'snapshot', seq: 1 },
    {},
  ])
})

it('repairs a watcher whose read began before the channel was heard again', async () => {
  const { room, snapshot, since } = setUp()
  const one = watcher()
  const answer = Promise.withResolvers<Snapshot | null>()
  snapshot.mockReturnValueOnce(answer.promise)
  room.expect(one.member)
  const join = room.join(one.member, undefined, undefined)
  await room.recovered()
  since.mockResolvedValueOnce(read(2, 20, { events: [stored(2, 20)] }))
  answer.resolve(snapshotAt(1, 10))
  await join
  await settle()
  expect(one.types()).toEqual(['snapshot', 'live', 'events'])
})

it('tells every number before it says that the replay is over, whatever the detail leaves out', async () => {
  const { room, since } = setUp()
  since.mockResolvedValueOnce(read(3, 30, { events: [1, 2, 3].map((seq) => stored(seq, seq * 10)) }))
  const one = watcher('state')
  room.expect(one.member)
  await room.join(one.member, '0-0', 's')
  expect(one.messages).toMatchObject([
    { type: 'events', from: 1, to: 3, conflated: 3, items: [], id: 's' },
    { type: 'live', cursor: '3-30', id: 's' },
  ])
})

it('moves a watcher on that is told of states only, so that it can resume', async () => {
  const { room, messages } = await seated({ seq: 1, at: 10 }, 'state')
  for (let seq = 2; seq <= 250; seq++) room.hear(message(seq, seq * 10))
  room.hear(message(251, 9_999, 'COMPLETED'))
  let seq = 1
  for (const message of messages.filter(({ type }) => type === 'events')) {
    expect(message.from).toBe(seq + 1)
    expect(message.items.length + (message.conflated ?? 0)).toBe(message.to - message.from + 1)
    expect(message.to - message.from).toBeLessThan(150)
    seq = message.to
  }
  expect(seq).toBe(251)
})

it('tells a crowd once a round, progress folded and counted, state changes never', async () => {
  const { room, snapshot, since } = setUp()
  snapshot.mockResolvedValue(snapshotAt(1, 10))
  const crowd = Array.from({ length: 1_000 }, () => watcher())
  for (const { member } of crowd) room.expect(member)
  await Promise.all(crowd.map(({ member }) => room.join(member, undefined, undefined)))
  for (const seq of [2, 3]) room.hear(message(seq, seq * 10))
  room.hear(message(4, 40))
  room.hear(message(5, 50, 'COMPLETED'))
  await settle()
  await settle()
  for (const { messages } of crowd) {
    expect(messages.slice(2)).toMatchObject([
      { type: 'events', from: 2, to: 5, cursor: '5-50', conflated: 2 },
      { type: 'complete', state: 'COMPLETED' },
    ])
    expect(messages[2]?.items.map((item: { seq: number }) => item.seq)).toEqual([4, 5])
  }
  expect(since).not.toHaveBeenCalled()
  expect(snapshot).toHaveBeenCalledTimes(1)
})

it('serves a rush that comes one after the other by one read, and what was heard since', async () => {
  const { room, snapshot, since } = setUp()
  snapshot.mockResolvedValueOnce(snapshotAt(1, 10))
  const first = Array.from({ length: 16 }, () => watcher())
  for (const { member } of first) room.expect(member)
  await Promise.all(first.map(({ member }) => room.join(member, undefined, undefined)))
  for (const seq of [2, 3]) room.hear(message(seq, seq * 10))
  const late = watcher()
  room.expect(late.member)
  await room.join(late.member, undefined, undefined)
  expect(late.messages).toMatchObject([{ type: 'snapshot', seq: 1 }, { type: 'live' }, { from: 2, to: 3 }])
  // More than is remembered: it is read again.
  for (let seq = 4; seq <= 100; seq++) room.hear(message(seq, seq * 10))
  snapshot.mockResolvedValueOnce(snapshotAt(100, 1_000))
  const later = watcher()
  room.expect(later.member)
  await room.join(later.member, undefined, undefined)
  expect(later.messages).toMatchObject([{ type: 'snapshot', seq: 100 }, { type: 'live' }])
  expect(since).not.toHaveBeenCalled()
})

it('reads nothing of a job that Redis has left alone, and tells what happens from then on', async () => {
  const { room, since, isLast, messages } = await seated({ seq: 5, at: 50 })
  isLast.mockResolvedValueOnce(true)
  room.lost()
  const recovered = room.recovered()
  room.hear(message(6, 60))
  await recovered
  room.hear(message(7, 70))
  expect(isLast).toHaveBeenCalledWith('j', '5-50')
  expect(since).not.toHaveBeenCalled()
  expect(messages.map(({ from, to }) => [from, to])).toEqual([
    [6, 6],
    [7, 7],
  ])
})
