// What comes of a cursor: everything after it, or a reset that says why not.
import { must, short } from '../outcome.ts'
import type { Bench, Check } from '../run.ts'
import { itemsOf, live, watched } from './subscriptions.ts'

/** Subscribes at a cursor that can't be continued. */
const resets = async (bench: Bench, job: string, cursor: string, reason: string): Promise<void> => {
  const client = await bench.open()
  client.subscribe(job, { cursor, id: 'r' })
  const reset = await client.next('reset')
  must(
    reset.reason === reason && reset.job === job && reset.id === 'r',
    `reset: ${reason}, with the id`,
    reset,
  )
  await client.next('snapshot')
  await client.next('live')
}

/** The cursors of a job's events, first to last. */
const cursorsOf = async (bench: Bench, job: string): Promise<string[]> => {
  const client = await bench.open()
  client.subscribe(job, { cursor: '0-0' })
  await client.find('the end of the replay', ({ type }) => type === 'live' || type === 'complete')
  return itemsOf(client, job).map(({ seq, at }) => `${seq}-${at}`)
}

const running = async ({ driver }: Bench, events = 3): Promise<string> => {
  const job = await driver.create()
  await driver.claim(job)
  for (let i = 1; i <= events; i += 50)
    await Promise.all(
      Array.from({ length: Math.min(50, events - i + 1) }, (_, j) => driver.progress(job, i + j)),
    )
  return job
}

export const resume: Check[] = [
  {
    name: 'resume/every-position',
    promise:
      'promise 1: from each position come exactly the events after it, then `live`; nothing is missing or twice',
    run: async (bench) => {
      const job = await running(bench)
      const cursors = ['0-0', ...(await cursorsOf(bench, job))]
      must(cursors.length === 6, 'the whole history from 0-0', cursors)
      for (const [i, cursor] of cursors.entries()) {
        const client = await bench.open()
        client.subscribe(job, { cursor, id: 'c' })
        const end = await client.find('`live`', ({ type }) => type === 'live')
        must(end.cursor === cursors.at(-1) && end.id === 'c', '`live` at the last cursor, with the id', end)
        const seqs = itemsOf(client, job).map(({ seq }) => seq)
        must(short(seqs) === short([1, 2, 3, 4, 5].slice(i)), `what follows ${cursor}`, seqs)
        must(
          client.messages.every(({ type }) => type !== 'snapshot' && type !== 'reset'),
          'no snapshot and no reset',
          client.messages,
        )
      }
    },
  },
  {
    name: 'resume/cursor-told',
    promise: 'the cursor of each message is a position to go on from',
    run: async (bench) => {
      const { client, job } = await watched(bench)
      for (const { cursor, type, to, seq } of client.messages.filter((m) => m.cursor !== undefined)) {
        const again = await bench.open()
        again.subscribe(job, { cursor })
        await again.find('`complete`', (m) => m.type === 'complete')
        must(
          !again.messages.some((m) => m.type === 'reset'),
          `the cursor ${cursor} of \`${type}\` can be continued`,
          again.messages,
        )
        const from = again.messages.find((m) => m.type === 'events')?.from
        if (to ?? seq) must(from === undefined || from === (to ?? seq) + 1, `it stands at ${to ?? seq}`, from)
      }
    },
  },
  {
    name: 'resume/ended',
    promise: 'from a cursor within an ended job come the events after it, then `complete`',
    run: async (bench) => {
      const job = await bench.driver.create()
      await live(bench.driver, job)
      const cursors = await cursorsOf(bench, job)
      const client = await bench.open()
      client.subscribe(job, { cursor: cursors[2] as string })
      const events = await client.next('events')
      must(events.from === 4 && events.to === 5, 'events 4 and 5', events)
      await client.next('complete')
    },
  },
  {
    name: 'resume/ahead',
    promise: 'a cursor beyond the last event gets `reset: ahead`, then `snapshot` and `live`',
    run: async (bench) => {
      const job = await running(bench)
      const [last] = (await cursorsOf(bench, job)).slice(-1)
      await resets(bench, job, `999-${last?.split('-')[1]}`, 'ahead')
    },
  },
  {
    name: 'resume/diverged',
    promise: 'a cursor that this history never had gets `reset: diverged`, then `snapshot` and `live`',
    run: async (bench) => resets(bench, await running(bench), '3-1', 'diverged'),
  },
  {
    name: 'resume/too-far',
    promise:
      'a cursor with more events after it than are replayed gets `reset: too_far`, then `snapshot` and `live`',
    run: async (bench) => {
      const client = await bench.open()
      const { limits } = await client.find('`welcome`', ({ type }) => type === 'welcome')
      await resets(bench, await running(bench, (limits.replayEvents ?? 300) + 10), '0-0', 'too_far')
    },
  },
  {
    name: 'resume/trimmed',
    promise:
      'a cursor whose next events are no longer kept gets `reset: trimmed`, then `snapshot` and `live`',
    run: async (bench) => {
      const job = await running(bench)
      await bench.driver.trim(job)
      await resets(bench, job, '0-0', 'trimmed')
    },
  },
]
