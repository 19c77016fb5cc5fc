// The six promises of protocol.md by name, where they are more than one answer. Promise 1 is resume/every-position.
import type { Client, Message } from '../client.ts'
import { must, short, skip } from '../outcome.ts'
import type { Bench, Check } from '../run.ts'
import { itemsOf, watched } from './subscriptions.ts'

/** Progress reports in number, each of some bytes, in order. */
const flood = async ({ driver }: Bench, job: string, count: number, bytes: number): Promise<void> => {
  const filler = 'x'.repeat(bytes)
  for (let i = 0; i < count; i += 50)
    await Promise.all(Array.from({ length: Math.min(50, count - i) }, () => driver.progress(job, filler)))
}

const lastCursor = (client: Client): string | undefined =>
  client.messages.findLast((m) => m.cursor !== undefined)?.cursor

/** How a client that does not read may be cut off. 1006: the close frame was stuck behind what it did not read. */
const CUT_OFF = [4203, 4202, 1006]

/** What a client that fell behind is told until `complete`, by this connection or, where it is cut off, one after it. */
const toTheEnd = async (bench: Bench, client: Client, job: string, detail = 'all'): Promise<Message[]> => {
  const over = () => client.messages.some(({ type }) => type === 'complete') || client.code !== undefined
  await Promise.race([client.closed, client.until('`complete`', () => (over() ? true : undefined))])
  if (client.code === undefined) return client.messages
  must(CUT_OFF.includes(client.code), 'close code 4203, or 4202', client.code)
  const again = await bench.open()
  const cursor = lastCursor(client)
  again.subscribe(job, { detail, ...(cursor === undefined ? {} : { cursor }) })
  await again.find('`complete`', ({ type }) => type === 'complete')
  return [...client.messages, ...again.messages]
}

export const promises: Check[] = [
  {
    name: 'promise/2-in-order-once',
    promise: 'across reconnects, a client that keeps the last cursor sees each event once, in order',
    run: async (bench) => {
      const job = await bench.driver.create()
      const seen: number[] = []
      let cursor = '0-0'
      let client = await bench.open()
      const driven = (async () => {
        await bench.driver.claim(job)
        for (let i = 1; i <= 60; i++) await bench.driver.progress(job, i)
        await bench.driver.complete(job, 60)
      })()
      // A failure is told by what waits for it below.
      driven.catch(() => undefined)
      for (let round = 0; ; round++) {
        client.subscribe(job, { cursor })
        const enough = () =>
          client.messages.some((m) => m.type === 'complete') || itemsOf(client, job).length >= 7
        await client.until('more events', () =>
          enough() || (round > 0 && client.messages.some((m) => m.type === 'reset')) ? true : undefined,
        )
        must(!client.messages.some((m) => m.type === 'reset'), 'no reset', client.messages)
        const over = client.messages.some((m) => m.type === 'complete')
        // Nothing is taken in after this look.
        seen.push(...itemsOf(client, job).map(({ seq }) => seq))
        cursor = lastCursor(client) ?? cursor
        client.cut()
        if (client.broken) throw client.broken
        if (over) break
        client = await bench.open()
      }
      await driven
      must(short(seen) === short(Array.from({ length: 63 }, (_, i) => i + 1)), 'each of 63 events once', seen)
    },
  },
  {
    name: 'promise/3-state-kept',
    promise: 'state changes are never folded, also for a client that falls behind; what is folded is told',
    run: async (bench) => {
      const job = await bench.driver.create()
      const client = await bench.open()
      client.subscribe(job, { detail: 'latest' })
      await client.find('`live`', ({ type }) => type === 'live')
      await bench.driver.claim(job)
      client.socket.pause()
      await flood(bench, job, 800, 7_000)
      await bench.driver.complete(job, 1)
      client.socket.resume()
      const told = await toTheEnd(bench, client, job, 'latest')
      if (told.some((m) => m.type === 'reset')) return
      const states = told
        .flatMap((m) => (m.type === 'events' ? m.items : []))
        .filter(({ type }) => type === 'state')
        .map(({ state }) => state)
      must(short(states) === short(['PROCESSING', 'COMPLETED']), 'both changes of state', states)
    },
  },
  {
    name: 'promise/4-complete-once',
    promise: '`complete` comes after the terminal event, exactly once per subscription, and nothing after it',
    run: async (bench) => {
      const { client, job } = await watched(bench)
      await client.settle()
      const of = client.messages.filter((m) => m.job === job)
      must(of.filter(({ type }) => type === 'complete').length === 1, 'one `complete`', of)
      must(
        of.at(-1)?.type === 'complete' && of.at(-2)?.items.at(-1).state === 'COMPLETED',
        'the terminal event, then it',
        of,
      )
      // The subscription is over, so its end can’t be asked for.
      client.send({ type: 'unsubscribe', job, id: 'u' })
      const error = await client.next('error')
      must(error.code === 'not_found', 'nothing is left to unsubscribe', error)
    },
  },
  {
    name: 'promise/5-unknown-is-forbidden',
    promise: 'unknown job and forbidden job give the same answer',
    run: async (bench) => {
      if (!bench.token || !bench.tokenPerJob) skip('needs tokens for single jobs (give --token-command)')
      const mine = await bench.driver.create()
      const other = await bench.driver.create()
      const client = await bench.open({ token: await bench.token?.([mine]) })
      client.subscribe(mine)
      await client.find('`live`', ({ type }) => type === 'live')
      const answers: string[] = []
      for (const job of [other, 'no-such-job']) {
        client.subscribe(job)
        const { job: _, ...answer } = await client.next('error')
        answers.push(JSON.stringify(answer))
      }
      must(
        answers[0] === answers[1] && answers[0]?.includes('not_found') === true,
        'the same not_found',
        answers,
      )
    },
  },
  {
    name: 'promise/6-no-harm',
    promise: 'a client that does not read harms no other',
    run: async (bench) => {
      const job = await bench.driver.create()
      const [stalled, prompt] = [await bench.open(), await bench.open()]
      for (const client of [stalled, prompt]) {
        client.subscribe(job)
        await client.find('`live`', ({ type }) => type === 'live')
      }
      stalled.socket.pause()
      await bench.driver.claim(job)
      await flood(bench, job, 800, 7_000)
      await bench.driver.complete(job, 1)
      await prompt.find('`complete`, though another does not read', ({ type }) => type === 'complete')
      // The stalled one resumes where it was cut off, or is told the rest.
      stalled.socket.resume()
      await toTheEnd(bench, stalled, job)
    },
  },
]
