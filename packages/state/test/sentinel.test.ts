// Jobs on a master behind sentinels: through failovers in order and the sudden death of the master.
import { startSentinel, type TestSentinel } from '@jobs/testkit'
import { afterAll, afterEach, beforeAll, it } from 'vitest'
import { type Load, startLoad } from './load.ts'

let redis: TestSentinel
let load: Load | undefined
beforeAll(async () => {
  redis = await startSentinel()
})
afterEach(() => load?.stop())
afterAll(() => redis.stop())

it('goes on after a failover in order', async () => {
  load = await startLoad(redis.url, { partitions: 2, ackReplicas: 2 })
  await load.progress(200)
  await redis.failover()
  await load.progress(200)
  await load.check()
})

it('goes on after the master was killed, and keeps what a replica had', async () => {
  await redis.settled()
  load = await startLoad(redis.url, { partitions: 2, ackReplicas: 2 })
  await load.progress(200)
  const old = await redis.master()
  await old.server.kill('SIGKILL')
  await redis.replaced(old)
  await load.progress(40)
  await old.server.restart()
  await redis.settled()
  await load.progress(200)
  await load.check()
})
