// Rates: how many jobs of a name, or of a key, may start. Judged by Redis' own times, in the events.
import { defineJob, type WorkerOptions } from '@jobs/state'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { type Stage, startStage } from './stage.ts'

let stage: Stage
let reaping: Promise<void>
let stopped = false
beforeAll(async () => {
  stage = await startStage()
  // What a rate key puts off is queued again by a reaper.
  reaping = (async () => {
    while (!stopped) {
      await stage.jobs.sweep()
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
  })()
})
afterAll(async () => {
  stopped = true
  await reaping
  await stage.stop()
})

let kinds = 0
const kind = () => defineJob({ name: `rated${kinds++}` })

/** When each job was claimed, in order. */
const startsOf = async (ids: readonly string[]): Promise<number[]> => {
  const starts: number[] = []
  for (const id of ids) {
    const attempts = await stage.jobs.attempts(id)
    expect(attempts).toHaveLength(1)
    starts.push(attempts[0]?.startedAt ?? 0)
  }
  return starts.sort((a, b) => a - b)
}

/** The most starts that any window of so many milliseconds has, wherever it begins. */
const mostWithin = (starts: readonly number[], ms: number): number =>
  Math.max(...starts.map((from) => starts.filter((at) => at >= from && at < from + ms).length))

const enqueue = async (definition: ReturnType<typeof kind>, count: number, rateKey?: string) => {
  const items = Array.from({ length: count }, (_, i) => ({
    payload: i,
    ...(rateKey === undefined ? {} : { options: { rateKey } }),
  }))
  const made = await stage.jobs.enqueueMany(definition, items)
  return made.flatMap((item) => item.id ?? [])
}

it.each<[string, WorkerOptions]>([
  ['one at a time', { rate: { max: 5, perMs: 300 } }],
  ['many at a time', { concurrency: 20, rate: { max: 5, perMs: 300 } }],
])('starts no more than its rate in any window, wherever it begins: %s', async (_, options) => {
  const definition = kind()
  const ids = await enqueue(definition, 18)
  await stage.workOff(definition, () => 1, ids, options)
  const starts = await startsOf(ids)
  expect(mostWithin(starts, 300)).toBe(5)
  // And as soon as it may: 18 jobs are four windows, of which three are waited for.
  expect((starts.at(-1) ?? 0) - (starts[0] ?? 0)).toBeGreaterThanOrEqual(900)
  expect((starts.at(-1) ?? 0) - (starts[0] ?? 0)).toBeLessThan(2_500)
})

it('is one rate for all workers of the name', async () => {
  const definition = kind()
  const ids = await enqueue(definition, 12)
  const options = { concurrency: 3, rate: { max: 4, perMs: 300 } }
  const workers = await Promise.all([1, 2, 3].map(() => stage.jobs.work(definition, () => 1, options)))
  for (const id of ids) await stage.jobs.wait(id)
  expect(mostWithin(await startsOf(ids), 300)).toBe(4)
  await Promise.all(workers.map((worker) => worker.stop()))
})

it('holds for jobs that come while the worker waits for them', async () => {
  const definition = kind()
  const worker = await stage.jobs.work(definition, () => 1, { rate: { max: 2, perMs: 300 } })
  const ids: string[] = []
  for (let i = 0; i < 6; i++) ids.push((await stage.jobs.enqueue(definition, i)).id)
  for (const id of ids) await stage.jobs.wait(id)
  expect(mostWithin(await startsOf(ids), 300)).toBe(2)
  await worker.stop()
})

it('counts each rate key by itself, and holds up nobody else', async () => {
  const definition = kind()
  const [slow, other, free] = [
    await enqueue(definition, 6, 'slow'),
    await enqueue(definition, 2, 'other'),
    await enqueue(definition, 10),
  ]
  await stage.workOff(definition, () => 1, [...slow, ...other, ...free], {
    ratePerKey: { max: 2, perMs: 400 },
  })
  const slowStarts = await startsOf(slow)
  expect(mostWithin(slowStarts, 400)).toBe(2)
  expect((slowStarts.at(-1) ?? 0) - (slowStarts[0] ?? 0)).toBeGreaterThanOrEqual(800)
  // The first of the slow, and all that have another key or none, did not wait for the rest of the slow.
  for (const starts of [await startsOf(other), await startsOf(free)])
    expect(starts.at(-1) ?? 0).toBeLessThan(slowStarts[3] ?? 0)
})

it('tells what a rate key puts off: an event, a time, a reason, and no attempt that was spent', async () => {
  const definition = kind()
  const ids = await enqueue(definition, 2, 'told')
  const worker = await stage.jobs.work(definition, () => 1, { ratePerKey: { max: 1, perMs: 700 } })
  const deferred = await stage.jobs.until(ids[1] ?? '', ({ state }) => state === 'SCHEDULED')
  expect(deferred).toMatchObject({ attempt: 0 })
  const [first = 0] = await startsOf(ids.slice(0, 1))
  expect(deferred.runAt).toBe(first + 700)
  for (const id of ids) expect(await stage.jobs.wait(id)).toMatchObject({ attempt: 1, failures: 0 })
  const defers = []
  for await (const event of stage.jobs.events(ids[1] ?? ''))
    if (event.type === 'state' && event.move === 'defer') defers.push(event.reason)
  expect(defers).toEqual(['rate_limited'])
  await worker.stop()
})

it('leaves nothing behind once its window has passed', async () => {
  const definition = kind()
  const ids = await enqueue(definition, 3, 'gone')
  const options = { rate: { max: 10, perMs: 60_000 }, ratePerKey: { max: 10, perMs: 60_000 } }
  await stage.workOff(definition, () => 1, ids, options)
  const rates = () => stage.redis.client().keys(`*:rate:${definition.name}*`)
  expect(await rates()).toHaveLength(2)
  await stage.jobs.step('1m')
  expect(await rates()).toEqual([])
})

it('is over when time is stepped on', async () => {
  const definition = kind()
  const ids = await enqueue(definition, 2)
  const options = { rate: { max: 1, perMs: 3_600_000 } }
  await stage.workOff(definition, () => 1, ids.slice(0, 1), options)
  expect(await stage.jobs.get(ids[1] ?? '')).toMatchObject({ state: 'QUEUED' })
  await stage.jobs.step('1h')
  await stage.workOff(definition, () => 1, ids, options)
  expect(await stage.jobs.get(ids[1] ?? '')).toMatchObject({ state: 'COMPLETED' })
})
