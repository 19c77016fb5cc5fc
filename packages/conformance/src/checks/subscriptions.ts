// What a watcher is told, from the subscription to its end.
import type { Client, Message } from '../client.ts'
import type { Driver } from '../driver.ts'
import { must, short, skip } from '../outcome.ts'
import type { Bench, Check } from '../run.ts'

/** Changes of a whole life, in order: four events after the first. */
export const live = async (driver: Driver, job: string): Promise<void> => {
  await driver.claim(job)
  await driver.progress(job, { done: 1 })
  await driver.log(job, 'half-way')
  await driver.complete(job, { text: 'all' })
}

/** A job's whole life, watched from before its first move. */
export const watched = async ({ open, driver }: Bench): Promise<{ client: Client; job: string }> => {
  const job = await driver.create()
  const client = await open()
  client.subscribe(job)
  await client.find('`live`', ({ type }) => type === 'live')
  await live(driver, job)
  await client.find('`complete`', ({ type }) => type === 'complete')
  return { client, job }
}

/** Items of the events told for a job so far. */
export const itemsOf = (client: Client, job: string): Message[] =>
  client.messages.filter((m) => m.type === 'events' && m.job === job).flatMap((m) => m.items)

const told = (items: Message[]) => items.map(({ seq, type, state }) => `${seq} ${state ?? type}`).join(', ')

const LIFE = '1 QUEUED, 2 PROCESSING, 3 progress, 4 log, 5 COMPLETED'

const ended = async (driver: Driver): Promise<string> => {
  const job = await driver.create()
  await live(driver, job)
  return job
}

export const subscriptions: Check[] = [
  {
    name: 'subscribe/snapshot-live',
    promise: 'without a cursor: `snapshot`, then `live`; the id is echoed in both',
    run: async ({ open, driver }) => {
      const job = await driver.create()
      const client = await open()
      client.subscribe(job, { id: 's1' })
      const snapshot = await client.next('snapshot')
      must(
        snapshot.job === job && snapshot.state === 'QUEUED' && snapshot.seq === 1 && snapshot.id === 's1',
        'the snapshot of a job just made, with the id',
        snapshot,
      )
      const after = await client.next('live')
      must(
        after.cursor === snapshot.cursor && after.id === 's1',
        '`live` at the same cursor, with the id',
        after,
      )
    },
  },
  {
    name: 'subscribe/events',
    promise: 'after `live` come the events, in order, once, with what they carry',
    run: async ({ open, driver }) => {
      const job = await driver.create()
      const client = await open()
      client.subscribe(job)
      await client.find('`live`', ({ type }) => type === 'live')
      await live(driver, job)
      await client.find('`complete`', ({ type }) => type === 'complete')
      const items = itemsOf(client, job)
      must(told(items) === LIFE.slice('1 QUEUED, '.length), `events ${LIFE}`, told(items))
      must(short(items[1]?.progress) === '{"done":1}', 'the progress told', items[1])
      must(items[2]?.line === 'half-way', 'the line told', items[2])
      must(short(items[3]?.result) === '{"text":"all"}', 'the result told', items[3])
    },
  },
  {
    name: 'subscribe/history',
    promise: '`cursor: "0-0"` asks for the whole history',
    run: async ({ open, driver }) => {
      const job = await driver.create()
      await driver.claim(job)
      const client = await open()
      client.subscribe(job, { cursor: '0-0' })
      await client.find('`live`', ({ type }) => type === 'live')
      must(told(itemsOf(client, job)) === '1 QUEUED, 2 PROCESSING', 'every event', told(itemsOf(client, job)))
      must(!client.messages.some(({ type }) => type === 'snapshot'), 'and no snapshot')
    },
  },
  {
    name: 'subscribe/several',
    promise: '`jobs` watches several at once, and each gets its own answers with the id',
    run: async ({ open, driver }) => {
      const jobs = [await driver.create(), await driver.create(), await ended(driver)]
      const client = await open()
      for (const job of jobs) client.expect(job)
      client.send({ type: 'subscribe', jobs: [...jobs, 'none'], id: 'many' })
      await client.until('all answers', () =>
        client.messages.filter(({ id }) => id === 'many').length >= 7 ? true : undefined,
      )
      const of = (job: string) =>
        client.messages
          .filter((m) => m.job === job)
          .map((m) => m.code ?? m.type)
          .join()
      for (const job of jobs.slice(0, 2)) must(of(job) === 'snapshot,live', 'snapshot, live', of(job))
      must(
        of(jobs[2] as string) === 'snapshot,complete',
        'snapshot, complete of the ended',
        of(jobs[2] as string),
      )
      must(of('none') === 'not_found', 'not_found of the unknown', of('none'))
    },
  },
  {
    name: 'subscribe/twice',
    promise: 'what is watched already gets `already_subscribed`, and is watched on',
    run: async ({ open, driver }) => {
      const job = await driver.create()
      const client = await open()
      client.subscribe(job)
      await client.find('`live`', ({ type }) => type === 'live')
      client.subscribe(job, { id: 'again' })
      const error = await client.next('error')
      must(
        error.code === 'already_subscribed' && error.id === 'again',
        'already_subscribed with the id',
        error,
      )
      await driver.claim(job)
      await client.next('events')
    },
  },
  {
    name: 'subscribe/unknown',
    promise: 'an unknown job gets `not_found`, not retryable, with job and id',
    run: async ({ open }) => {
      const client = await open()
      client.subscribe('no-such-job', { id: 'n' })
      const error = await client.next('error')
      must(
        error.code === 'not_found' && !error.retryable && error.job === 'no-such-job' && error.id === 'n',
        'not_found',
        error,
      )
    },
  },
  {
    name: 'subscribe/late',
    promise: 'a late subscriber to a finished job gets `snapshot` and `complete`, as often as it asks',
    run: async ({ open, driver }) => {
      const job = await ended(driver)
      const client = await open()
      for (let i = 0; i < 2; i++) {
        client.subscribe(job)
        const snapshot = await client.next('snapshot')
        must(
          snapshot.state === 'COMPLETED' && short(snapshot.result) === '{"text":"all"}',
          'the result',
          snapshot,
        )
        const complete = await client.next('complete')
        must(complete.cursor === snapshot.cursor, '`complete` at the same cursor', complete)
      }
    },
  },
  {
    name: 'subscribe/detail-state',
    promise: '`detail: state` leaves out all but state changes, and accounts for the rest',
    run: async ({ open, driver }) => {
      const job = await driver.create()
      const client = await open()
      client.subscribe(job, { detail: 'state' })
      await client.find('`live`', ({ type }) => type === 'live')
      await live(driver, job)
      await client.find('`complete`', ({ type }) => type === 'complete')
      must(
        told(itemsOf(client, job)) === '2 PROCESSING, 5 COMPLETED',
        'state changes',
        told(itemsOf(client, job)),
      )
    },
  },
  {
    name: 'subscribe/detail-latest',
    promise: '`detail: latest` leaves out log lines and all but the last progress',
    run: async ({ open, driver }) => {
      const job = await driver.create()
      await driver.claim(job)
      for (let i = 1; i <= 20; i++) await driver.progress(job, i)
      await driver.log(job, 'line')
      const client = await open()
      client.subscribe(job, { detail: 'latest', cursor: '0-0' })
      await client.find('`live`', ({ type }) => type === 'live')
      must(
        told(itemsOf(client, job)) === '1 QUEUED, 2 PROCESSING, 22 progress',
        'the last',
        told(itemsOf(client, job)),
      )
    },
  },
  {
    name: 'subscribe/unsubscribe',
    promise:
      '`unsubscribe` is answered by `unsubscribed`; then nothing comes any more, and the job can be watched anew',
    run: async ({ open, driver }) => {
      const job = await driver.create()
      const client = await open()
      const other = await open()
      client.subscribe(job)
      other.subscribe(job)
      for (const each of [client, other]) await each.find('`live`', ({ type }) => type === 'live')
      client.send({ type: 'unsubscribe', job, id: 'u' })
      const over = await client.next('unsubscribed')
      must(over.job === job && over.id === 'u', '`unsubscribed` with job and id', over)
      await driver.claim(job)
      // The other has it, so it would have come.
      await other.next('events')
      await client.settle()
      client.subscribe(job)
      await client.find('a snapshot', ({ type }) => type === 'snapshot')
    },
  },
  {
    name: 'subscribe/tag',
    promise:
      'a tag subscription gets `counts`, then `job` for each change of state of a job that carries the tag',
    run: async ({ open, driver, token, tokenPerJob }) => {
      const tag = `tag-${Math.random().toString(36).slice(2)}`
      const first = await driver.create({ tags: [tag] })
      const client = await open(token ? { token: await token(['*', `tag:${tag}`]) } : {})
      client.send({ type: 'subscribe', tag, id: 't' })
      const answer = await client.find('an answer', ({ id, type }) => id === 't' || type === 'counts')
      if (answer.code === 'bad_request') skip('this gateway offers no subscriptions by tag')
      if (answer.code === 'not_found' && token && !tokenPerJob)
        skip('needs a token for the tag (give --token-command)')
      must(
        answer.type === 'counts' && answer.tag === tag && answer.counts.QUEUED === 1,
        '`counts` of one job',
        answer,
      )
      await live(driver, first)
      const second = await driver.create({ tags: [tag] })
      await client.until('each change of state', () =>
        client.messages.some((m) => m.type === 'job' && m.job === second) ? true : undefined,
      )
      const changes = client.messages
        .filter((m) => m.type === 'job')
        .map((m) => `${m.job === first ? 1 : 2} ${m.state}`)
      must(
        short(changes) === short(['1 PROCESSING', '1 COMPLETED', '2 QUEUED']),
        'every change, once',
        changes,
      )
      client.send({ type: 'unsubscribe', tag, id: 'u' })
      await client.find('`unsubscribed`', ({ type }) => type === 'unsubscribed')
    },
  },
]
