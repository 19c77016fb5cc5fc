// The reply of a steering move gets lost on the wire, and before the link repeats it others go on with the job. The move
// answers as the first time, and has been made once.
import { defineJob, type JobEvent, Jobs } from '@jobs/state'
import { type CommandProxy, startCommandProxy } from '@jobs/testkit'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { type Stage, startStage } from './stage.ts'

let stage: Stage
let proxy: CommandProxy
/** Connected through the proxy. */
let far: Jobs
/** Done once, when a move is about to be sent again. */
let meanwhile: (() => Promise<unknown>) | undefined
let sent = 0

beforeAll(async () => {
  stage = await startStage()
  proxy = await startCommandProxy(stage.redis.port)
  far = new Jobs({
    url: `redis://127.0.0.1:${proxy.port}`,
    namespace: stage.jobs.namespace,
    fault: async (point, command) => {
      if (point !== 'before' || command !== 'apply' || ++sent !== 2) return
      const act = meanwhile
      meanwhile = undefined
      await act?.()
    },
  })
  await far.counts()
})
afterAll(async () => {
  await far.close()
  await proxy.close()
  await stage.stop()
})

/** Makes the move; its reply is cut off, and before it is repeated something else happens. */
const losing = async <T>(
  move: string,
  make: () => Promise<T>,
  between: () => Promise<unknown>,
): Promise<T> => {
  sent = 0
  meanwhile = between
  const cut = proxy.cutAt((command) => command.includes(move), 'after')
  const [answer] = await Promise.all([make(), cut])
  expect(sent).toBe(2)
  expect(meanwhile).toBeUndefined()
  return answer
}

let kinds = 0
const kind = () => defineJob({ name: `lost${kinds++}` })

const eventsOf = async (id: string): Promise<Extract<JobEvent, { type: 'state' }>[]> => {
  const events: Extract<JobEvent, { type: 'state' }>[] = []
  const { seq } = (await stage.jobs.get(id)) ?? { seq: 0 }
  if (seq === 0) return events
  for await (const event of stage.jobs.events(id)) {
    if (event.type === 'state') events.push(event)
    if (event.seq === seq) break
  }
  return events
}
const movesOf = async (id: string) => (await eventsOf(id)).map(({ move }) => move)
/** The cursor of the n-th event. */
const cursorAt = async (id: string, seq: number) => {
  const event = (await eventsOf(id)).find((each) => each.seq === seq)
  return `${seq}-${event?.at}`
}

it('reschedule by a delay moves the time once', async () => {
  const { id } = await stage.jobs.enqueue(kind(), 1)
  let runAt: number | null | undefined
  const answer = await losing(
    'reschedule',
    () => far.reschedule(id, { delayMs: 60_000 }),
    async () => {
      runAt = (await stage.jobs.get(id))?.runAt
    },
  )
  expect(answer).toEqual({ ok: true, state: 'SCHEDULED', cursor: await cursorAt(id, 2), repeat: false })
  expect(await stage.jobs.get(id)).toMatchObject({ state: 'SCHEDULED', runAt })
  expect(await movesOf(id)).toEqual(['enqueue', 'reschedule'])
})

it('reschedule does not undo another that came after it', async () => {
  const { id } = await stage.jobs.enqueue(kind(), 1)
  const answer = await losing(
    'reschedule',
    () => far.reschedule(id, { delayMs: 60_000 }),
    () => stage.jobs.reschedule(id, { delayMs: 0 }),
  )
  expect(answer).toMatchObject({ ok: true, state: 'SCHEDULED', repeat: false })
  expect(await stage.jobs.get(id)).toMatchObject({ state: 'QUEUED' })
  expect(await movesOf(id)).toEqual(['enqueue', 'reschedule', 'reschedule'])
})

it('rerun runs the job once, though that run has ended by the time of the repeat', async () => {
  const { jobs, workOff } = stage
  const definition = kind()
  let runs = 0
  const handler = () => ++runs
  const { job } = await jobs.run(definition, handler, 1)
  const answer = await losing(
    'rerun',
    () => far.rerun(job.id),
    () => workOff(definition, handler, [job.id]),
  )
  expect(answer).toEqual({ ok: true, state: 'QUEUED', cursor: await cursorAt(job.id, 4), repeat: false })
  expect(await jobs.get(job.id)).toMatchObject({ state: 'COMPLETED', result: 2 })
  expect(await movesOf(job.id)).toEqual(['enqueue', 'claim', 'complete', 'rerun', 'claim', 'complete'])
})

it('cancel does not end a job that was run again since', async () => {
  const { id } = await stage.jobs.enqueue(kind(), 1)
  const answer = await losing(
    'cancel',
    () => far.cancel(id),
    () => stage.jobs.rerun(id),
  )
  expect(answer).toEqual({ ok: true, state: 'CANCELLED', cursor: await cursorAt(id, 2), repeat: false })
  expect(await stage.jobs.get(id)).toMatchObject({ state: 'QUEUED', cancelRequested: false })
})

it('cancel of a running job asks its worker once', async () => {
  const { jobs } = stage
  const { job } = await jobs.run(
    kind(),
    ({ id }) =>
      losing(
        'cancel',
        () => far.cancel(id),
        () => Promise.resolve(),
      ),
    1,
  )
  expect(job.result).toMatchObject({ ok: true, state: 'PROCESSING', repeat: false })
  expect(await movesOf(job.id)).toEqual(['enqueue', 'claim', 'cancel', 'complete'])
})

it('a move is known again after others steered the job, and the job keeps no more than the last three', async () => {
  const { jobs, redis } = stage
  const { id } = await jobs.enqueue(kind(), 1)
  await losing(
    'reschedule',
    () => far.reschedule(id, { delayMs: 60_000 }),
    async () => {
      await jobs.cancel(id)
      await jobs.rerun(id)
    },
  )
  expect(await jobs.get(id)).toMatchObject({ state: 'QUEUED' })
  for (let i = 1; i < 10; i++) await jobs.reschedule(id, { delayMs: i * 60_000 })
  const steered = String(await redis.client().hget(jobs.transitions.keysFor(id).job(id), 'steered'))
  expect(steered.split(' ').map((one) => Number(one.split(':')[1]))).toEqual([13, 12, 11])
  expect(steered.length).toBeLessThanOrEqual(64)
})

it('remove deletes the job once; its repeat finds none', async () => {
  const { job } = await stage.jobs.run(kind(), () => 1, 1)
  const answer = await losing(
    'remove',
    () => far.remove(job.id),
    () => Promise.resolve(),
  )
  expect(answer).toEqual({ ok: true, repeat: true })
  expect(await stage.jobs.get(job.id)).toBeNull()
})

it('drain counts what it cancelled, and leaves alone what was run again since', async () => {
  const { jobs } = stage
  const definition = kind()
  const made = await jobs.enqueueMany(
    definition,
    Array.from({ length: 20 }, (_, payload) => ({ payload })),
  )
  const [first = ''] = made.map(({ id }) => id ?? '')
  const drained = await losing(
    'cancel',
    () => far.drain(definition.name),
    () => jobs.rerun(first),
  )
  expect(drained).toBe(20)
  expect(await jobs.get(first)).toMatchObject({ state: 'QUEUED' })
})

it('enqueue with a key is one job, though it has been run and removed by the time of the repeat', async () => {
  const { jobs } = stage
  const definition = kind()
  let runs = 0
  let first = ''
  const enqueued = await losing(
    'enqueue',
    () => far.enqueue(definition, 1, { key: 'k' }),
    async () => {
      const [job] = (await jobs.list({ name: definition.name, state: 'QUEUED' })).jobs
      first = job?.id ?? ''
      await stage.workOff(definition, () => ++runs, [first])
      await jobs.remove(first)
    },
  )
  expect(enqueued).toMatchObject({ id: first, state: null })
  expect(await jobs.get(first)).toBeNull()
  expect(runs).toBe(1)
})

it('pause and resume leave the name as the last of them said', async () => {
  const { jobs } = stage
  const definition = kind()
  const { id } = await jobs.enqueue(definition, 1)
  const paused = async () => (await jobs.queues()).find(({ name }) => name === definition.name)?.paused
  const nothing = () => Promise.resolve()
  await losing('pause', () => far.pause(definition.name), nothing)
  expect(await paused()).toBe(true)
  await losing('resume', () => far.resume(definition.name), nothing)
  expect(await paused()).toBe(false)
  await jobs.cancel(id)
})
