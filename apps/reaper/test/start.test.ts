// Starting wrong: one clear error each, and an exit code.

import { freePort } from '@jobs/provision'
import { connectJobs } from '@jobs/state'
import { fromSource, startProcess } from '@jobs/testkit'
import { afterEach, expect, it } from 'vitest'
import { type Harness, startHarness } from './harness.ts'

let h: Harness | undefined
afterEach(async () => {
  await h?.stop()
  h = undefined
})

const start = (env: Record<string, string>) =>
  startProcess(process.execPath, fromSource('apps/reaper/src/main.ts'), {
    env: { REAPER_OPS_PORT: '0', ...env },
  })

it('tells every wrong setting at once and exits 2', async () => {
  const reaper = start({ REDIS_URL: 'localhost', JOBS_PARTITIONS: 'many', REAPER_INTERVAL_MS: '-1' })
  expect(await reaper.exited).toEqual({ code: 2, signal: null })
  const output = reaper.stdout.join('\n')
  for (const name of ['REDIS_URL', 'JOBS_PARTITIONS', 'REAPER_INTERVAL_MS']) expect(output).toContain(name)
})

it('says which address it can’t reach, tries again, and exits 1 after a limit', async () => {
  const port = await freePort()
  const reaper = start({ REDIS_URL: `redis://:secret@127.0.0.1:${port}` })
  await reaper.line((line) => line.includes('Trying again') && line.includes(`127.0.0.1:${port}`))
  expect(await reaper.exited).toEqual({ code: 1, signal: null })
  expect(reaper.stdout.join('\n')).not.toContain('secret')
})

it('refuses a namespace that has another number of partitions, and says what to set', async () => {
  h = await startHarness()
  await (await connectJobs({ url: h.redis.url, namespace: h.jobs.namespace, partitions: 4 })).close()
  const reaper = start({ ...h.env, JOBS_PARTITIONS: '2' })
  expect(await reaper.exited).toEqual({ code: 1, signal: null })
  expect(reaper.stdout.join('\n')).toContain('JOBS_PARTITIONS=4')
})
