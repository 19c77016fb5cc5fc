// Several reapers at work on one namespace: how soon, what they tell, and that any of them may die.
import { randomBytes } from 'node:crypto'
import { fromSource, startProcess, until } from '@jobs/testkit'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { type Harness, moves, startHarness } from './harness.ts'
import { slowJob } from './slow-worker.ts'

let h: Harness
let reaper: Awaited<ReturnType<Harness['reaper']>>
beforeAll(async () => {
  h = await startHarness()
  reaper = await h.reaper({ REAPER_INTERVAL_MS: '100' })
})
afterAll(() => h.stop())

const metrics = async () => {
  const response = await fetch(`http://127.0.0.1:${reaper.opsPort}/metrics`)
  const lines = (await response.text()).split('\n').filter((line) => line && !line.startsWith('#'))
  return Object.fromEntries(lines.map((line) => [line.replace(/ \S+$/, ''), Number(line.split(' ').at(-1))]))
}

/** Nothing was heard of the worker for longer than a sweep takes for silence. */
const silent = (worker: string) =>
  until(async () => {
    const work = h.jobs.transitions.keysFor('any').work('slow')
    const consumers = (await h.redis.client().xinfo('CONSUMERS', work, 'workers')) as unknown[][]
    return consumers.some(([, name, , , , idle]) => name === worker && Number(idle) > 250)
  })

it('queues scheduled jobs within 100 ms of their time, behind thousands that wait, and tells by how much it was late', async () => {
  const wait = Array.from({ length: 5_000 }, () => ({ payload: { ms: 0 }, options: { delayMs: 3_600_000 } }))
  for (let from = 0; from < wait.length; from += 1_000)
    await h.jobs.enqueueMany(slowJob, wait.slice(from, from + 1_000))
  const ids = await Promise.all(Array.from({ length: 20 }, (_, i) => h.enqueue(0, { delayMs: 20 + 40 * i })))
  const late: number[] = []
  for (const id of ids) {
    await h.jobs.until(id, ({ state }) => state === 'QUEUED')
    const events = await h.history(id, 'now')
    const [made, promoted] = [moves(events, 'enqueue')[0], moves(events, 'promote')[0]]
    late.push((promoted?.at ?? Number.NaN) - ((made as { runAt?: number }).runAt ?? Number.NaN))
  }
  late.sort((a, b) => a - b)
  expect(late[0]).toBeGreaterThanOrEqual(0)
  // On a machine that does other work a process may stand still for longer: half of them say what it does.
  expect(late[late.length / 2]).toBeLessThan(100)
  expect(await metrics()).toMatchObject({
    ...{ jobs_reaper_ready: 1, jobs_reaper_promoted_total: 20, jobs_reaper_promotion_late_seconds_count: 20 },
    ...{ 'jobs_reaper_jobs{state="SCHEDULED"}': 5_000, 'jobs_reaper_jobs{state="QUEUED"}': 20 },
  })
  expect((await metrics())['jobs_reaper_oldest_queued_seconds{name="slow"}']).toBeGreaterThan(0)
})

it('recovers each job once, whichever reapers are killed meanwhile, and counts by cause and outcome', async () => {
  const others = [await h.reaper({ REAPER_INTERVAL_MS: '50' }), await h.reaper({ REAPER_INTERVAL_MS: '50' })]
  const worker = `gone-${randomBytes(4).toString('hex')}`
  await Promise.all(Array.from({ length: 300 }, () => h.enqueue(0)))
  const client = h.redis.client()
  const keys = h.jobs.transitions.keysFor('any')
  const by = { worker, nonce: 'n', leaseMs: 60_000 }
  const { grants } = await h.jobs.transitions.take(keys, slowJob.name, 300, by)
  const ids = grants.map(({ id }) => id)
  await silent(worker)
  for (const id of ids) {
    const [startedAt] = String(await client.hget(keys.job(id), 'run')).split(' ')
    await client.hset(keys.job(id), 'run', `${startedAt} 1`)
  }
  await Promise.race(others.map((other) => other.line((line) => line.includes(worker))))
  for (const other of others) await other.kill('SIGKILL')
  for (const id of ids) await h.jobs.until(id, ({ state }) => state === 'QUEUED')
  expect(ids).toHaveLength(300)
  for (const id of ids)
    expect(moves(await h.history(id, 'now'), 'reap')).toMatchObject([
      {
        worker,
        message: expect.stringMatching(
          new RegExp(`^Worker ${worker} is lost, last heard .* Attempt 2 is queued`),
        ),
      },
    ])
  const told = await until(async () => {
    const now = await metrics()
    return now.jobs_reaper_detection_seconds_count ? now : undefined
  })
  const recovered = told['jobs_reaper_reaped_total{cause="worker_lost",state="QUEUED"}']
  // The others have recovered the rest.
  expect(recovered).toBeLessThanOrEqual(300)
  expect(told.jobs_reaper_detection_seconds_count).toBe(recovered)
})

it('--dry-run says what would be done, writes nothing and ends', async () => {
  await reaper.kill('SIGTERM')
  const id = await h.enqueue(0)
  await h.claim(id, 'w9', 1)
  const due = await h.enqueue(0, { delayMs: 1 })
  await silent('w9')
  const before = await h.redis.digest()
  const dry = startProcess(process.execPath, [...fromSource('apps/reaper/src/main.ts'), '--dry-run'], {
    env: { ...h.env, REAPER_INTERVAL_MS: '100' },
  })
  expect(await dry.exited).toEqual({ code: 0, signal: null })
  expect(await h.redis.digest()).toBe(before)
  const said = dry.stdout.map((line) => JSON.parse(line))
  expect(said).toContainEqual(
    expect.objectContaining({
      job: id,
      outcome: 'QUEUED',
      msg: expect.stringContaining('Worker w9 is lost'),
    }),
  )
  expect(said).toContainEqual(expect.objectContaining({ job: due, move: 'promote' }))
  expect(said.at(-1)).toMatchObject({ promote: 1, expire: 0, msg: 'dry run: nothing was written' })
})

it('refuses an argument that it does not know, with exit code 2', async () => {
  const refused = startProcess(process.execPath, [...fromSource('apps/reaper/src/main.ts'), '--dryrun'], {
    env: h.env,
  })
  expect(await refused.exited).toEqual({ code: 2, signal: null })
  expect(refused.stdout.join('\n')).toContain('The reaper takes only --dry-run')
})
