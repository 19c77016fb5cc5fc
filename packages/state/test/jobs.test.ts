// What a backend imports: checked input, reading, following, steering.
import { defineJob, StateError } from '@jobs/state'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { z } from 'zod'
import { anyJob, type Harness, startHarness } from './harness.ts'

let h: Harness
beforeAll(async () => {
  h = await startHarness()
})
afterAll(() => h.stop())

const typed = defineJob({ name: 'typed', payload: z.object({ file: z.string() }) })

describe('bad input', () => {
  it.each([
    ['a payload against its schema', 'INVALID_PAYLOAD', () => h.jobs.enqueue(typed, { file: 1 } as never)],
    ['a payload too large', 'TOO_LARGE', () => h.jobs.enqueue(anyJob, 'x'.repeat(1_100_000))],
    ['an id with braces', 'INVALID_JOB_ID', () => h.jobs.enqueue(anyJob, 1, { id: 'a}b' })],
    ['an id that is empty', 'INVALID_JOB_ID', () => h.jobs.get('')],
    ['an unknown option', 'INVALID_OPTIONS', () => h.jobs.enqueue(anyJob, 1, { wait: 1 } as never)],
    ['an unknown state', 'INVALID_STATE', () => h.jobs.list({ state: 'DANCING' as never })],
    ['a listing cursor that is none', 'INVALID_CURSOR', () => h.jobs.list({ state: 'QUEUED', cursor: '?' })],
    ['an event cursor that is none', 'INVALID_CURSOR', () => h.jobs.events('a', { after: 'x' }).next()],
    ['an unknown job to follow', 'UNKNOWN_JOB', () => h.jobs.events('unknown').next()],
    ['an unknown job to wait for', 'UNKNOWN_JOB', () => h.jobs.wait('unknown')],
  ])('is refused: %s', async (_, code, call) => {
    const before = await h.redis.digest()
    await expect((async () => call())()).rejects.toMatchObject({ name: 'StateError', code })
    expect(await h.redis.digest()).toBe(before)
  })

  it('is refused: an id that another payload has', async () => {
    await h.jobs.enqueue(anyJob, 1, { id: 'taken' })
    const before = await h.redis.digest()
    await expect(h.jobs.enqueue(anyJob, 2, { id: 'taken' })).rejects.toMatchObject({ code: 'ID_CONFLICT' })
    expect(await h.redis.digest()).toBe(before)
  })

  it('is refused: a job name that is none', () => {
    expect(() => defineJob({ name: 'a b' })).toThrow(StateError)
  })
})

it('keeps a payload to the byte: empty lists and large numbers', async () => {
  const payload = { list: [], text: '</script>\u2028', n: Number.MAX_SAFE_INTEGER, deep: [[{}]] }
  const { id } = await h.jobs.enqueue(anyJob, payload)
  expect(await h.jobs.payload(id)).toEqual(payload)
})

it('follows a job from any cursor, each event once, to its end', async () => {
  const id = await h.enqueue()
  const held = await h.claim(id)
  const seen: number[] = []
  const following = (async () => {
    for await (const event of h.jobs.events(id)) seen.push(event.seq)
  })()
  for (let op = 1; op <= 250; op++) await h.jobs.transitions.progress(held, op, String(op))
  await h.jobs.transitions.complete(held, '1')
  await following
  expect(seen).toEqual(Array.from({ length: 253 }, (_, i) => i + 1))
  const events = await h.history(id)
  const after: number[] = []
  for await (const event of h.jobs.events(id, { after: `250-${events[249]?.at}` })) after.push(event.seq)
  expect(after).toEqual([251, 252, 253])
})

it('throws EVENTS_TRIMMED for a position that is not in the stream', async () => {
  const id = await h.enqueue()
  await expect(h.jobs.events(id, { after: '1-1' }).next()).rejects.toMatchObject({ code: 'EVENTS_TRIMMED' })
  await expect(h.jobs.events(id, { after: '9-1' }).next()).rejects.toMatchObject({ code: 'EVENTS_TRIMMED' })
})

it('waits for the end of a job, and stops waiting when told to', async () => {
  const id = await h.enqueue()
  const waiting = h.jobs.wait(id)
  await h.jobs.transitions.complete(await h.claim(id), '{"ok":1}')
  expect(await waiting).toMatchObject({ state: 'COMPLETED', result: { ok: 1 } })
  const other = await h.enqueue()
  await expect(h.jobs.wait(other, { signal: AbortSignal.abort(new Error('enough')) })).rejects.toThrow(
    'enough',
  )
})

it('keeps a result too large for an event in the snapshot, and tells its size', async () => {
  const held = await h.jobIn('PROCESSING')
  const result = JSON.stringify('x'.repeat(20_000))
  await h.jobs.transitions.complete(held, result)
  expect((await h.history(held.id)).at(-1)).toMatchObject({ resultBytes: result.length })
  expect((await h.jobs.get(held.id))?.result).toHaveLength(20_000)
})

it('lists each state by pages that neither miss nor repeat', async () => {
  await h.redis.client().flushall()
  for (const state of ['QUEUED', 'PROCESSING', 'SCHEDULED', 'COMPLETED'] as const) {
    const ids: string[] = []
    for (let i = 0; i < 7; i++) ids.push((await h.jobIn(state)).id)
    const seen: string[] = []
    for (let cursor: string | null | undefined; cursor !== null; ) {
      const page = await h.jobs.list({ state, limit: 3, ...(cursor ? { cursor } : {}) })
      seen.push(...page.jobs.map(({ id }) => id))
      cursor = page.cursor
    }
    expect(seen.sort()).toEqual(ids.sort())
  }
  // Delivered entries count as processing: claims in this test read everything that waits.
  const counts = await h.jobs.counts()
  expect(counts).toMatchObject({ SCHEDULED: 7, COMPLETED: 7 })
  expect(counts.QUEUED + counts.PROCESSING).toBe(14)
})

it('cancels twice without harm', async () => {
  const held = await h.jobIn('PROCESSING')
  expect(await h.jobs.cancel(held.id)).toMatchObject({ ok: true, state: 'PROCESSING' })
  await h.jobs.transitions.abort(held)
  expect(await h.jobs.cancel(held.id)).toMatchObject({ ok: true, state: 'CANCELLED', repeat: true })
})
