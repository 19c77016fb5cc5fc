// How late jobs that are due are queued, with many waiting for a later time, by the reaper process as it is run.
import { setTimeout as pause } from 'node:timers/promises'
import { defineJob, Jobs } from '@jobs/state'
import { withRedis } from '../server.ts'
import { startReaper } from './peers.ts'

const WAITING = 100_000
/** One falls due each millisecond, and in the middle of them these at the same time. */
const STEADY = 5_000
const BURST = 1_000
/** Milliseconds in which all of them are enqueued. */
const AHEAD_MS = 6_000
const TOMORROW_MS = 86_400_000

/** Milliseconds late of each, in order: `steady` alone, `burst` those of the same time. */
export const promoteTrial = (): Promise<{ steady: number[]; burst: number[] }> =>
  withRedis(async (url) => {
    const jobs = new Jobs({ url, namespace: 'bench' })
    const work = defineJob<object>({ name: 'work' })
    const enqueue = async (times: number[]): Promise<Map<string, number>> => {
      const due = new Map<string, number>()
      for (let from = 0; from < times.length; from += 1_000) {
        const some = times.slice(from, from + 1_000)
        const items = await jobs.enqueueMany(
          work,
          some.map((runAt) => ({ payload: {}, options: { runAt } })),
        )
        for (const [i, item] of items.entries()) if (item.ok) due.set(item.id, some[i] as number)
      }
      return due
    }
    const upTo = (count: number, time: (n: number) => number) =>
      Array.from({ length: count }, (_, n) => time(n))
    await enqueue(upTo(WAITING, (n) => Date.now() + TOMORROW_MS + n))
    const stopReaper = await startReaper(url, 'default')
    const from = Date.now() + AHEAD_MS
    const steady = await enqueue(upTo(STEADY, (n) => from + n))
    const burst = await enqueue(upTo(BURST, () => from + STEADY / 2))
    while ((await jobs.counts()).SCHEDULED > WAITING) await pause(200)
    /** A job's cursor tells when it was last written: when it was queued. */
    const lateOf = async (due: Map<string, number>): Promise<number[]> => {
      const late: number[] = []
      for (const [id, time] of due) {
        const cursor = (await jobs.get(id))?.cursor ?? ''
        late.push(Number(cursor.slice(cursor.indexOf('-') + 1)) - time)
      }
      return late.sort((a, b) => a - b)
    }
    const told = { steady: await lateOf(steady), burst: await lateOf(burst) }
    await stopReaper()
    await jobs.close()
    return told
  })
