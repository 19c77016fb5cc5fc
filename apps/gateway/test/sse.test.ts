// Server-sent events: the messages of a WebSocket over plain HTTP, resumed by Last-Event-ID, as curl, a browser and a
// reader that does not read see them.
import { get, type IncomingMessage } from 'node:http'
import { connect } from 'node:net'
import { findProgram } from '@jobs/provision'
import { keysOf } from '@jobs/state'
import { startProcess, until } from '@jobs/testkit'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { Follower, type Harness, startHarness } from './harness.ts'

let h: Harness
beforeAll(async () => {
  h = await startHarness()
})
afterAll(() => h.stop())

const url = (id: string) => `http://127.0.0.1:${h.gateway.port}/v1/jobs/${id}/events`

interface Reader {
  readonly response: IncomingMessage
  /** What came so far. */
  text: string
  ended: boolean
  lastId: string | undefined
}

const open = (id: string, lastId?: string): Promise<Reader> =>
  new Promise((resolve, reject) => {
    const headers = lastId === undefined ? {} : { 'last-event-id': lastId }
    get(url(id), { headers, agent: false }, (response) => {
      const reader: Reader = {
        response,
        text: '',
        ended: false,
        get lastId() {
          // Only what ends with an empty line is an event.
          const whole = reader.text.slice(0, reader.text.lastIndexOf('\n\n') + 1)
          return [...whole.matchAll(/^id: (.*)$/gm)].at(-1)?.[1] ?? lastId
        },
      }
      response.setEncoding('utf8')
      response.on('data', (chunk) => {
        reader.text += chunk
      })
      response.on('error', () => undefined)
      response.on('close', () => {
        reader.ended = true
      })
      resolve(reader)
    }).on('error', reject)
  })

// biome-ignore lint/suspicious/noExplicitAny: tests look into messages freely.
const messagesOf = ({ text }: Reader): Record<string, any>[] =>
  text
    .slice(0, text.lastIndexOf('\n\n') + 1)
    .split('\n')
    .filter((line) => line.startsWith('data: '))
    .flatMap((line) => JSON.parse(line.slice(6)))

const report = async (id: string, count: number) => {
  const held = await h.claim(id)
  for (let op = 1; op <= count; op++) await h.jobs.transitions.progress(held, op, String(op))
  return held
}

it('tells a snapshot, live, each event, and ends after complete; a reader that comes back gets 204', async () => {
  const id = await h.enqueue()
  const reader = await open(id)
  expect(reader.response.statusCode).toBe(200)
  expect(reader.response.headers).toMatchObject({
    'content-type': 'text/event-stream; charset=utf-8',
    'cache-control': 'no-store',
  })
  await until(() => messagesOf(reader).some(({ type }) => type === 'live'))
  const held = await report(id, 3)
  await h.jobs.transitions.complete(held, '"end"')
  await until(() => reader.ended)
  expect(reader.text).toMatch(/^retry: \d+\n\n/)
  const messages = messagesOf(reader)
  expect([...new Set(messages.map(({ type }) => type))]).toEqual(['snapshot', 'live', 'events', 'complete'])
  const seqs = messages.flatMap(({ items }) => (items ?? []).map(({ seq }: { seq: number }) => seq))
  expect(seqs).toEqual([2, 3, 4, 5, 6])
  expect(reader.lastId).toBe(messages.at(-1)?.cursor)

  const again = await open(id, reader.lastId)
  expect(again.response.statusCode).toBe(204)
  // Who never saw it sees it all.
  const late = await open(id)
  await until(() => late.ended)
  expect(messagesOf(late).map(({ type }) => type)).toEqual(['snapshot', 'complete'])
  const whole = await open(id, '0-0')
  await until(() => whole.ended)
  expect(messagesOf(whole).map(({ type }) => type)).toEqual(['events', 'complete'])
})

it('goes on after the last event that was read, over any number of connections', async () => {
  const id = await h.enqueue()
  const follower = new Follower(id, '0-0')
  let lastId: string | undefined = '0-0'
  let ending = false
  const held = await h.claim(id)
  const job = (async () => {
    let op = 0
    while (!ending) {
      await h.jobs.transitions.progress(held, ++op, `{"done":${op}}`)
      // No reader falls behind by more than a replay.
      await until(() => ending || op - follower.seq < 200)
    }
    await h.jobs.transitions.complete(held, '1')
    return op + 3
  })()
  const read = async (enough: (reader: Reader) => boolean) => {
    const reader: Reader = await open(id, lastId)
    await until(() => enough(reader) || reader.ended)
    const taken = { ...reader, lastId: reader.lastId }
    reader.response.destroy()
    lastId = taken.lastId
    follower.watcher = { messages: messagesOf(taken) } as never
    follower.resume()
  }
  for (let drop = 0; drop < 40; drop++) {
    const bytes = (drop * 701) % 2_000
    await read(({ text }) => text.length > bytes)
  }
  ending = true
  const count = await job
  while (!follower.complete) await read(() => false)
  expect(follower.resets).toEqual([])
  expect(follower.told).toEqual(Array.from({ length: count }, (_, i) => i + 1))
})

it.each(['12', 'abc', '1-1, 2-2'])(
  'refuses the Last-Event-ID %s, and takes an empty one for none',
  async (lastId) => {
    const id = await h.enqueue()
    expect((await open(id, lastId)).response.statusCode).toBe(400)
    const reader = await open(id, '')
    await until(() => messagesOf(reader).some(({ type }) => type === 'snapshot'))
    reader.response.destroy()
  },
)

it('tells reset where the position is of another history', async () => {
  const id = await h.enqueue()
  const reader = await open(id, '1-5')
  await until(() => messagesOf(reader).length === 3)
  expect(messagesOf(reader)).toMatchObject([
    { type: 'reset', reason: 'diverged' },
    { type: 'snapshot' },
    { type: 'live' },
  ])
  reader.response.destroy()
})

it('cuts a reader that does not read, and lets the others be', async () => {
  const id = await h.enqueue()
  const [slow, quick] = [await open(id), await open(id)]
  slow.response.pause()
  const held = await h.claim(id)
  const line = JSON.stringify('x'.repeat(8_000))
  let op = 0
  // Log lines are never folded away.
  await until(
    async () => {
      for (let i = 0; i < 50; i++) await h.jobs.transitions.log(held, ++op, line)
      return slow.response.socket.destroyed || slow.response.errored || op > 2_000
    },
    { timeoutMs: 40_000 },
  )
  slow.response.resume()
  await until(() => slow.ended)
  expect(slow.response.complete).toBe(false)
  await h.jobs.transitions.complete(held, '1')
  await until(() => quick.ended)
  expect(messagesOf(quick).at(-1)).toMatchObject({ type: 'complete', job: id })
})

it('passes on what it cannot read: an event without a value, and a progress that is no JSON', async () => {
  const id = await h.enqueue()
  const reader = await open(id)
  await until(() => messagesOf(reader).some(({ type }) => type === 'live'))
  const events = keysOf(h.jobs.namespace, 0).events(id)
  for (const stored of ['note 1', 'progress 1 {'])
    await h.redis
      .client()
      .publish(events, `${reader.lastId?.replace('1-', stored[0] === 'n' ? '2-' : '3-')} ${stored}`)
  await until(() => reader.text.includes('"from":3,"to":3'))
  expect(reader.text).toContain('"items":[{"seq":2,')
  expect(reader.text).toContain('"type":"note","attempt":1}]')
  expect(reader.lastId).toMatch(/^3-/)
  reader.response.destroy()
  expect(await h.ready()).toBe(true)
})

it.each([2, 300])(
  'holds nothing of %i requests that were sent at once, once they have gone',
  async (count) => {
    const id = await h.enqueue()
    const socket = connect(h.gateway.port, '127.0.0.1')
    socket.on('error', () => undefined)
    socket.write(`GET /v1/jobs/${id}/events HTTP/1.1\r\nHost: localhost\r\n\r\n`.repeat(count))
    // A flood is cut; of a few the first is served.
    await new Promise((resolve) => socket.once(count > 16 ? 'close' : 'data', resolve))
    socket.destroy()
    await until(async () => (await h.metrics()).jobs_gateway_watchers === 0, { what: 'all of them gone' })
    expect((await h.metrics()).jobs_gateway_sockets).toBe(0)
  },
)

const curl = findProgram('curl')
it.runIf(curl !== undefined)('is read by curl -N', async () => {
  const id = await h.enqueue()
  const reading = startProcess(curl as string, ['-sN', url(id)])
  await reading.line((text) => text.includes('"type":"live"'))
  await h.jobs.cancel(id)
  await reading.line((text) => text.includes('"type":"complete"'))
  expect(await reading.exited).toMatchObject({ code: 0 })
})
