// Where Redis comes from, in which order, and what is said when it can't be had.
import { existsSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { findRedis, startRedis } from '@jobs/provision'
import { afterAll, beforeAll, expect, it } from 'vitest'

let dir: string
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'jobs-provision-'))
})
afterAll(() => rm(dir, { recursive: true, force: true }))

it('takes REDIS_URL first, and does not tell its password', async () => {
  const source = await findRedis({
    env: { REDIS_URL: 'redis://:secret@example.test:7', PATH: process.env.PATH },
  })
  expect(source).toMatchObject({ kind: 'url' })
  expect(source.described).not.toContain('secret')
})

it('names every choice when none is there', async () => {
  const nothing = { PATH: '', DOCKER_HOST: `unix://${join(dir, 'none.sock')}`, JOBS_REDIS_FROM: 'docker' }
  await expect(findRedis({ env: nothing })).rejects.toMatchObject({
    code: 'REDIS_NOT_FOUND',
    message: expect.stringMatching(/REDIS_URL.*PATH.*Docker.*apt-get/),
  })
})

it.runIf(existsSync('/usr/bin/apt-get'))(
  'unpacks Debian’s packages, by two at once, and starts what it unpacked',
  async () => {
    const env = { ...process.env, JOBS_CACHE_DIR: join(dir, 'cache'), JOBS_REDIS_FROM: 'debian' }
    const [source] = await Promise.all([findRedis({ env }), findRedis({ env })])
    expect(source.kind).toBe('binary')
    const redis = await startRedis(source, { dir, appendonly: true })
    expect(redis.pid).toBeGreaterThan(0)
    await redis.kill('SIGKILL')
    await redis.restart()
    await redis.stop()
  },
)
