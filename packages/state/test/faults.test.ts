// One fault of Redis or of the network at a time, again and again under the load of the storm; afterwards every invariant
// holds and every job has ended. FAULT_TIMES and STORM_SEED run them longer, and again as they were.
import { connectJobs, Worker } from '@jobs/state'
import { type CommandProxy, startCommandProxy, until } from '@jobs/testkit'
import { expect, it, vi } from 'vitest'
import { anyJob, startHarness } from './harness.ts'
import { runStorm, type Storm, type StormOptions, type StormReport } from './storm.ts'

const TIMES = Number(process.env.FAULT_TIMES ?? 1)
const seed = Number(process.env.STORM_SEED ?? Date.now() % 1e9)

const withstands = async (options: Omit<StormOptions, 'seed' | 'ms'>): Promise<StormReport> => {
  const report = await runStorm({ seed, ms: 1_000, ...options })
  const { violations, ...figures } = report
  console.log(`seed ${seed}: ${JSON.stringify(figures)}`)
  expect(violations).toEqual([])
  expect(report.counts.COMPLETED).toBeGreaterThan(0)
  return report
}

/** Strikes so many times, with a pause after each. FAULT_TIMES makes it more. */
const times =
  (n: number, pauseMs: number, strike: (storm: Storm) => Promise<unknown>) => async (storm: Storm) => {
    for (let i = 0; i < n * TIMES; i++) {
      await strike(storm)
      await storm.pause(pauseMs)
    }
  }

it('scripts flushed every 50 ms', async () => {
  const { troubles } = await withstands({
    fault: times(40, 50, ({ redis }) => redis.client().script('FLUSH')),
  })
  expect(troubles).toEqual({})
})

it('every connection killed every 100 ms', async () => {
  await withstands({
    fault: times(20, 100, ({ redis }) =>
      redis.client().call('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes'),
    ),
  })
})

it('connections cut at any byte of a request or a reply', async () => {
  let proxy: CommandProxy | undefined
  await withstands({
    port: async (redis) => {
      proxy = await startCommandProxy(redis.port)
      return proxy.port
    },
    fault: times(30, 20, async ({ random }) =>
      proxy?.cutInside(1 + random.below(4_000), random.pick(['requests', 'replies'] as const)),
    ),
  })
  await proxy?.close()
})

it('memory that is full: no job starts, those that run end, and those of the dead are recovered', async () => {
  const { troubles } = await withstands({
    fault: times(5, 200, async ({ redis, jobs, pause }) => {
      const running = async () => (await jobs.counts()).PROCESSING > 0
      await until(running)
      await redis.client().config('SET', 'maxmemory', '1mb')
      await until(async () => !(await running()), { what: 'the end of every attempt' })
      await pause(100)
      await redis.client().config('SET', 'maxmemory', '0')
    }),
  })
  expect(Object.keys(troubles)).toEqual(['REDIS_OUT_OF_MEMORY'])
})

it('commands that are held up for longer than a lease', async () => {
  await withstands({
    fault: times(2, 600, async ({ redis, pause }) => {
      await redis.client().call('CLIENT', 'PAUSE', 800, 'ALL')
      await pause(800)
    }),
  })
})

it('a script that never ends, killed by an administrator', async () => {
  await withstands({
    fault: async (storm) => {
      const client = storm.redis.client()
      const admin = client.duplicate()
      await admin.config('SET', 'busy-reply-threshold', '50')
      await times(4, 200, async () => {
        const endless = client.eval('while true do end', 0).catch((error: Error) => error.message)
        await until(() =>
          admin.get('x').then(
            () => false,
            (error: Error) => error.message.startsWith('BUSY'),
          ),
        )
        await storm.pause(200)
        await admin.script('KILL')
        expect(await endless).toMatch(/killed by user/i)
      })(storm)
      admin.disconnect()
    },
  })
})

it.each([
  ['FLUSHALL', (storm: Storm) => storm.redis.client().flushall()],
  [
    'a restart without data',
    async ({ redis }: Storm) => {
      await redis.kill('SIGKILL')
      await redis.restart()
    },
  ],
] as const)('all data lost by %s: what is accepted afterwards is done', async (_, lose) => {
  await withstands({
    fault: times(3, 500, async (storm) => {
      await lose(storm)
      storm.lost()
    }),
  })
})

it('memory that is full: jobs are read, explained and followed all the same', async () => {
  const h = await startHarness()
  const { id, fence } = await h.jobIn('PROCESSING')
  await h.redis.client().config('SET', 'maxmemory', '1mb')
  expect(await h.jobs.get(id)).toMatchObject({ state: 'PROCESSING' })
  expect(await h.jobs.explain(id)).toMatchObject({ reason: 'running', heldBy: 'tester' })
  const moves: string[] = []
  for await (const event of h.jobs.events(id)) {
    moves.push(event.type === 'state' ? event.move : event.type)
    if (moves.length === 2) await h.jobs.transitions.complete({ id, fence }, '1')
  }
  expect(moves).toEqual(['enqueue', 'claim', 'complete'])
  await h.stop()
})

it('memory that is full: a process starts on a namespace that is there', async () => {
  const h = await startHarness()
  const { namespace, partitions } = h.jobs
  const options = { url: h.redis.url, namespace, partitions }
  await (await connectJobs(options)).close()
  const id = await h.enqueue()
  await h.redis.client().config('SET', 'maxmemory', '1mb')
  const jobs = await connectJobs(options)
  // It starts nothing meanwhile, and goes to work as soon as there is memory.
  const worker = new Worker(jobs, anyJob, () => 1)
  const trouble = vi.fn()
  worker.on('error', trouble)
  await worker.start()
  expect(trouble.mock.calls.map(([{ code }]) => code)).toContain('REDIS_OUT_OF_MEMORY')
  await expect(connectJobs({ ...options, namespace: 'new' })).rejects.toMatchObject({
    code: 'REDIS_OUT_OF_MEMORY',
  })
  await h.redis.client().config('SET', 'maxmemory', '0')
  expect(await jobs.wait(id)).toMatchObject({ state: 'COMPLETED' })
  await worker.stop()
  await jobs.close()
  await h.stop()
})
