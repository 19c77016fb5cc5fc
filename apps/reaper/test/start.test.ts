// Starting wrong: one clear error each, and an exit code.

import { freePort } from '@jobs/provision'
import { connectJobs } from '@jobs/state'
import { fromSource, startApp, startProcess } from '@jobs/testkit'
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

it.each(['reaper', 'gateway'])(
  'the %s refuses a Redis that evicts keys, unless it is told to go on; then it says so',
  async (app) => {
    h = await startHarness()
    await h.redis.client().config('SET', 'maxmemory-policy', 'allkeys-lru')
    const main = `apps/${app}/src/main.ts`
    const env = { ...h.env, GATEWAY_PORT: '0', GATEWAY_OPS_PORT: '0' }
    const refused = startProcess(process.execPath, fromSource(main), { env })
    expect(await refused.exited).toEqual({ code: 1, signal: null })
    expect(refused.stdout.join('\n')).toMatch(/UNSAFE_REDIS.*allkeys-lru.*JOBS_ALLOW_UNSAFE_REDIS/)
    const allowed = await startApp(main, { ...env, JOBS_ALLOW_UNSAFE_REDIS: 'true' })
    expect(allowed.stdout.join('\n')).toContain('"code":"evicts_keys"')
    await allowed.kill('SIGTERM')
  },
)
