// What a user's compiler says of the public API: `pnpm types` fails when a type is not what stands here.
import {
  type BatchItem,
  defineJob,
  type JobContext,
  type JobEvent,
  type Jobs,
  type Outcome,
  type Snapshot,
  type SnapshotOf,
  type State,
  type Token,
  type TokenOptions,
  Worker,
} from '@jobs/state'
import { startTestJobs } from '@jobs/state/testing'
import { expectTypeOf } from 'vitest'
import { z } from 'zod'

const resize = defineJob({
  name: 'resize',
  payload: z.object({ file: z.string(), width: z.number().default(100) }),
  progress: z.object({ done: z.number() }),
  result: z.object({ bytes: z.number() }),
})
const anything = defineJob({ name: 'anything' })

/** Never run: only compiled. */
export const enqueueing = async (jobs: Jobs): Promise<void> => {
  const { id, state, duplicate } = await jobs.enqueue(resize, { file: 'a.png' })
  expectTypeOf(id).toEqualTypeOf<string>()
  expectTypeOf(state).toEqualTypeOf<State | null>()
  expectTypeOf(duplicate).toEqualTypeOf<boolean>()
  await jobs.enqueue(resize, { file: 'a.png', width: 7 }, { priority: 'high', runAt: new Date() })
  await jobs.enqueue(anything, new Map())
  await jobs.enqueueMany(resize, [{ payload: { file: 'a' } }, { payload: { file: 'b' }, options: {} }])
  // @ts-expect-error the payload has no file
  await jobs.enqueue(resize, { width: 7 })
  // @ts-expect-error a file is a text
  await jobs.enqueue(resize, { file: 7 })
  // @ts-expect-error there is no such priority
  await jobs.enqueue(resize, { file: 'a' }, { priority: 'urgent' })
  // @ts-expect-error there is no such option
  await jobs.enqueue(resize, { file: 'a' }, { delay: 7 })
  // @ts-expect-error one of the batch is wrong
  await jobs.enqueueMany(resize, [{ payload: { file: 'a' } }, { payload: {} }])
}

export const tokens = async (jobs: Jobs): Promise<void> => {
  const { id, token, expiresAt } = await jobs.enqueue(resize, { file: 'a.png' }, { token: true })
  expectTypeOf(id).toEqualTypeOf<string>()
  expectTypeOf(token).toEqualTypeOf<string>()
  expectTypeOf(expiresAt).toEqualTypeOf<number>()
  const untold = await jobs.enqueue(resize, { file: 'a.png' }, { owner: 'ann' })
  // @ts-expect-error it was not asked for
  expectTypeOf(untold.token).toBeString()
  // @ts-expect-error which job it is for is known
  await jobs.enqueue(resize, { file: 'a' }, { token: { jobs: '*' } })
  // @ts-expect-error a batch has one token: jobs.token
  await jobs.enqueueMany(resize, [{ payload: { file: 'a' }, options: { token: true } }])
  expectTypeOf(await jobs.token({ jobs: [id], tags: ['red'], lifeMs: 60_000 })).toEqualTypeOf<Token>()
  // @ts-expect-error ids, or `*`
  await jobs.token({ jobs: id })
  await jobs.revoke({ jti: 'a' })
  // @ts-expect-error of one or of a subject
  await jobs.revoke({ id: 'a' })
  const options: TokenOptions[] = [
    { algorithm: 'HS256', secret: 'a secret of at least 32 characters' },
    { algorithm: 'EdDSA', privateKey: 'PEM', keyId: '1' },
    // @ts-expect-error HS256 has a secret
    { algorithm: 'HS256', privateKey: 'PEM' },
  ]
  expectTypeOf(options).toBeArray()
}

export const working = (jobs: Jobs): void => {
  new Worker(jobs, resize, async (job) => {
    expectTypeOf(job).toEqualTypeOf<JobContext<{ file: string; width: number }, { done: number }>>()
    // The default of the schema has been filled in.
    expectTypeOf(job.payload.width).toEqualTypeOf<number>()
    expectTypeOf(job.checkpoint).toEqualTypeOf<unknown>()
    expectTypeOf(job.signal).toEqualTypeOf<AbortSignal>()
    await job.progress({ done: 1 })
    // @ts-expect-error progress has another shape
    await job.progress({ percent: 1 })
    // @ts-expect-error the payload is not the handler's to change
    job.payload = { file: 'b', width: 1 }
    return { bytes: 7 }
  })
  new Worker(jobs, resize, () => ({ bytes: 7 }), { concurrency: 4, rate: { max: 1 } })
  // @ts-expect-error the result has another shape
  new Worker(jobs, resize, () => ({ size: 7 }))
  // @ts-expect-error a result is missing
  new Worker(jobs, resize, () => undefined)
  // @ts-expect-error there is no such option
  new Worker(jobs, resize, () => ({ bytes: 7 }), { threads: 4 })
  const worker = new Worker(jobs, anything, ({ payload }) => {
    expectTypeOf(payload).toEqualTypeOf<unknown>()
  })
  worker.on('failed', ({ id, attempt, error }) => {
    expectTypeOf(id).toEqualTypeOf<string>()
    expectTypeOf(attempt).toEqualTypeOf<number>()
    expectTypeOf(error.code).toEqualTypeOf<string | undefined>()
  })
}

export const reading = async (jobs: Jobs, id: string): Promise<void> => {
  expectTypeOf(await jobs.get(id)).toEqualTypeOf<Snapshot | null>()
  expectTypeOf(await jobs.wait(id)).toEqualTypeOf<Snapshot>()
  expectTypeOf(await jobs.payload(id)).toEqualTypeOf<unknown>()
  expectTypeOf(await jobs.payload(id, { of: resize })).toEqualTypeOf<{
    file: string
    width: number
  } | null>()
  expectTypeOf(await jobs.get(id, { of: resize })).toEqualTypeOf<SnapshotOf<
    { done: number },
    { bytes: number }
  > | null>()
  const job = await jobs.wait(id, { of: resize, signal: AbortSignal.timeout(1_000) })
  expectTypeOf(job.progress).toEqualTypeOf<{ done: number } | null>()
  expectTypeOf(job.result).toEqualTypeOf<{ bytes: number } | null>()
  if (job.state === 'COMPLETED') expectTypeOf(job.result).toEqualTypeOf<{ bytes: number }>()
  else expectTypeOf(job.result).toEqualTypeOf<null>()
  const seen = await jobs.until(id, ({ attempt }) => attempt > 1, { of: resize })
  expectTypeOf(seen).toEqualTypeOf<SnapshotOf<{ done: number }, { bytes: number }>>()
  // @ts-expect-error there is no such state
  await jobs.list({ state: 'DONE' })
}

export const outcomes = (outcome: Outcome, item: BatchItem): void => {
  if (outcome.ok) expectTypeOf(outcome.state).toEqualTypeOf<State>()
  else expectTypeOf(outcome.state).toEqualTypeOf<State | null>()
  // @ts-expect-error a reason is only with a refusal
  expectTypeOf(outcome.reason).toBeString()
  if (item.ok) expectTypeOf(item.id).toEqualTypeOf<string>()
  else expectTypeOf(item.error.code).toBeString()
  // @ts-expect-error an error is only with a refusal
  expectTypeOf(item.error).toBeObject()
}

export const events = async (jobs: Jobs, id: string): Promise<void> => {
  for await (const event of jobs.events(id, { after: '3-1795457647345' })) {
    expectTypeOf(event).toEqualTypeOf<JobEvent>()
    expectTypeOf(event.seq).toEqualTypeOf<number>()
    if (event.type === 'state') expectTypeOf(event.state).toEqualTypeOf<State>()
    else if (event.type === 'log') expectTypeOf(event.line).toEqualTypeOf<string>()
    else expectTypeOf(event.type).toEqualTypeOf<'progress'>()
    // @ts-expect-error only a log line has one
    expectTypeOf(event.line).toBeString()
  }
}

export const testing = async (): Promise<void> => {
  const jobs = await startTestJobs()
  const { job } = await jobs.run(resize, ({ payload }) => ({ bytes: payload.width }), { file: 'a' })
  if (job.state === 'COMPLETED') expectTypeOf(job.result).toEqualTypeOf<{ bytes: number }>()
  // @ts-expect-error the result has another shape
  await jobs.run(resize, () => ({ size: 7 }), { file: 'a' })
  // @ts-expect-error the payload has no file
  await jobs.run(resize, () => ({ bytes: 7 }), {})
  expectTypeOf(await jobs.until('id', 'PROCESSING')).toEqualTypeOf<Snapshot>()
  // @ts-expect-error there is no such state
  await jobs.until('id', 'DONE')
  await jobs.step('1h')
  await jobs.step('2.5s')
  await jobs.step(500)
  // @ts-expect-error this is no time
  await jobs.step('an hour')
  // @ts-expect-error there is no such unit
  await jobs.step('1w')
}
