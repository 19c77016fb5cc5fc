// A stop in order: nobody new, everybody told, closes spread, an end in time; and a rolling restart that nobody notices.
import { openWatcher, type TestApp, until, type Watcher } from '@jobs/testkit'
import { afterEach, expect, it } from 'vitest'
import { dial } from './dial.ts'
import { Follower, type Harness, startHarness } from './harness.ts'

let h: Harness
afterEach(() => h.stop())

const opsStatus = async (path: string) => (await fetch(`http://127.0.0.1:${h.gateway.opsPort}${path}`)).status

/** A client whose socket takes nothing, with more waiting for it than the system buffers. */
const stalledWatcher = async (): Promise<Watcher> => {
  const held = await h.claim(await h.enqueue())
  const stalled = await h.watch()
  stalled.send({ type: 'subscribe', job: held.id })
  await stalled.next('live')
  stalled.socket.pause()
  const text = `"${'x'.repeat(7_000)}"`
  await Promise.all(Array.from({ length: 500 }, (_, i) => h.jobs.transitions.progress(held, i + 1, text)))
  return stalled
}

it('refuses newcomers and is not ready from the signal on, and is alive until the end', async () => {
  h = await startHarness()
  // It keeps the gateway for the two seconds that a close may take.
  const stalled = await stalledWatcher()
  const watcher = await h.watch()
  h.gateway.kill('SIGTERM')
  await watcher.next('draining')
  expect(await opsStatus('/readyz')).toBe(503)
  expect(await opsStatus('/livez')).toBe(200)
  expect(await dial(h.gateway.port)).toMatchObject({ status: 503, retryAfter: '1' })
  expect((await fetch(`http://127.0.0.1:${h.gateway.port}/v1/ws`)).headers.get('retry-after')).toBe('1')
  expect((await watcher.closed).code).toBe(4300)
  expect(await h.gateway.exited).toEqual({ code: 0, signal: null })
  stalled.terminate()
})

it('spreads its closes over the time it announced', async () => {
  h = await startHarness()
  const watchers = await h.watchMany(500)
  const closedAt: number[] = []
  const closes = watchers.map(async ({ closed }) => {
    const { code } = await closed
    closedAt.push(performance.now())
    return code
  })
  h.gateway.kill('SIGTERM')
  const { spreadMs } = (await watchers[0]?.next('draining')) ?? { spreadMs: 0 }
  expect(spreadMs).toBe(1_000)
  expect(new Set(await Promise.all(closes))).toEqual(new Set([4300]))
  expect(Math.max(...closedAt) - Math.min(...closedAt)).toBeGreaterThan(spreadMs / 4)
  expect((await h.gateway.exited).code).toBe(0)
})

it('ends by its deadline, though clients take nothing', async () => {
  h = await startHarness({ env: { GATEWAY_DRAIN_MS: '1000' } })
  const stalled = await stalledWatcher()
  const began = performance.now()
  h.gateway.kill('SIGTERM')
  expect((await h.gateway.exited).code).toBe(0)
  expect(performance.now() - began).toBeLessThan(4_000)
  // In order, not by the guard against a stop that takes too long.
  expect(h.gateway.stdout.at(-1)).toContain('"msg":"stopped"')
  stalled.terminate()
})

it('ends at once at the second signal', async () => {
  h = await startHarness()
  const stalled = await stalledWatcher()
  const watcher = await h.watch()
  h.gateway.kill('SIGTERM')
  await watcher.next('draining')
  h.gateway.kill('SIGTERM')
  expect((await h.gateway.exited).code).toBe(1)
  stalled.terminate()
})

it('a rolling restart of three gateways under load loses nothing and doubles nothing', async () => {
  h = await startHarness()
  const gateways: TestApp[] = [h.gateway, await h.anotherGateway(), await h.anotherGateway()]
  const ids = await Promise.all(Array.from({ length: 8 }, () => h.enqueue()))
  const ops = new Map<string, number>()
  let working = true
  const work = ids.map(async (id) => {
    const held = await h.claim(id)
    let op = 0
    while (working) {
      await h.jobs.transitions.progress(held, ++op, `${op}`)
      ops.set(id, op)
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
    await h.jobs.transitions.complete(held, '1')
  })
  for (const each of work) each.catch(() => undefined)
  let moves = 0
  const followers = Array.from({ length: 24 }, (_, i) => new Follower(ids[i % 8] as string, '0-0'))
  const follow = async (follower: Follower, first: number) => {
    for (let at = first; !follower.complete; at++) {
      const watcher = await openWatcher(`ws://127.0.0.1:${gateways[at % 3]?.port}/v1/ws`).catch(
        () => undefined,
      )
      if (!watcher) {
        await new Promise((resolve) => setTimeout(resolve, 20))
        continue
      }
      follower.subscribe(watcher)
      const ended = watcher.next('complete', 60_000).catch(() => undefined)
      await Promise.race([watcher.closed, ended])
      follower.take()
      watcher.terminate()
      moves++
    }
  }
  const following = followers.map((follower, i) => follow(follower, i))
  const least = () => {
    for (const follower of followers) follower.take()
    return Math.min(...followers.map(({ seq }) => seq))
  }
  const more = async () => {
    const from = Math.max(...followers.map(({ seq }) => seq))
    await until(() => least() > from + 10, { what: 'all seeing ten more events', timeoutMs: 40_000 })
  }
  for (let i = 0; i < 3; i++) {
    await more()
    const old = gateways[i] as TestApp
    old.kill('SIGTERM')
    expect((await old.exited).code).toBe(0)
    gateways[i] = await h.anotherGateway(old.port)
  }
  await more()
  working = false
  await Promise.all([...work, ...following])
  for (const follower of followers) {
    expect(follower.resets).toEqual([])
    const count = (ops.get(follower.job) ?? 0) + 3
    expect(follower.told).toEqual(Array.from({ length: count }, (_, i) => i + 1))
  }
  // Each socket had to move at least once.
  expect(moves).toBeGreaterThanOrEqual(48)
  for (const gateway of gateways) await gateway.kill('SIGKILL')
})
