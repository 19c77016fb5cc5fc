// What any message gets for an answer, the limits that `welcome` tells, and signs of life.
import { must, skip } from '../outcome.ts'
import type { Bench, Check } from '../run.ts'

const limitsOf = async (bench: Bench): Promise<Record<string, number>> => {
  const client = await bench.open()
  return (await client.find('`welcome`', ({ type }) => type === 'welcome')).limits
}

/** A limit that a gateway need not have, or may have far away. */
const limit = async (bench: Bench, name: string, upTo: number): Promise<number> => {
  const value = (await limitsOf(bench))[name]
  if (value === undefined) return skip(`\`welcome\` tells no limit ${name}`)
  return value > upTo ? skip(`${value} is more than is tried here`) : value
}

const BAD = [
  'nonsense',
  'null',
  '[]',
  '{"type":"dance"}',
  '{"type":"subscribe"}',
  '{"type":"ping","extra":1}',
  '{"type":"subscribe","job":"a}b"}',
  '{"type":"subscribe","job":"a","cursor":"12"}',
]

export const messages: Check[] = [
  {
    name: 'messages/ping',
    promise: '`ping` is answered by `pong` with the same id',
    run: async (bench) => {
      const client = await bench.open()
      client.send({ type: 'ping', id: 'p1' })
      const pong = await client.next('pong')
      must(pong.id === 'p1', 'the id comes back', pong)
    },
  },
  {
    name: 'messages/array',
    promise: 'a frame is one object or an array of objects, each answered in its turn',
    run: async (bench) => {
      const client = await bench.open()
      client.send([
        { type: 'ping', id: 'a' },
        { type: 'dance', id: 'b' },
        { type: 'ping', id: 'c' },
      ])
      for (const [type, id] of [
        ['pong', 'a'],
        ['error', 'b'],
        ['pong', 'c'],
      ] as const) {
        const message = await client.next(type)
        must(message.id === id, `${type} of ${id}`, message)
      }
    },
  },
  {
    name: 'messages/bad-request',
    promise: 'a malformed message gets `bad_request`, not retryable, and the connection lives on',
    run: async (bench) => {
      const client = await bench.open()
      for (const text of BAD) {
        client.send(text)
        const error = await client.next('error')
        must(error.code === 'bad_request' && error.retryable === false, `bad_request for ${text}`, error)
      }
      await client.settle()
    },
  },
  {
    name: 'messages/too-many-errors',
    promise: 'too many malformed messages close the connection with 4010',
    run: async (bench) => {
      const errors = (await limitsOf(bench)).errors ?? 10
      const client = await bench.open()
      for (let i = 0; i < errors; i++) client.send('nonsense')
      const code = await client.end()
      must(code === 4010, 'close code 4010', code)
    },
  },
  {
    name: 'messages/binary',
    promise: 'frames are text; a binary one closes the connection with 1003',
    run: async (bench) => {
      const client = await bench.open()
      client.socket.send(Buffer.from('{"type":"ping"}'))
      const code = await client.end()
      must(code === 1003, 'close code 1003', code)
    },
  },
  {
    name: 'messages/unsubscribe-unknown',
    promise: 'an end to what was not watched gets `not_found`',
    run: async (bench) => {
      const client = await bench.open()
      client.send({ type: 'unsubscribe', job: 'never-watched', id: 'u' })
      const error = await client.next('error')
      must(error.code === 'not_found' && error.id === 'u', 'not_found with the id', error)
    },
  },
  {
    name: 'limits/message-bytes',
    promise: 'a message as large as `welcome` allows is taken, a larger one closes with 1009 or 4009',
    run: async (bench) => {
      const bytes = await limit(bench, 'messageBytes', 1_048_576)
      const client = await bench.open()
      const text = JSON.stringify({ type: 'ping', id: 'whole' })
      client.send(text.padEnd(bytes))
      await client.until('`pong`', () => client.messages.find(({ id }) => id === 'whole'))
      client.send(text.padEnd(bytes + 1))
      const code = await client.end()
      must(code === 1009 || code === 4009, 'close code 1009 or 4009', code)
    },
  },
  {
    name: 'limits/jobs-per-subscribe',
    promise: 'one subscribe names as many jobs as `welcome` allows; one more is a bad request',
    run: async (bench) => {
      const jobs = await limit(bench, 'jobsPerSubscribe', 1_000)
      const client = await bench.open()
      const ids = Array.from({ length: jobs + 1 }, (_, i) => `none-${i}`)
      client.send({ type: 'subscribe', jobs: ids, id: 'many' })
      const error = await client.next('error')
      must(error.code === 'bad_request' && error.id === 'many', 'bad_request with the id', error)
    },
  },
  {
    name: 'limits/subscriptions',
    promise: 'a connection watches as many jobs as `welcome` allows; one more gets `limit_exceeded`',
    run: async (bench) => {
      const most = await limit(bench, 'subscriptions', 1_000)
      const batch = await limit(bench, 'jobsPerSubscribe', 1_000)
      const jobs = await Promise.all(Array.from({ length: most + 1 }, () => bench.driver.create()))
      const client = await bench.open()
      for (const job of jobs) client.expect(job)
      for (let i = 0; i < jobs.length; i += batch)
        client.send({ type: 'subscribe', jobs: jobs.slice(i, i + batch) })
      const error = await client.find('`error`', ({ type }) => type === 'error')
      must(error.code === 'limit_exceeded' && error.job === jobs.at(-1), 'limit_exceeded for the last', error)
      await client.until('`live` for each of the others', () =>
        client.messages.filter(({ type }) => type === 'live').length === most ? true : undefined,
      )
    },
  },
  {
    name: 'limits/commands',
    promise:
      'beyond the burst that `welcome` allows comes `rate_limited`, retryable; who goes on is closed with 4204',
    run: async (bench) => {
      const burst = await limit(bench, 'commandBurst', 10_000)
      const client = await bench.open()
      for (let i = 0; i < burst; i++) client.send({ type: 'ping' })
      // What the bucket takes up again while these are sent is little.
      for (let i = 0; i < burst + 100; i++) client.send({ type: 'ping' })
      const error = await client.find('`rate_limited`', ({ type }) => type === 'error')
      must(error.code === 'rate_limited' && error.retryable && error.retryAfterMs > 0, 'rate_limited', error)
      const answered = client.messages.filter(({ type }) => type === 'pong').length
      must(answered >= burst, `the first ${burst} are answered`, answered)
      for (let i = 0; i < burst * 2; i++) client.send({ type: 'ping' })
      const code = await client.end()
      must(code === 4204, 'close code 4204', code)
    },
  },
  {
    name: 'heartbeat/both',
    promise: 'every heartbeatMs comes a WebSocket ping and a `heartbeat` message',
    run: async (bench) => {
      const client = await bench.open()
      const { heartbeatMs } = await client.find('`welcome`', ({ type }) => type === 'welcome')
      if (heartbeatMs > bench.patienceMs) skip(`one takes ${heartbeatMs} ms (give --patience)`)
      await client.find('`heartbeat`', ({ type }) => type === 'heartbeat', heartbeatMs + bench.waitMs)
      await client.until('a WebSocket ping', () => client.pings || undefined)
    },
  },
  {
    name: 'heartbeat/no-pong',
    promise: 'a connection that answers no ping within 10 s is closed with 4202',
    run: async (bench) => {
      const client = await bench.open({ pongs: false })
      const { heartbeatMs } = await client.find('`welcome`', ({ type }) => type === 'welcome')
      if (heartbeatMs > bench.patienceMs) skip(`one takes ${heartbeatMs} ms (give --patience)`)
      const code = await client.end(heartbeatMs + 10_000 + bench.waitMs)
      must(code === 4202, 'close code 4202', code)
    },
  },
]
