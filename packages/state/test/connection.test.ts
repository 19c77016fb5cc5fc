// A connection that was taken and not answered is not waited for without end.
import { RedisLink } from '@jobs/state'
import { startProxy, startTestRedis, until } from '@jobs/testkit'
import { expect, it } from 'vitest'

it('is made anew when its first commands were swallowed', async () => {
  const redis = await startTestRedis()
  const proxy = await startProxy(redis.port)
  const link = new RedisLink({ url: `redis://127.0.0.1:${proxy.port}`, deadlineMs: 15_000 })
  try {
    proxy.stall(true)
    const reply = link.call('PING')
    // The first connection would wait for ever: what was sent on it is lost for good.
    await until(() => proxy.accepted > 1, { what: 'another connection' })
    proxy.stall(false)
    expect(await reply).toBe('PONG')
  } finally {
    await link.close()
    await proxy.close()
    await redis.stop()
  }
})
