// Dead workers' jobs are recovered, once, soon; live workers are never robbed. Real processes, real signals.
import { until } from '@jobs/testkit'
import { afterEach, expect, it } from 'vitest'
import { type Harness, moves, startHarness } from './harness.ts'

let h: Harness
afterEach(() => h.stop())

it('20 jobs of a worker killed by SIGKILL all complete, each recovered once, within 10 s on default settings', async () => {
  h = await startHarness()
  // Two reapers see the same dead worker.
  await Promise.all([h.reaper(), h.reaper()])
  const first = await h.worker()
  const ids = await Promise.all(Array.from({ length: 20 }, () => h.enqueue(1_000)))
  await Promise.all(ids.map((id) => first.line((line) => line === `active ${id}`)))
  await first.kill('SIGKILL')
  const killedAt = performance.now()
  // Not before: the jobs might be done by the time it is there.
  const second = await h.worker()
  const ended = await Promise.all(ids.map((id) => h.jobs.wait(id)))
  const tookMs = performance.now() - killedAt
  expect(ended.map(({ state, attempt, crashes }) => ({ state, attempt, crashes }))).toEqual(
    ids.map(() => ({ state: 'COMPLETED', attempt: 2, crashes: 1 })),
  )
  expect(ended.every(({ result }) => (result as { worker: string }).worker === String(second.pid))).toBe(true)
  for (const id of ids) {
    const reaps = moves(await h.history(id), 'reap')
    expect(reaps).toMatchObject([{ state: 'QUEUED', reason: 'worker_lost' }])
  }
  expect(tookMs).toBeLessThan(10_000)
})

it.each([
  ['down', 'SIGKILL'],
  ['frozen', 'SIGSTOP'],
] as const)('nobody is robbed while Redis is %s for longer than a heartbeat lives', async (_, signal) => {
  h = await startHarness({ appendonly: true })
  await Promise.all([h.reaper(), h.reaper()])
  const worker = await h.worker()
  const ids = await Promise.all(Array.from({ length: 10 }, () => h.enqueue(14_000)))
  await Promise.all(ids.map((id) => worker.line((line) => line === `active ${id}`)))
  // Past the first sweeps of the reapers, so that theirs is not the amnesty of a start; and the worker has beaten.
  const [first = ''] = ids
  await until(() => h.redis.client().exists(h.jobs.transitions.keysFor(first).heartbeat(first)))
  await h.redis.kill(signal)
  // The outage itself is the subject: 6 s, and a heartbeat lives 5.
  await new Promise((resolve) => setTimeout(resolve, 6_000))
  if (signal === 'SIGKILL') await h.redis.restart()
  else await h.redis.thaw()
  const ended = await Promise.all(ids.map((id) => h.jobs.wait(id)))
  expect(ended.map(({ state, attempt, crashes }) => ({ state, attempt, crashes }))).toEqual(
    ids.map(() => ({ state: 'COMPLETED', attempt: 1, crashes: 0 })),
  )
})

it('a worker frozen past its lease finds every late write refused; the result is the second worker’s', async () => {
  h = await startHarness()
  await h.reaper()
  const first = await h.worker()
  const id = await h.enqueue(1_500)
  await first.line((line) => line === `active ${id}`)
  await first.kill('SIGSTOP')
  const second = await h.worker()
  const ended = await h.jobs.wait(id)
  expect(ended).toMatchObject({ state: 'COMPLETED', attempt: 2, result: { worker: String(second.pid) } })
  const digest = await h.jobs.get(id)
  await first.kill('SIGCONT')
  await first.line((line) => line === `lost ${id}`)
  expect(await h.jobs.get(id)).toEqual(digest)
  const events = await h.history(id)
  expect(events.map((event) => event.seq)).toEqual(events.map((__, i) => i + 1))
})

it('a dead job behind 2,000 live ones is found', async () => {
  h = await startHarness()
  const ids: string[] = []
  for (let i = 0; i < 2_001; i++) ids.push(await h.enqueue(0))
  const dead = ids.at(-1) as string
  for (const id of ids) await h.claim(id, id === dead ? 'dead' : 'live', id === dead ? 100 : 600_000)
  await h.reaper()
  await until(async () => (await h.jobs.get(dead))?.state === 'QUEUED', { what: 'the dead job queued again' })
  expect(await h.jobs.get(ids[0] as string)).toMatchObject({ state: 'PROCESSING', crashes: 0 })
})

it('a job whose crash budget is spent has failed as CRASHED; one whose cancel was requested is cancelled', async () => {
  h = await startHarness()
  const poison = await h.enqueue(0, { maxCrashes: 0 })
  const unwanted = await h.enqueue(0)
  await h.claim(poison, 'w1', 100)
  await h.claim(unwanted, 'w1', 100)
  await h.jobs.cancel(unwanted)
  await h.reaper()
  expect(await h.jobs.wait(poison)).toMatchObject({ state: 'FAILED', error: { code: 'CRASHED' } })
  expect(await h.jobs.wait(unwanted)).toMatchObject({ state: 'CANCELLED' })
})

it('an entry that was delivered and never claimed is queued again; a leftover is swept away', async () => {
  h = await startHarness()
  const id = await h.enqueue(0)
  const work = h.jobs.transitions.keysFor(id).work('slow')
  const client = h.redis.client()
  await client.xadd(work, '*', 'id', 'nobody')
  await h.jobs.link.once(['XREADGROUP', 'GROUP', 'workers', 'gone', 'COUNT', 10, 'STREAMS', work, '>'], 1_000)
  await h.reaper()
  const worker = await h.worker()
  await worker.line((line) => line === `completed ${id}`)
  await until(async () => (await client.xlen(work)) === 0, { what: 'an empty work stream' })
})

it('a scheduled job runs when it is due', async () => {
  h = await startHarness()
  await h.reaper()
  await h.worker()
  const id = await h.enqueue(0, { delayMs: 700 })
  expect(await h.jobs.get(id)).toMatchObject({ state: 'SCHEDULED' })
  const ended = await h.jobs.wait(id)
  expect(ended.state).toBe('COMPLETED')
  expect((ended.startedAt as number) - ended.createdAt).toBeGreaterThanOrEqual(700)
})

it('a worker that is told to stop hands its jobs back at no cost', async () => {
  h = await startHarness()
  const worker = await h.worker()
  const id = await h.enqueue(60_000)
  await worker.line((line) => line === `active ${id}`)
  await worker.kill('SIGTERM')
  expect(await worker.exited).toEqual({ code: 0, signal: null })
  expect(await h.jobs.get(id)).toMatchObject({ state: 'QUEUED', attempt: 1, failures: 0, crashes: 0 })
})

it('a job that is in no queue any more is found and queued again', async () => {
  h = await startHarness()
  const id = await h.enqueue(0)
  const { jobs } = h
  await jobs.link.call('DEL', jobs.transitions.keysFor(id).work('slow'))
  const [reaper] = await Promise.all([h.reaper(), h.worker()])
  const told = JSON.parse(await reaper.line((line) => line.includes('not_queued')))
  expect(told).toMatchObject({ code: 'not_queued', about: id, outcome: 'mended' })
  expect(await jobs.wait(id)).toMatchObject({ state: 'COMPLETED' })
})

it('a repair that fails is told and counted, and nothing else stops', async () => {
  h = await startHarness()
  const id = await h.enqueue(0)
  await h.jobs.link.call('DEL', h.jobs.transitions.keysFor(id).work('slow'))
  const reaper = await h.reaper()
  await reaper.line((line) => line.includes('not_queued'))
  await h.redis.client().call('ACL', 'SETUSER', 'default', '-scan')
  const told = JSON.parse(await reaper.line((line) => line.includes('a repair failed')))
  expect(told).toMatchObject({ code: 'REDIS_REFUSED' })
  const { opsPort } = JSON.parse(await reaper.line((line) => line.includes('"listening"')))
  const metrics = await (await fetch(`http://127.0.0.1:${opsPort}/metrics`)).text()
  expect(metrics).toMatch(/^jobs_reaper_errors_total 1$/m)
  expect((await fetch(`http://127.0.0.1:${opsPort}/readyz`)).status).toBe(200)
})
