// The races of a tag's room, each made to happen: the source answers when the test says so.
import { noCounts, type StateCounts, type TagCounts } from '@jobs/state'
import { expect, it, vi } from 'vitest'
import { TagRoom, type TagSource } from '../src/rooms/tag-room.ts'

const read = (version: number, some: Partial<StateCounts>): TagCounts => ({
  version,
  counts: { ...noCounts(), ...some },
})

// biome-ignore lint/suspicious/noExplicitAny: tests look into messages freely.
type Message = Record<string, any>

const watcher = () => {
  const messages: Message[] = []
  const member = { hasRoom: true, say: (text: string) => void messages.push(JSON.parse(text)) }
  return { member, messages, types: () => messages.map(({ type }) => type) }
}

const settle = async () => {
  for (let i = 0; i < 5; i++) await new Promise<void>((resolve) => setImmediate(resolve))
}

const setUp = async (...reads: TagCounts[]) => {
  const tagCounts = vi.fn<TagSource['tagCounts']>()
  for (const each of reads) tagCounts.mockResolvedValueOnce(each)
  const later = vi.fn<TagSource['later']>()
  const room = new TagRoom('t', { partitions: reads.length, tagCounts, later })
  const one = watcher()
  room.expect(one.member)
  await room.join(one.member, 'x')
  const [part] = room.parts
  if (!part) throw new Error('no part')
  const change = (version: number, from: string, to: string) => part.hear(`${version} j ${from} ${to} 2`)
  return { room, part, change, tagCounts, later, ...one }
}

it('sums what its partitions count, once', async () => {
  const { messages } = await setUp(read(5, { QUEUED: 2 }), read(9, { QUEUED: 1, FAILED: 4 }))
  await settle()
  expect(messages).toMatchObject([{ type: 'counts', id: 'x', counts: { QUEUED: 3, FAILED: 4 } }])
})

it('passes over what was published before the read, and tells what comes after', async () => {
  const { change, messages, types } = await setUp(read(5, { QUEUED: 2 }))
  for (const version of [4, 5]) change(version, '-', 'QUEUED')
  change(6, 'QUEUED', 'PROCESSING')
  await settle()
  expect(types()).toEqual(['counts', 'job'])
  expect(messages[1]).toEqual({
    type: 'job',
    tag: 't',
    job: 'j',
    from: 'QUEUED',
    state: 'PROCESSING',
    seq: 2,
  })
})

it('tells counts anew after a gap, and none of the changes that are in them', async () => {
  const { change, messages, types, tagCounts } = await setUp(read(5, { QUEUED: 2 }))
  tagCounts.mockImplementationOnce(async () => {
    change(8, 'QUEUED', 'PROCESSING')
    change(9, 'PROCESSING', 'COMPLETED')
    return read(8, { PROCESSING: 2 })
  })
  change(7, 'QUEUED', 'PROCESSING')
  await settle()
  change(10, 'PROCESSING', 'FAILED')
  await settle()
  expect(types()).toEqual(['counts', 'counts', 'job'])
  expect(messages[1]).toMatchObject({ folded: 1, counts: { PROCESSING: 1, COMPLETED: 1 } })
})

it('begins with the change that made the set, and reads again when it has heard another first', async () => {
  const { part, types } = await setUp(read(0, {}))
  part.hear('1700000000000 j - QUEUED 1 new')
  part.hear('1700000000001 j QUEUED PROCESSING 2')
  await settle()
  expect(types()).toEqual(['counts', 'job', 'job'])

  // The channel was not heard when the set was made: the subscription had only been asked for.
  const late = await setUp(read(0, {}))
  late.tagCounts.mockResolvedValueOnce(read(1_700_000_000_001, { PROCESSING: 1 }))
  late.part.hear('1700000000001 j QUEUED PROCESSING 2')
  await settle()
  expect(late.types()).toEqual(['counts', 'counts'])
  expect(late.messages[1]).toMatchObject({ counts: { QUEUED: 0, PROCESSING: 1 } })
})

it('takes a number that was there already for another history', async () => {
  const { change, messages, tagCounts } = await setUp(read(5, { QUEUED: 2 }))
  change(6, 'QUEUED', 'PROCESSING')
  tagCounts.mockResolvedValueOnce(read(3, { QUEUED: 1 }))
  change(3, '-', 'QUEUED')
  await settle()
  expect(messages.map(({ type }) => type)).toEqual(['counts', 'job', 'counts'])
  expect(messages[2]).toMatchObject({ counts: { QUEUED: 1, PROCESSING: 0 } })
})

it('tells a watcher that takes nothing counts once it does, with the number of changes left out', async () => {
  const { room, change, member, messages, types } = await setUp(read(5, { QUEUED: 9 }))
  const other = watcher()
  room.expect(other.member)
  await room.join(other.member, undefined)
  member.hasRoom = false
  for (let version = 6; version < 10; version++) change(version, 'QUEUED', 'PROCESSING')
  await settle()
  expect(types()).toEqual(['counts'])
  expect(other.types()).toEqual(['counts', 'job', 'job', 'job', 'job'])
  member.hasRoom = true
  room.catchUp(member)
  change(10, 'QUEUED', 'PROCESSING')
  await settle()
  expect(types()).toEqual(['counts', 'counts', 'job'])
  expect(messages[1]).toMatchObject({ folded: 4, counts: { QUEUED: 5, PROCESSING: 4 } })
})

it('tells counts in place of more changes than one tick is worth', async () => {
  const { change, messages } = await setUp(read(1, { QUEUED: 5_000 }))
  for (let version = 2; version < 3_002; version++) change(version, 'QUEUED', 'PROCESSING')
  await settle()
  expect(messages.slice(1)).toMatchObject([
    { type: 'counts', folded: 3_000, counts: { QUEUED: 2_000, PROCESSING: 3_000 } },
  ])
})

it('tells counts anew when a check shows that jobs have left them, and else nothing', async () => {
  const { part, change, messages, types, tagCounts } = await setUp(read(5, { QUEUED: 2, COMPLETED: 7 }))
  tagCounts.mockImplementationOnce(async () => {
    change(6, 'QUEUED', 'PROCESSING')
    return read(5, { QUEUED: 2, COMPLETED: 7 })
  })
  await part.check()
  await settle()
  expect(types()).toEqual(['counts', 'job'])
  tagCounts.mockResolvedValueOnce(read(6, { QUEUED: 1, PROCESSING: 1, COMPLETED: 3 }))
  await part.check()
  await settle()
  expect(messages[2]).toMatchObject({ type: 'counts', counts: { QUEUED: 1, PROCESSING: 1, COMPLETED: 3 } })
  // Ahead of what was heard: compared when the channel is there, and a gap when it never is.
  tagCounts.mockResolvedValueOnce(read(7, { PROCESSING: 2, COMPLETED: 3 }))
  await part.check()
  change(7, 'QUEUED', 'PROCESSING')
  await settle()
  expect(types().slice(3)).toEqual(['job'])
  tagCounts.mockResolvedValue(read(8, { PROCESSING: 1, COMPLETED: 4 }))
  await part.check()
  await part.check()
  await settle()
  expect(messages.slice(4)).toMatchObject([{ type: 'counts', counts: { PROCESSING: 1, COMPLETED: 4 } }])
})

it('reads again whatever was read while the channel was lost, and asks until it can be', async () => {
  const { part, messages, tagCounts, later } = await setUp(read(5, { QUEUED: 2 }))
  part.lost()
  tagCounts.mockRejectedValueOnce(new Error('away'))
  await expect(part.recovered()).rejects.toThrow('away')
  tagCounts.mockResolvedValueOnce(read(2, { FAILED: 1 }))
  await part.recovered()
  await settle()
  expect(messages[1]).toMatchObject({ type: 'counts', counts: { QUEUED: 0, FAILED: 1 } })
  tagCounts.mockRejectedValueOnce(new Error('away'))
  part.hear('9 j QUEUED FAILED 2')
  await settle()
  expect(later).toHaveBeenCalledOnce()
})
