// The thread that beats starts wherever the library runs: compiled, from source by Node or tsx; and where it can't, the
// worker says so and goes on.
import { execFileSync } from 'node:child_process'
import { cp, mkdir, mkdtemp, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { startProcess, startTestRedis, type TestRedis } from '@jobs/testkit'
import { afterAll, beforeAll, expect, it } from 'vitest'

const PACKAGE = join(import.meta.dirname, '..')
const BLOCKING = join(import.meta.dirname, 'blocking.mjs')

let redis: TestRedis
let folder: string
beforeAll(async () => {
  // Inside the package, so that what is compiled finds its dependencies; and out of the way of a real build.
  const cache = join(PACKAGE, 'node_modules/.cache')
  await mkdir(cache, { recursive: true })
  folder = await mkdtemp(join(cache, 'beat-thread-'))
  redis = await startTestRedis()
  execFileSync('tsc', ['-p', 'tsconfig.build.json', '--outDir', join(folder, 'dist')], { cwd: PACKAGE })
  await cp(join(folder, 'dist'), join(folder, 'bundled'), { recursive: true })
  await rm(join(folder, 'bundled/beat-thread.js'))
})
afterAll(async () => {
  await redis.stop()
  await rm(folder, { recursive: true, force: true })
})

const run = async (state: string, flags: string[] = []) => {
  const namespace = `n${Math.random().toString(36).slice(2)}`
  const started = startProcess(process.execPath, [...flags, BLOCKING], {
    env: { REDIS_URL: redis.url, NAMESPACE: namespace, STATE: pathToFileURL(state).href, NODE_OPTIONS: '' },
  })
  const { code } = await started.exited
  return { code, output: [...started.stdout, ...started.stderr] }
}

it.each([
  ['compiled, by plain Node', () => [join(folder, 'dist/index.js')] as const],
  ['from source, by plain Node', () => [join(PACKAGE, 'src/index.ts')] as const],
  [
    'from source, by tsx',
    () =>
      [
        join(PACKAGE, 'src/index.ts'),
        ['--conditions=@jobs/source', '--import', import.meta.resolve('tsx')],
      ] as const,
  ],
])('beats for a blocked loop: %s; and the process ends by itself', async (_, how) => {
  const [state, flags] = how()
  expect(await run(state, [...(flags ?? [])])).toEqual({ code: 0, output: ['beaten 1 attempt 1'] })
})

it('where the thread’s file is missing, as in a bundle, the loop beats and an error says so once', async () => {
  expect(await run(join(folder, 'bundled/index.js'))).toEqual({
    code: 0,
    output: ['error NO_BEAT_THREAD', 'beaten 0 attempt 1'],
  })
})
