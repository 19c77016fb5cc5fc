// A room behind sentinels: the watcher sees every event once and in order while the master changes.
import { Jobs } from '@jobs/state'
import { openWatcher, startApp, startSentinel, until } from '@jobs/testkit'
import { expect, it } from 'vitest'
import { anyJob, Follower } from './harness.ts'

it('tells a room every event once, whichever server is the master', async () => {
  const redis = await startSentinel()
  const jobs = new Jobs({ url: redis.url, namespace: 'rooms', commandTimeoutMs: 1_000, deadlineMs: 20_000 })
  const gateway = await startApp('apps/gateway/src/main.ts', {
    ...{ REDIS_URL: redis.url, JOBS_NAMESPACE: 'rooms', GATEWAY_PORT: '0', GATEWAY_OPS_PORT: '0' },
  })
  try {
    const { transitions } = jobs
    const { id } = await jobs.enqueue(anyJob, {})
    const keys = transitions.keysFor(id)
    const { grants } = await transitions.take(keys, 'any', 1, { worker: 'w', nonce: 'n', leaseMs: 60_000 })
    const [held] = grants
    if (!held) throw new Error('the job was not taken')
    const follower = new Follower(id, '0-0')
    const watcher = await openWatcher(`ws://127.0.0.1:${gateway.port}/v1/ws`)
    follower.subscribe(watcher)
    let op = 0
    const report = async (count: number) => {
      for (const end = op + count; op < end; ) await transitions.progress(held, ++op, `{"done":${op}}`)
      await until(
        () => {
          follower.take()
          return follower.seq === op + 2
        },
        { what: 'every event being told' },
      )
    }
    await report(20)
    await redis.failover()
    await report(20)
    await transitions.complete(held, '"end"')
    await watcher.next('complete')
    follower.take()
    expect(follower.told).toEqual(Array.from({ length: op + 3 }, (_, i) => i + 1))
    expect(follower.resets).toEqual([])
    const ready = async () => (await fetch(`http://127.0.0.1:${gateway.opsPort}/readyz`)).status
    await until(async () => (await ready()) === 200, { what: '/readyz green' })
  } finally {
    await gateway.kill('SIGKILL')
    await jobs.close()
    await redis.stop()
  }
})
