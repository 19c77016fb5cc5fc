// Many clients that stop reading: what the gateway holds for all of them stays below its bound, and nobody else notices.
import { until } from '@jobs/testkit'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { type Harness, startHarness } from './harness.ts'

const MAX_QUEUED_BYTES = 1_048_576

let h: Harness
beforeAll(async () => {
  h = await startHarness({ env: { GATEWAY_MAX_QUEUED_BYTES: String(MAX_QUEUED_BYTES) } })
})
afterAll(() => h.stop())

it('cuts stalled readers with 4203 before all of them hold more than the bound', async () => {
  const id = await h.enqueue()
  const held = await h.claim(id)
  // Each may hold a quarter of the bound, and a little.
  const stalled = await Promise.all(Array.from({ length: 7 }, () => h.watch()))
  const prompt = await h.watch()
  for (const watcher of [...stalled, prompt]) {
    watcher.send({ type: 'subscribe', job: id })
    await watcher.next('live')
  }
  for (const { socket } of stalled) socket.pause()
  const filler = 'x'.repeat(7_000)
  let op = 0
  const cut = async () => ((await h.metrics())['jobs_gateway_closed_total{code="4203"}'] ?? 0) >= 3
  // What the system takes for each socket comes first: some megabytes.
  do {
    const batch = Array.from({ length: 100 }, () => h.jobs.transitions.progress(held, ++op, `"${filler}"`))
    await Promise.all(batch)
  } while (!(await cut()))
  // It is counted at each round: what came since the last one is told in the next.
  await until(async () => ((await h.metrics()).jobs_gateway_queued_bytes ?? 0) <= MAX_QUEUED_BYTES, {
    what: 'a sum below the bound',
  })
  await h.jobs.transitions.complete(held, '1')
  await prompt.next('complete')
  let seq = 2
  for (const m of prompt.messages.filter(({ type }) => type === 'events')) {
    expect(m.from).toBe(seq + 1)
    seq = m.to
  }
  expect(seq).toBe(op + 3)
  for (const { socket } of [...stalled, prompt]) socket.terminate()
})
