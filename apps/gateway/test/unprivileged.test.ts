// The processes as they are to be run: by nobody, without capabilities, where nothing can be written.
import { fromSource, startProcess, startTestRedis, type TestRedis, until } from '@jobs/testkit'
import { afterAll, beforeAll, expect, it } from 'vitest'

const NOBODY = 65_534
const mayBecomeNobody = process.platform === 'linux' && process.getuid?.() === 0

let redis: TestRedis
beforeAll(async () => {
  redis = await startTestRedis()
})
afterAll(() => redis.stop())

it.skipIf(!mayBecomeNobody).each(['gateway', 'reaper'])(
  'the %s starts, is ready and ends in order as uid 65534 in a folder that it can’t write to',
  async (app) => {
    const ids = [`--reuid=${NOBODY}`, `--regid=${NOBODY}`, '--clear-groups']
    const child = startProcess(
      'setpriv',
      [
        ...ids,
        '--no-new-privs',
        '--bounding-set=-all',
        process.execPath,
        ...fromSource(`apps/${app}/src/main.ts`),
      ],
      {
        cwd: '/',
        env: { REDIS_URL: redis.url, GATEWAY_PORT: '0', GATEWAY_OPS_PORT: '0', REAPER_OPS_PORT: '0' },
      },
    )
    const { opsPort } = JSON.parse(await child.line((line) => line.includes('"msg":"listening"')))
    await until(async () => (await fetch(`http://127.0.0.1:${opsPort}/readyz`)).status === 200, {
      what: '/readyz green',
    })
    child.kill('SIGTERM')
    expect(await child.exited).toEqual({ code: 0, signal: null })
    expect(child.stderr).toEqual([])
  },
)
