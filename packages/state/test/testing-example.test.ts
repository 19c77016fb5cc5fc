// The example of docs/testing.md, run: testing.test.ts sees that it stands there as it stands here.
import { startTestRedis } from '@jobs/testkit'

const redis = await startTestRedis()
process.env.REDIS_URL = redis.url
afterAll(() => redis.stop())

// The example:
import { defineJob } from '@jobs/state'
import { startTestJobs, type TestJobs } from '@jobs/state/testing'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { z } from 'zod'

const sendMail = defineJob({
  name: 'send-mail',
  payload: z.object({ to: z.string() }),
  result: z.object({ messageId: z.string() }),
})

let jobs: TestJobs
beforeAll(async () => {
  jobs = await startTestJobs() // REDIS_URL, or { url }
})
afterAll(() => jobs.close())

it('sends a mail', async () => {
  const { job } = await jobs.run(sendMail, async ({ payload }) => ({ messageId: `to ${payload.to}` }), {
    to: 'ada@example.com',
  })
  expect(job).toMatchObject({ state: 'COMPLETED', result: { messageId: 'to ada@example.com' } })
})

it('tries again when the mail server is away, for a day', async () => {
  let hours = 0
  const { job, attempts } = await jobs.run(
    sendMail,
    () => {
      if (++hours < 24) throw new Error('the mail server is away')
      return { messageId: 'late' }
    },
    { to: 'ada@example.com' },
    { maxAttempts: 24, backoff: { type: 'fixed', delayMs: 3_600_000, maxMs: 3_600_000 } },
  )
  expect(job).toMatchObject({ state: 'COMPLETED', failures: 23 })
  expect(attempts.at(-1)).toMatchObject({ attempt: 24, outcome: 'completed' })
})

it('sends one mail though the worker dies after sending', async () => {
  const sent = new Set<string>()
  const { job } = await jobs.run(
    sendMail,
    async ({ id, attempt }) => {
      // The mail server knows a mail by its key, and sends it once.
      sent.add(id)
      if (attempt === 1) await jobs.crash(id)
      return { messageId: id }
    },
    { to: 'ada@example.com' },
  )
  expect(job).toMatchObject({ state: 'COMPLETED', crashes: 1 })
  expect(sent.size).toBe(1)
})

it('reminds after a week, unless it is cancelled', async () => {
  const sent: string[] = []
  const worker = await jobs.work(sendMail, async ({ payload }) => {
    sent.push(payload.to)
    return { messageId: 'reminder' }
  })
  const week = 7 * 86_400_000
  const { id } = await jobs.enqueue(sendMail, { to: 'ada@example.com' }, { delayMs: week })
  const unwanted = await jobs.enqueue(sendMail, { to: 'bob@example.com' }, { delayMs: week })
  await jobs.cancel(unwanted.id)
  await jobs.step('6d')
  expect((await jobs.get(id))?.state).toBe('SCHEDULED')
  await jobs.step('1d')
  expect(await jobs.until(id, 'COMPLETED')).toMatchObject({ result: { messageId: 'reminder' } })
  expect(sent).toEqual(['ada@example.com'])
  await worker.stop()
})
