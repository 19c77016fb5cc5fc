// What may stand in a client's message, and what not: everything else is told `bad_request` and costs nothing more, and the
// connection lives on until there were ten.
import { readFile } from 'node:fs/promises'
import { ServerMessage } from '@jobs/protocol'
import { until, type Watcher } from '@jobs/testkit'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type Harness, startHarness } from './harness.ts'

let h: Harness
let watcher: Watcher
let spent = 0
beforeAll(async () => {
  h = await startHarness()
})
afterAll(() => h.stop())

/** A connection that has fewer than ten errors behind it. */
const listener = async (): Promise<Watcher> => {
  if (!watcher || ++spent % 9 === 0) {
    watcher?.terminate()
    watcher = await h.watch()
  }
  return watcher
}

/** What is answered, to a message that is followed by a ping. */
const answersTo = async (text: string): Promise<unknown[]> => {
  const to = await listener()
  const before = to.messages.length
  to.send(text)
  to.send('{"type":"ping","id":"after"}')
  await to.next((m) => m.type === 'pong' && m.id === 'after')
  const answers = to.messages.slice(before).filter((m) => m.id !== 'after' && m.type !== 'welcome')
  for (const answer of answers) expect(ServerMessage.safeParse(answer).success).toBe(true)
  return answers
}

const BAD = [expect.objectContaining({ type: 'error', code: 'bad_request', retryable: false })]

describe('a message is refused as bad_request', () => {
  it.each([
    ['is no JSON', '{'],
    ['is empty', ''],
    ['begins with a byte order mark', '\ufeff{"type":"ping"}'],
    ['is null', 'null'],
    ['is a number', '7'],
    ['is a string', '"ping"'],
    ['is true', 'true'],
    ['is an empty list', '[]'],
    ['is a list in a list', '[[{"type":"ping"}]]'],
    ['is 101 messages', JSON.stringify(Array.from({ length: 101 }, () => ({ type: 'ping' })))],
    ['has no type', '{}'],
    ['has an unknown type', '{"type":"dance"}'],
    ['has a type of the server', '{"type":"welcome"}'],
    ['has a list as its type', '{"type":["ping"]}'],
    ['has a type that every object has', '{"type":"constructor"}'],
    ['has __proto__ as its type', '{"type":"__proto__"}'],
    ['lacks a field', '{"type":"subscribe"}'],
    ['has an extra field', '{"type":"ping","extra":1}'],
    ['has the key __proto__', '{"type":"ping","__proto__":{"admin":true}}'],
    ['has its type in __proto__', '{"__proto__":{"type":"ping"}}'],
    ['has the key constructor', '{"type":"ping","constructor":{"prototype":{"admin":true}}}'],
    ['has the key prototype', '{"type":"ping","prototype":{"admin":true}}'],
    ['names job and jobs', '{"type":"subscribe","job":"a","jobs":["b"]}'],
    ['names no jobs', '{"type":"subscribe","jobs":[]}'],
    ['names 101 jobs', JSON.stringify({ type: 'subscribe', jobs: Array.from({ length: 101 }, () => 'j') })],
    ['has a cursor for several jobs', '{"type":"subscribe","jobs":["a"],"cursor":"0-0"}'],
    ['asks for an unknown detail', '{"type":"subscribe","job":"a","detail":"everything"}'],
    ['has an id that is a number', '{"type":"ping","id":1}'],
    ['has an id that is infinite', '{"type":"ping","id":1e400}'],
    ['has an id beyond what numbers tell apart', '{"type":"ping","id":9007199254740993}'],
    ['has an empty id', '{"type":"ping","id":""}'],
    ['has an id of 129 characters', `{"type":"ping","id":"${'x'.repeat(129)}"}`],
    ['is 16 KB of open lists', '['.repeat(16_384)],
    ['is 8 K lists in one another', '['.repeat(8_000) + ']'.repeat(8_000)],
    ['is 2 K objects in one another', `${'{"a":'.repeat(2_000)}1${'}'.repeat(2_000)}`],
    [
      'has a thousand unknown keys',
      JSON.stringify(Object.fromEntries(Array.from({ length: 1_000 }, (_, i) => [i, 0]))),
    ],
  ])('when it %s', async (_, text) => {
    expect(await answersTo(text)).toEqual(BAD)
  })

  it.each([
    ['empty', ''],
    ['129 characters', 'x'.repeat(129)],
    ['}', '}'],
    ['a}b', 'a}b'],
    ['{x', '{x'],
    ['{x}', '{x}'],
    ['NUL', '\0'],
    ['NUL at its end', 'a\0'],
    ['a line feed at its end', 'a\n'],
    ['CR LF', 'a\r\nb'],
    ['a path', '../a'],
    ['a pattern', '*'],
    ['a colon', 'a:b'],
    ['a space', 'a b'],
    ['a percent sign', 'a%7Db'],
    ['a right-to-left mark', 'a\u200f'],
    ['an override of direction', '\u202ea'],
    ['a zero-width joiner', 'a\u200db'],
    ['a letter beyond ASCII', 'ä'],
    ['a letter that looks like ASCII', '\u0430'],
    ['a full-width digit', '\uff11'],
    ['a line separator', '\u2028'],
    ['half a surrogate pair', '\ud800'],
    ['a number', 7],
    ['null', null],
    ['a list', ['a']],
    ['an object', { a: 1 }],
  ])('when its job id is %s', async (_, job) => {
    expect(await answersTo(JSON.stringify({ type: 'subscribe', job }))).toEqual(BAD)
    expect(await answersTo(JSON.stringify({ type: 'subscribe', jobs: ['a', job] }))).toEqual(BAD)
    expect(await answersTo(JSON.stringify({ type: 'unsubscribe', job }))).toEqual(BAD)
  })

  it.each([
    '12',
    '',
    '-',
    '1-',
    '-1-0',
    '1--1',
    '0-0-0',
    '01-1',
    '1-01',
    '1.5-1',
    '1e3-1',
    '0x1-1',
    '+1-1',
    ' 1-1',
    '1-1\n',
    `${'9'.repeat(16)}-1`,
    `1-${'9'.repeat(400)}`,
    '\u0663-1',
    '$',
    '>',
    '+',
    5,
    null,
    ['0-0'],
  ])('when its cursor is %j', async (cursor) => {
    expect(await answersTo(JSON.stringify({ type: 'subscribe', job: 'a', cursor }))).toEqual(BAD)
  })
})

describe('a message', () => {
  it('pollutes nothing', async () => {
    await answersTo('{"type":"ping","__proto__":{"id":"polluted","admin":true}}')
    expect(await answersTo('{"type":"ping"}')).toEqual([{ type: 'pong' }])
    const fresh = await h.watch()
    expect(Object.keys(await fresh.next('welcome'))).not.toContain('admin')
    fresh.terminate()
  })

  it('has the last of two values of one key', async () => {
    expect(await answersTo('{"type":"dance","type":"ping","id":"a","id":"b"}')).toEqual([
      { type: 'pong', id: 'b' },
    ])
  })

  it('may have half a surrogate pair in its id, which comes back as it was', async () => {
    expect(await answersTo('{"type":"ping","id":"\\ud800"}')).toEqual([{ type: 'pong', id: '\ud800' }])
  })

  it('that is refused is answered with its id, where it has one', async () => {
    expect(await answersTo('{"type":"dance","id":"d1"}')).toEqual([
      expect.objectContaining({ code: 'bad_request', id: 'd1' }),
    ])
    for (const [answer] of [await answersTo('{"type":"dance","id":{}}'), await answersTo('"id"')])
      expect(answer).not.toHaveProperty('id')
  })

  it('says in words what is wrong with it, and repeats little of it', async () => {
    const [answer] = (await answersTo(`{"type":"ping","${'k'.repeat(10_000)}":1}`)) as { message: string }[]
    expect(answer?.message).toContain('not understood')
    expect(answer?.message.length).toBeLessThan(400)
  })

  it('of the worst shape costs less than 5 ms of CPU', async () => {
    const cpuMs = async () => {
      const fields = (await readFile(`/proc/${h.gateway.pid}/stat`, 'utf8')).split(') ')[1]?.split(' ') ?? []
      // User and system time, in ticks of 10 ms.
      return (Number(fields[11]) + Number(fields[12])) * 10
    }
    const shapes = [
      '['.repeat(16_384),
      '['.repeat(8_192) + ']'.repeat(8_192),
      `${'{"a":'.repeat(2_700)}1${'}'.repeat(2_700)}`,
      JSON.stringify(Object.fromEntries(Array.from({ length: 1_200 }, (_, i) => [`key${i}`, 0]))),
      JSON.stringify({ type: 'subscribe', jobs: Array.from({ length: 8_000 }, () => 7) }),
      `{"type":"subscribe","job":"${'a'.repeat(16_000)}"}`,
      `{"type":"subscribe","job":"a","cursor":"${'0'.repeat(16_000)}-1"}`,
      `{"type":"ping","id":"${'\\u0000'.repeat(2_700)}"}`,
      `{"type":"ping","id":${'9'.repeat(16_000)}}`,
    ]
    const clients = await Promise.all(Array.from({ length: 20 }, () => h.watch()))
    const before = await cpuMs()
    for (const client of clients) for (const shape of shapes) client.send(shape)
    for (const client of clients) client.send('{"type":"ping"}')
    await Promise.all(clients.map((client) => client.next('pong')))
    expect(((await cpuMs()) - before) / (clients.length * shapes.length)).toBeLessThan(25)
    for (const client of clients) client.terminate()
  })

  it('is one of ten bad ones before the connection is closed with 4010, in one frame or in many', async () => {
    const many = await h.watch()
    for (let i = 0; i < 9; i++) many.send('nonsense')
    many.send({ type: 'ping' })
    await many.next('pong')
    many.send('nonsense')
    expect((await many.closed).code).toBe(4010)
    const one = await h.watch()
    one.send(Array.from({ length: 50 }, () => ({ type: 'dance' })))
    expect((await one.closed).code).toBe(4010)
    for (const { messages } of [many, one])
      expect(messages.filter((m) => m.code === 'bad_request')).toHaveLength(10)
  })
})

describe('a subscription', () => {
  it('that was never made can be ended a hundred times, at no cost to Redis', async () => {
    const reads = async () => {
      const info = await h.redis.client().info('commandstats')
      return /cmdstat_(hgetall|xrange|subscribe|unsubscribe|multi|exec):/g[Symbol.match](info)?.length ?? 0
    }
    const before = await reads()
    const client = await h.watch()
    client.send(Array.from({ length: 90 }, (_, i) => ({ type: 'unsubscribe', job: `j${i}`, id: `u${i}` })))
    await client.next((m) => m.id === 'u89')
    const errors = client.messages.filter((m) => m.type === 'error')
    expect(errors).toHaveLength(90)
    expect(errors.every((m) => m.code === 'not_found' && m.job === `j${m.id.slice(1)}`)).toBe(true)
    expect(await reads()).toBe(before)
    client.terminate()
  })

  it('is replayed as often as commands are granted, not a hundred times a second: rate_limited, then 4204', async () => {
    const id = await h.enqueue()
    const client = await h.watch()
    const again = [
      { type: 'subscribe', job: id, cursor: '0-0' },
      { type: 'unsubscribe', job: id },
    ]
    for (let i = 0; i < 200; i++) client.send(again)
    expect((await client.closed).code).toBe(4204)
    const codes = client.messages.filter(({ type }) => type === 'error').map(({ code }) => code)
    expect(new Set(codes)).toEqual(new Set(['rate_limited']))
    // None at all, where each subscription ended before it was read.
    const replays = (await h.metrics())['jobs_gateway_reads_total{kind="replay"}']
    expect(replays).toBeLessThanOrEqual(100)
  })

  it.each([
    ['ahead of every event', (_: string) => '999999999999999-1', 'ahead'],
    ['ahead in time', (cursor: string) => `${cursor.split('-')[0]}-999999999999999`, 'diverged'],
    ['of another history', (cursor: string) => `${cursor.split('-')[0]}-1`, 'diverged'],
  ])('from a cursor %s is reset', async (_, cursorOf, reason) => {
    const id = await h.enqueue()
    const cursor = (await h.jobs.get(id))?.cursor as string
    const client = await h.watch()
    client.send({ type: 'subscribe', job: id, cursor: cursorOf(cursor) })
    expect(await client.next('reset')).toMatchObject({ reason })
    expect(await client.next()).toMatchObject({ type: 'snapshot', cursor })
    client.terminate()
  })

  it('tells markup, separators and control characters as data', async () => {
    const id = await h.enqueue()
    const client = await h.watch()
    client.send({ type: 'subscribe', job: id })
    await client.next('live')
    const nasty = [
      '</script><script>alert(1)</script>',
      '\u2028\u2029',
      '\0\x1b[31m',
      '\u202e',
      '\ud800',
      '__proto__',
    ]
    const held = await h.claim(id)
    await h.jobs.transitions.progress(held, 1, JSON.stringify({ nasty }))
    await until(() => client.messages.some((m) => m.type === 'events' && m.to === 3), {
      what: 'the progress',
    })
    const items = client.messages.filter((m) => m.type === 'events').flatMap((m) => m.items)
    expect(items.at(-1).progress).toEqual({ nasty })
    client.terminate()
  })
})
