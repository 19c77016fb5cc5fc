// A room behind sentinels: the watcher sees every event once and in order while the master changes.
import { Jobs } from '@jobs/state'
import { startSentinel } from '@jobs/testkit'
import { it } from 'vitest'
import { followThrough } from './harness.ts'

it('tells a room every event once, whichever server is the master', async () => {
  const redis = await startSentinel()
  const jobs = new Jobs({ url: redis.url, namespace: 'rooms', commandTimeoutMs: 1_000, deadlineMs: 20_000 })
  try {
    await followThrough(jobs, [() => redis.failover()])
  } finally {
    await jobs.close()
    await redis.stop()
  }
})
