// Other engines: asked for by name, from the machine's own mirror, and told when they can't be had.
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { ENGINES, engineMissing, findRedis, startRedis } from '@jobs/provision'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { sourcesFor } from '../src/debian-release.ts'

let dir: string
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'jobs-engine-'))
})
afterAll(() => rm(dir, { recursive: true, force: true }))

describe('the sources of another release', () => {
  const from = (...files: [name: string, text: string][]) =>
    sourcesFor(
      'trixie',
      'bookworm',
      files.map(([name, text]) => ({ name, text })),
    )

  it('are those of Debian itself, in either format, with their options', () => {
    const list = [
      '# deb http://commented.test/debian bookworm main',
      'deb [signed-by=/k.gpg arch=amd64] http://mirror.test/debian bookworm main contrib',
      'deb-src http://mirror.test/debian bookworm main',
      'deb http://mirror.test/debian bookworm-updates main',
      'deb https://others.test/linux/debian bookworm stable',
    ]
    expect(from(['/etc/apt/sources.list', list.join('\n')])).toEqual({
      list: 'deb [signed-by=/k.gpg arch=amd64] http://mirror.test/debian trixie main',
      sources: '',
    })
    const stanzas = [
      '# a mirror\nTypes: deb deb-src\nURIs: mirror+file:///m.list\nSuites: bookworm bookworm-updates\nComponents: main contrib\nSigned-By:\n -----BEGIN KEY-----\n .\n abc',
      'Types: deb\nURIs: http://mirror.test/security\nSuites: bookworm-security\nComponents: main',
      'Enabled: no\nTypes: deb\nURIs: http://off.test/debian\nSuites: bookworm\nComponents: main',
    ]
    expect(from(['debian.sources', stanzas.join('\n\n')])).toEqual({
      list: '',
      sources:
        'types: deb\nuris: mirror+file:///m.list\nsuites: trixie\ncomponents: main\nsigned-by: -----BEGIN KEY-----\n .\n abc',
    })
  })

  it('are none on a machine that has only others’', () => {
    expect(from(['a.list', 'deb https://others.test/apt nodistro main'])).toEqual({ list: '', sources: '' })
  })
})

it('refuses an engine that nobody knows', async () => {
  await expect(findRedis({ env: { JOBS_REDIS_ENGINE: 'redis-5' } })).rejects.toMatchObject({
    code: 'REDIS_NOT_FOUND',
    message: expect.stringContaining('redis-8, valkey-8'),
  })
})

it('says why an engine can’t be had, and takes no other', async () => {
  const env = { JOBS_REDIS_ENGINE: 'valkey-8', JOBS_CACHE_DIR: '/dev/null', REDIS_URL: 'redis://a.test' }
  await expect(findRedis({ env })).rejects.toMatchObject({
    code: 'REDIS_NOT_FOUND',
    message: expect.stringMatching(/JOBS_REDIS_ENGINE=valkey-8: ./),
  })
})

const missing = await Promise.all(ENGINES.map((engine) => engineMissing(engine)))

describe.each(ENGINES.map((engine, i) => ({ engine, why: missing[i] })))('$engine', ({ engine, why }) => {
  it.skipIf(why)(
    why ? `SKIPPED, it can't be had: ${why}` : 'starts, is killed, and starts again with its data folder',
    async () => {
      const source = await findRedis({ env: { ...process.env, JOBS_REDIS_ENGINE: engine } })
      expect(source.described).toMatch(engine === 'redis-8' ? /^Redis 8\./ : /^Valkey 8\./)
      const redis = await startRedis(source, { dir: await mkdtemp(join(dir, 'data-')), appendonly: true })
      expect(redis.pid).toBeGreaterThan(0)
      await redis.kill('SIGKILL')
      await redis.restart()
      await redis.stop()
    },
  )
})
