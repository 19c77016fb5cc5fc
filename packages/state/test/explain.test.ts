// Why a job is not moving: each reason, with the figures that it promises.
import { defineJob } from '@jobs/state'
import { until } from '@jobs/testkit'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { gate, type Stage, startStage } from './stage.ts'

let stage: Stage
beforeAll(async () => {
  stage = await startStage()
})
afterAll(() => stage.stop())

let kinds = 0
const kind = () => defineJob({ name: `explained${kinds++}` })

const explain = async (id: string) => {
  const explanation = await stage.jobs.explain(id)
  expect(explanation?.job).toEqual(await stage.jobs.get(id))
  return explanation
}

/** Taken by a worker that is nowhere, with so long a lease. */
const take = async (name: string, leaseMs: number) => {
  const [keys] = stage.jobs.transitions.keys
  if (!keys) throw new Error('no partition')
  await stage.jobs.transitions.take(keys, name, 1, { worker: 'nowhere', nonce: 'n', leaseMs })
}

it('ended', async () => {
  const { job } = await stage.jobs.run(kind(), () => 1, 1)
  expect(await explain(job.id)).toMatchObject({ reason: 'ended', says: 'The job has ended: COMPLETED.' })
})

it('running, and since when its worker was heard', async () => {
  const { jobs } = stage
  const definition = kind()
  const { open, opened } = gate()
  const worker = await jobs.work(definition, () => opened)
  const { id } = await jobs.enqueue(definition, 1)
  await jobs.until(id, 'PROCESSING')
  const explanation = await explain(id)
  expect(explanation).toMatchObject({ reason: 'running', heldBy: worker.id })
  expect(explanation?.heartbeatAgeMs).toBeLessThan(5_000)
  expect(explanation?.says).toContain(`Attempt 1 is run by ${worker.id}`)
  open()
  await jobs.wait(id)
  await worker.stop()
})

it('cancelling: its worker was asked to stop', async () => {
  const { jobs } = stage
  const definition = kind()
  const { open, opened } = gate()
  const worker = await jobs.work(definition, () => opened)
  const { id } = await jobs.enqueue(definition, 1)
  await jobs.until(id, 'PROCESSING')
  await jobs.cancel(id)
  expect(await explain(id)).toMatchObject({ reason: 'cancelling', heldBy: worker.id })
  open()
  await jobs.wait(id)
  await worker.stop()
})

it('orphaned: its worker has not been heard for its lease; and when a reaper last looked', async () => {
  const { jobs } = stage
  const definition = kind()
  const { id } = await jobs.enqueue(definition, 1)
  await jobs.sweep()
  await take(definition.name, 1)
  await until(async () => (await jobs.explain(id))?.reason === 'orphaned')
  const explanation = await explain(id)
  expect(explanation).toMatchObject({ reason: 'orphaned', heldBy: 'nowhere', heartbeatAgeMs: null })
  expect(explanation?.sweptMsAgo).toBeLessThan(60_000)
  await jobs.step('1s')
  expect(await explain(id)).toMatchObject({ reason: 'no_worker' })
})

it('delayed, until when', async () => {
  const { id } = await stage.jobs.enqueue(kind(), 1, { delayMs: 60_000 })
  const explanation = await explain(id)
  expect(explanation).toMatchObject({ reason: 'delayed', until: explanation?.job.runAt })
  await stage.jobs.reschedule(id, { delayMs: 120_000 })
  expect((await explain(id))?.reason).toBe('delayed')
})

it('overdue: due, and no reaper queues it', async () => {
  const { jobs, redis } = stage
  const { id } = await jobs.enqueue(kind(), 1, { delayMs: 60_000 })
  const keys = jobs.transitions.keysFor(id)
  // Nobody else can make a time pass without the reaper's passes.
  await redis.client().hset(keys.job(id), 'place', Date.now() - 60_000)
  const explanation = await explain(id)
  expect(explanation).toMatchObject({ reason: 'overdue' })
  expect(explanation?.says).toMatch(/^It was due \d+ s ago and was not queued; a reaper last swept/)
  await jobs.step('60s')
})

it('backing off, after how many failures', async () => {
  const { jobs } = stage
  const definition = kind()
  const worker = await jobs.work(definition, () => {
    throw new Error('no')
  })
  const { id } = await jobs.enqueue(definition, 1, { backoff: { delayMs: 60_000, maxMs: 60_000 } })
  await jobs.until(id, 'SCHEDULED')
  const explanation = await explain(id)
  expect(explanation).toMatchObject({ reason: 'backing_off', until: explanation?.job.runAt })
  expect(explanation?.says).toContain('It failed 1 of 3 times')
  await worker.stop()
})

it('rate limited: its rate key is used up', async () => {
  const { jobs } = stage
  const definition = kind()
  const ids: string[] = []
  for (let i = 0; i < 2; i++) ids.push((await jobs.enqueue(definition, i, { rateKey: 'k' })).id)
  const worker = await jobs.work(definition, () => 1, { ratePerKey: { max: 1, perMs: 60_000 } })
  const [, second = ''] = ids
  const { runAt } = await jobs.until(second, 'SCHEDULED')
  expect(await explain(second)).toMatchObject({ reason: 'rate_limited', until: runAt })
  await worker.stop()
})

it('paused, by name or with all', async () => {
  const { jobs } = stage
  const definition = kind()
  const { id } = await jobs.enqueue(definition, 1)
  await jobs.pause(definition.name)
  expect(await explain(id)).toMatchObject({
    reason: 'paused',
    says: `The job name ${definition.name} is paused.`,
  })
  await jobs.resume(definition.name)
  await jobs.pause()
  expect(await explain(id)).toMatchObject({ reason: 'paused', says: 'All job names are paused.' })
  await jobs.resume()
})

it('no worker: nobody takes its name, however many take others', async () => {
  const { jobs } = stage
  const [wanted, other] = [kind(), kind()]
  const worker = await jobs.work(other, () => 1)
  const ids: string[] = []
  for (let i = 0; i < 3; i++) ids.push((await jobs.enqueue(wanted, i)).id)
  expect(await explain(ids[2] ?? '')).toMatchObject({ reason: 'no_worker', workers: 0, ahead: 2 })
  await worker.stop()
})

it('waiting, behind how many: the older ones and all of higher priority', async () => {
  const { jobs } = stage
  const definition = kind()
  const { open, opened } = gate()
  const worker = await jobs.work(definition, () => opened)
  const running = await jobs.enqueue(definition, 0)
  await jobs.until(running.id, 'PROCESSING')
  const make = async (priority: 'high' | 'normal' | 'low') =>
    (await jobs.enqueue(definition, 1, { priority })).id
  const ids = [await make('normal'), await make('low'), await make('normal'), await make('high')]
  const ahead = []
  for (const id of ids) {
    const explanation = await explain(id)
    expect(explanation).toMatchObject({ reason: 'waiting', workers: 1 })
    ahead.push(explanation?.ahead)
  }
  expect(ahead).toEqual([1, 3, 2, 0])
  open()
  for (const id of ids) await jobs.wait(id)
  await worker.stop()
})

it('waiting, as the next of a worker whose rate is used up', async () => {
  const { jobs } = stage
  const definition = kind()
  const worker = await jobs.work(definition, () => 1, { rate: { max: 1, perMs: 60_000 } })
  const first = await jobs.enqueue(definition, 1)
  await jobs.wait(first.id)
  const { id } = await jobs.enqueue(definition, 2)
  await until(async () => (await jobs.explain(id))?.ahead === 0)
  expect(await explain(id)).toMatchObject({ reason: 'waiting', workers: 1, ahead: 0 })
  await worker.stop()
})

it('undelivered: the worker that read it has gone', async () => {
  const { jobs } = stage
  const definition = kind()
  const { id } = await jobs.enqueue(definition, 1)
  const worker = await jobs.work(kind(), () => 1)
  const work = jobs.transitions.keysFor(id).work(definition.name)
  await jobs.link.once(['XREADGROUP', 'GROUP', 'workers', 'gone', 'STREAMS', work, '>'], 1_000)
  expect(await explain(id)).toMatchObject({ reason: 'no_worker' })
  const { open, opened } = gate()
  const late = await jobs.work(definition, () => opened)
  const undelivered = await explain(id)
  expect(undelivered).toMatchObject({ reason: 'undelivered', workers: 1 })
  expect(undelivered?.sweptMsAgo).toBeLessThan(600_000)
  await jobs.step('2s')
  open()
  expect(await jobs.wait(id)).toMatchObject({ state: 'COMPLETED', attempt: 1 })
  await Promise.all([worker.stop(), late.stop()])
})

it('nothing, for a job that is not there', async () => {
  expect(await stage.jobs.explain('nobody')).toBeNull()
})
