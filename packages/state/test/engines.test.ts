// The matrix of state × move on every other engine that can be had here; `pnpm test:engines` runs the whole suite there.
import { ENGINES, engineMissing } from '@jobs/testkit'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type Harness, startHarness } from './harness.ts'
import { describeMatrix } from './matrix.ts'

const missing = await Promise.all(ENGINES.map((engine) => engineMissing(engine)))

for (const [i, engine] of ENGINES.entries()) {
  const why = missing[i]
  if (why) {
    console.warn(`SKIPPED: the tests on ${engine}. ${why}`)
    it.skip(`SKIPPED: ${engine} can't be had. ${why}`)
    continue
  }
  describe(engine, () => {
    let h: Harness
    beforeAll(async () => {
      h = await startHarness(engine)
    })
    afterAll(() => h.stop())

    it('is the engine that was asked for', async () => {
      const info = await h.redis.client().info('server')
      expect(info).toMatch(engine === 'redis-8' ? /^redis_version:8\./m : /^valkey_version:8\./m)
    })

    describeMatrix(() => h)
  })
}
