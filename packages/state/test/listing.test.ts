// Finding jobs: lists by every property, pages that hold while jobs come and go, counts, queues, workers.
import { defineJob, type ListOptions, STATES, type State } from '@jobs/state'
import { until } from '@jobs/testkit'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { gate, type Stage, startStage } from './stage.ts'

let stage: Stage
beforeAll(async () => {
  stage = await startStage({ partitions: 2 })
})
afterAll(() => stage.stop())

let kinds = 0
const kind = () => defineJob({ name: `listed${kinds++}` })

/** Every id that the pages give, in order. `between` runs after each page. */
const pagesOf = async (options: ListOptions, between: () => Promise<unknown> = async () => undefined) => {
  const seen: string[] = []
  for (let cursor: string | null | undefined; cursor !== null; ) {
    const page = await stage.jobs.list({ ...options, ...(cursor ? { cursor } : {}) })
    expect(page.jobs.length).toBeLessThanOrEqual(options.limit ?? 50)
    seen.push(...page.jobs.map(({ id }) => id))
    cursor = page.cursor
    await between()
  }
  return seen
}

describe('a list', () => {
  it('is of every state, by name; and the counts agree', async () => {
    const { jobs } = stage
    const definition = kind()
    const before = await jobs.counts()
    const ids: Record<State, string[]> = {
      SCHEDULED: [(await jobs.enqueue(definition, 1, { delayMs: 60_000 })).id],
      COMPLETED: [(await jobs.run(definition, () => 1, 1)).job.id],
      FAILED: [
        (
          await jobs.run(
            definition,
            () => {
              throw new Error('no')
            },
            1,
            { maxAttempts: 1, retentionMs: 60_000 },
          )
        ).job.id,
        // Of another retention, and so in another list.
        (await jobs.enqueue(definition, 1, { ttlMs: 1 })).id,
      ],
      PROCESSING: [],
      QUEUED: [],
      CANCELLED: [(await jobs.enqueue(definition, 1)).id],
    }
    await jobs.step('1s')
    await jobs.cancel(ids.CANCELLED[0] ?? '')
    const { open, opened } = gate()
    const worker = await jobs.work(definition, () => opened)
    const running = (await jobs.enqueue(definition, 1)).id
    await jobs.until(running, 'PROCESSING')
    ids.PROCESSING.push(running)
    for (const priority of ['high', 'normal', 'low'] as const)
      ids.QUEUED.push((await jobs.enqueue(definition, 1, { priority })).id)
    for (const state of STATES) {
      const page = await jobs.list({ state, name: definition.name })
      expect(page.jobs.map(({ id }) => id).sort(), state).toEqual(ids[state].sort())
      expect(page.jobs.every((job) => job.state === state && job.name === definition.name)).toBe(true)
      expect(page.cursor).toBeNull()
    }
    const all = await pagesOf({ name: definition.name, limit: 2 })
    expect(all.sort()).toEqual(Object.values(ids).flat().sort())
    const counts = await jobs.counts()
    for (const state of STATES) expect(counts[state] - before[state], state).toBe(ids[state].length)
    open()
    for (const id of ids.QUEUED) await jobs.wait(id)
    await worker.stop()
    await jobs.drain()
  })

  it('is by tag and owner, alone and together, whatever the state', async () => {
    const { jobs } = stage
    const definition = kind()
    const make = async (options: object) => (await jobs.enqueue(definition, 1, options)).id
    const both = await make({ tags: ['red', 'blue'], owner: 'ada' })
    const red = await make({ tags: ['red'], owner: 'bob', delayMs: 60_000 })
    const ended = await make({ tags: ['blue'], owner: 'ada' })
    await make({})
    await jobs.cancel(ended)
    const idsOf = async (options: ListOptions) => (await jobs.list(options)).jobs.map(({ id }) => id).sort()
    expect(await idsOf({ tag: 'red' })).toEqual([both, red].sort())
    expect(await idsOf({ tag: 'blue' })).toEqual([both, ended].sort())
    expect(await idsOf({ owner: 'ada' })).toEqual([both, ended].sort())
    expect(await idsOf({ owner: 'ada', tag: 'red' })).toEqual([both])
    expect(await idsOf({ owner: 'ada', state: 'CANCELLED' })).toEqual([ended])
    expect(await idsOf({ tag: 'red', state: 'SCHEDULED' })).toEqual([red])
    // An owner is no tag, and a tag no owner.
    expect(await idsOf({ tag: 'ada' })).toEqual([])
    expect(await idsOf({ owner: 'red' })).toEqual([])
    await jobs.drain()
  })

  it('is by time of creation: from is in it, to is not', async () => {
    const { jobs } = stage
    const definition = kind()
    const first = await jobs.enqueue(definition, 1)
    await jobs.step('1h')
    const second = await jobs.enqueue(definition, 1)
    const at = (await jobs.get(second.id))?.createdAt ?? 0
    const idsOf = async (options: ListOptions) =>
      (await jobs.list({ name: definition.name, ...options })).jobs.map(({ id }) => id)
    expect(await idsOf({ from: at })).toEqual([second.id])
    expect(await idsOf({ to: at })).toEqual([first.id])
    expect(await idsOf({ from: at - 3_700_000, to: at + 1 })).toHaveLength(2)
    expect(await idsOf({ from: at + 1 })).toEqual([])
    await jobs.drain()
  })

  it.each<[string, ListOptions, object]>([
    ['queued', { state: 'QUEUED' }, {}],
    ['scheduled', { state: 'SCHEDULED' }, { delayMs: 60_000 }],
    ['tagged', { tag: 'paged' }, { tags: ['paged'] }],
    ['of any state', {}, {}],
  ])('gives each once, while others are added after every page: %s', async (_, options, given) => {
    const { jobs } = stage
    const definition = kind()
    const add = (count: number) =>
      jobs.enqueueMany(
        definition,
        Array.from({ length: count }, (__, i) => ({ payload: i, options: given })),
      )
    const there = (await add(23)).map(({ id }) => id)
    let added = 0
    const seen = await pagesOf({ ...options, name: definition.name, limit: 5 }, async () => {
      if (added++ < 8) await add(1)
    })
    expect(new Set(seen).size).toBe(seen.length)
    for (const id of there) expect(seen).toContain(id)
    await jobs.drain()
  })

  it('gives each ended one once, while others end after every page', async () => {
    const { jobs } = stage
    const definition = kind()
    const end = async (count: number) => {
      const made = await jobs.enqueueMany(
        definition,
        Array.from({ length: count }, () => ({ payload: 1 })),
      )
      for (const { id } of made) await jobs.cancel(id ?? '')
      return made.map(({ id }) => id)
    }
    const there = await end(23)
    const seen = await pagesOf({ state: 'CANCELLED', name: definition.name, limit: 5 }, () => end(1))
    expect(new Set(seen).size).toBe(seen.length)
    for (const id of there) expect(seen).toContain(id)
  })

  it('is oldest first within a state and priority', async () => {
    const one = await startStage()
    const definition = kind()
    const made = await one.jobs.enqueueMany(
      definition,
      Array.from({ length: 10 }, (_, i) => ({ payload: i, options: { tags: ['old'] } })),
    )
    const ids = made.map(({ id }) => id)
    const listed = async (options: ListOptions) => (await one.jobs.list(options)).jobs.map(({ id }) => id)
    expect(await listed({ state: 'QUEUED' })).toEqual(ids)
    for (const id of ids) await one.jobs.cancel(id ?? '')
    expect(await listed({ state: 'CANCELLED' })).toEqual(ids)
    await one.stop()
  })

  it.each<[string, string, object]>([
    ['a state that is none', 'INVALID_STATE', { state: 'DONE' }],
    ['a cursor of something else', 'INVALID_CURSOR', { cursor: 'abc' }],
    ['a limit that is none', 'INVALID_OPTIONS', { limit: 0 }],
    ['a limit too high', 'INVALID_OPTIONS', { limit: 1_001 }],
    ['a tag that can be none', 'INVALID_OPTIONS', { tag: 'a b' }],
    ['an option that is none', 'INVALID_OPTIONS', { status: 'QUEUED' }],
  ])('is refused with %s', async (_, code, options) => {
    await expect(stage.jobs.list(options)).rejects.toMatchObject({ code })
  })
})

it('queues tells what waits and runs of each name and priority, and how long the oldest has waited', async () => {
  const { jobs } = stage
  const definition = kind()
  const mine = async () => (await jobs.queues()).filter(({ name }) => name === definition.name)
  const { open, opened } = gate()
  const worker = await jobs.work(definition, () => opened)
  const running = await jobs.enqueue(definition, 1)
  await jobs.until(running.id, 'PROCESSING')
  const first = await jobs.enqueue(definition, 1)
  const ids = [running.id, first.id]
  for (let i = 0; i < 2; i++) ids.push((await jobs.enqueue(definition, 1, { priority: 'high' })).id)
  ids.push((await jobs.enqueue(definition, 1)).id)
  await jobs.enqueue(definition, 1, { delayMs: 60_000 })
  await until(async () => (await mine()).some(({ oldestMs }) => (oldestMs ?? 0) >= 50))
  const stats = await mine()
  expect(stats.map(({ oldestMs: _, ...rest }) => rest)).toEqual(
    expect.arrayContaining([
      { name: definition.name, priority: 'normal', queued: 2, processing: 1, paused: false },
      { name: definition.name, priority: 'high', queued: 2, processing: 0, paused: false },
    ]),
  )
  const oldest = stats.find(({ priority }) => priority === 'normal')?.oldestMs ?? -1
  expect(oldest).toBeGreaterThanOrEqual(0)
  expect(oldest).toBeLessThan(Date.now() - ((await jobs.get(first.id))?.createdAt ?? 0) + 1_000)
  open()
  for (const id of ids) await jobs.wait(id)
  for (const queue of await mine()) expect(queue).toMatchObject({ queued: 0, processing: 0, oldestMs: null })
  await worker.stop()
  await jobs.drain()
})

it('workers tells who is there from the start to the stop, and what each holds', async () => {
  const { jobs } = stage
  const definition = kind()
  const { open, opened } = gate()
  const worker = await jobs.work(definition, () => opened, { concurrency: 3, workerId: 'mine' })
  const mine = async () => (await jobs.workers()).find(({ id }) => id === 'mine')
  expect(await mine()).toMatchObject({
    id: 'mine',
    name: definition.name,
    concurrency: 3,
    pid: process.pid,
    node: process.version,
    runningCount: 0,
  })
  const { id } = await jobs.enqueue(definition, 1)
  // Told again every ten seconds.
  await until(async () => (await mine())?.running.includes(id), { what: 'the job among those it runs' })
  expect(await mine()).toMatchObject({ runningCount: 1 })
  open()
  await jobs.wait(id)
  await worker.stop()
  expect(await mine()).toBeUndefined()
})
