// What takes a hand on the server: lost history, an outage, and last of all the end of the gateway.
import { must } from '../outcome.ts'
import type { Check } from '../run.ts'

/** Long enough for any gateway to give up a read. */
const OUTAGE_MS = 5_000

export const trouble: Check[] = [
  {
    name: 'trouble/redis-recovered',
    alone: true,
    promise:
      'watchers who were told what is lost by now get `reset: redis_recovered`, `snapshot`, `live`, and what follows',
    run: async (bench) => {
      const { driver } = bench
      const job = await driver.create()
      await driver.claim(job)
      await driver.keep(job)
      for (let i = 0; i < 3; i++) await driver.progress(job, i)
      const client = await bench.open()
      client.subscribe(job)
      await client.find('`live`', ({ type }) => type === 'live')
      await driver.lose(job)
      const reset = await client.next('reset')
      must(reset.reason === 'redis_recovered', 'reset: redis_recovered', reset)
      const snapshot = await client.next('snapshot')
      must(snapshot.seq === 2, 'the snapshot of what is left', snapshot)
      await client.next('live')
      await driver.complete(job, 1)
      await client.find('`complete`', ({ type }) => type === 'complete')
    },
  },
  {
    name: 'trouble/unavailable',
    alone: true,
    promise:
      'while jobs can’t be read a subscription gets `unavailable`, retryable; the connection stays, and all goes on after it',
    run: async (bench) => {
      const { driver } = bench
      const [watched, asked] = [await driver.create(), await driver.create()]
      const client = await bench.open()
      client.subscribe(watched)
      await client.find('`live`', ({ type }) => type === 'live')
      await driver.outage(OUTAGE_MS)
      client.subscribe(asked, { id: 'u' })
      const isError = ({ type }: { type: string }) => type === 'error'
      const error = await client.find('`unavailable`', isError, OUTAGE_MS + bench.waitMs)
      must(
        error.code === 'unavailable' && error.retryable && error.retryAfterMs > 0 && error.id === 'u',
        'unavailable, retryable, with the id',
        error,
      )
      const end = performance.now() + OUTAGE_MS + bench.waitMs
      for (;;) {
        await new Promise((resolve) => setTimeout(resolve, error.retryAfterMs))
        client.subscribe(asked, { id: 'again' })
        const answer = await client.find('an answer', ({ id }) => id === 'again', OUTAGE_MS + bench.waitMs)
        if (answer.type === 'snapshot') break
        must(answer.code === 'unavailable' && performance.now() < end, 'jobs can be read again', answer)
      }
      await driver.claim(watched)
      await client.find('what happens after it', ({ type, job }) => type === 'events' && job === watched)
    },
  },
  {
    name: 'trouble/draining',
    alone: true,
    promise:
      'a gateway that stops tells `draining` and how long its closes are spread over, and closes with 4300 within it',
    run: async (bench) => {
      const clients = [await bench.open(), await bench.open(), await bench.open()]
      for (const client of clients) await client.settle()
      await bench.driver.drain()
      for (const client of clients) {
        const { spreadMs } = await client.find('`draining`', ({ type }) => type === 'draining')
        const code = await client.end(spreadMs + bench.waitMs)
        must(code === 4300, 'close code 4300', code)
      }
    },
  },
]
