// docs/security.md against what there is: each case names a test that exists; and the rules that are about the sources hold.
import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import { fromSource, startProcess, startTestRedis } from '@jobs/testkit'
import { expect, it } from 'vitest'

const root = join(dirname(fileURLToPath(import.meta.url)), '../../..')
const read = (path: string) => readFileSync(join(root, path), 'utf8')

const rows = read('docs/security.md')
  .split('\n')
  .filter((line) => /^\| (?!what is sent|case)/.test(line))
const cases = rows.map((row) => {
  const [, sent = '', , tests = ''] = row.split(/(?<!\\)\|/).map((cell) => cell.trim())
  const named = [...tests.matchAll(/`([a-z]+)\/([a-z-]+)`((?: "(?:[^"\\]|\\.)*")+)/g)].map(
    ([, folder = '', file = '', quoted = '']) => ({
      folder,
      file,
      titles: [...quoted.matchAll(/"((?:[^"\\]|\\.)*)"/g)].map(([, title = '']) =>
        title.replace(/\\"/g, '"'),
      ),
    }),
  )
  return { sent, named }
})

const fileOf = (folder: string, file: string): string => {
  const part = ['gateway', 'reaper', 'cli'].includes(folder) ? 'apps' : 'packages'
  return read(`${part}/${folder}/test/${file}.test.ts`)
}

it.each(cases)('$sent: has its test', ({ named }) => {
  expect(named.flatMap(({ titles }) => titles).length).toBeGreaterThan(0)
  for (const { folder, file, titles } of named) {
    const text = fileOf(folder, file)
    // As a string of the file: a title, or the name of a case.
    const missing = titles.filter((title) => !["'", '`', '"'].some((q) => text.includes(q + title + q)))
    expect({ file, missing }).toEqual({ file, missing: [] })
  }
})

it('has a row for every case that is known', () => expect(cases.length).toBeGreaterThan(60))

/** What runs in production. */
const sources = ['apps', 'packages'].flatMap((part) =>
  readdirSync(join(root, part)).flatMap((name) =>
    readdirSync(join(root, part, name, 'src'), { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile() && /\.[jt]sx?$/.test(entry.name))
      .map((entry) => relative(root, join(entry.parentPath, entry.name))),
  ),
)

it('runs no Lua but the files of packages/state/lua', () => {
  const runners = sources.filter((path) => /['"`](EVAL|FCALL)|\.eval\w*\(/.test(read(path)))
  // One runs what was generated from the files; the other is for tests of users, and its scripts are constants.
  expect(runners).toEqual(['packages/state/src/redis.ts', 'packages/state/src/testing/time.ts'])
  expect(read('packages/state/src/redis.ts')).toContain("'EVAL', script.source")
  for (const path of readdirSync(join(root, 'packages/state/lua')))
    expect(read(`packages/state/lua/${path}`)).not.toMatch(/\bloadstring\b|\bload\s*\(/)
})

it('checks every certificate', () => {
  const lax = /rejectUnauthorized|checkServerIdentity|NODE_TLS_REJECT_UNAUTHORIZED/
  expect(sources.filter((path) => lax.test(read(path)))).toEqual([])
})

it('depends at run time on a few packages, by name', () => {
  const used = [
    'apps/gateway',
    'apps/reaper',
    'packages/protocol',
    'packages/service',
    'packages/state',
  ].flatMap((path) => {
    const { dependencies = {}, peerDependencies = {} } = JSON.parse(read(`${path}/package.json`))
    return Object.keys({ ...dependencies, ...peerDependencies }).filter((name) => !name.startsWith('@jobs/'))
  })
  expect([...new Set(used)].sort()).toEqual([
    '@opentelemetry/api',
    'ioredis',
    'jose',
    'pino',
    'prom-client',
    'ws',
    'zod',
  ])
})

it('installs nothing that is new, exotic or runs scripts', () => {
  const settings = read('pnpm-workspace.yaml')
  expect(settings).toMatch(/^minimumReleaseAge: 1440$/m)
  expect(settings).toMatch(/^blockExoticSubdeps: true$/m)
  expect(settings).toMatch(/^strictDepBuilds: true$/m)
  const allowed = [...settings.matchAll(/^ {2}"?([\w@/.-]+)"?: true$/gm)].map(([, name]) => name)
  expect(allowed).toEqual(['node', 'esbuild'])
  // From the registry, by hash: no URL, no repository.
  const lock = read('pnpm-lock.yaml')
  expect(lock).not.toMatch(/tarball:|git\+|codeload|resolution: \{(?!integrity|variations|type: variations)/)
  expect(read('Dockerfile')).toContain('--frozen-lockfile')
})

it('says nothing of a password when it can’t start', async () => {
  const redis = await startTestRedis()
  const url = new URL(redis.url)
  url.username = 'nobody'
  url.password = 'hunter2'
  const env = { REDIS_URL: url.href, GATEWAY_PORT: '0', GATEWAY_OPS_PORT: '0', LOG_LEVEL: 'trace' }
  const gateway = startProcess(process.execPath, fromSource('apps/gateway/src/main.ts'), { env })
  await gateway.line((line) => line.includes('Trying again') || line.includes('could not start'))
  await gateway.kill('SIGKILL')
  expect([...gateway.stdout, ...gateway.stderr].join('\n')).not.toContain('hunter2')
  await redis.stop()
})
