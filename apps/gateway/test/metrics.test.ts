// What /metrics tells: in Prometheus' text format, with labels of a known few values, on the ops port only.
import { CLOSE } from '@jobs/protocol'
import { until } from '@jobs/testkit'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { dial } from './dial.ts'
import { type Harness, startHarness } from './harness.ts'

let h: Harness
beforeAll(async () => {
  h = await startHarness()
})
afterAll(() => h.stop())

const scrape = async () => {
  const response = await fetch(`http://127.0.0.1:${h.gateway.opsPort}/metrics`)
  return { type: response.headers.get('content-type'), text: await response.text() }
}

it('counts what happened to sockets, rooms and reads', async () => {
  const held = await h.claim(await h.enqueue())
  const watchers = await Promise.all(Array.from({ length: 3 }, () => h.watch()))
  for (const watcher of watchers) watcher.send({ type: 'subscribe', job: held.id })
  for (const watcher of watchers) await watcher.next('live')
  for (let op = 1; op <= 50; op++) await h.jobs.transitions.progress(held, op, `${op}`)
  for (const watcher of watchers) await watcher.next((m) => m.type === 'events' && m.to === 52)
  const during = await h.metrics()
  expect(during).toMatchObject({
    jobs_gateway_ready: 1,
    jobs_gateway_sockets: 3,
    jobs_gateway_rooms: 1,
    jobs_gateway_watchers: 3,
    jobs_gateway_opened_total: 3,
  })
  const reads = during['jobs_gateway_reads_total{kind="snapshot"}'] ?? 0
  expect(reads).toBeGreaterThan(0)
  expect(reads + (during.jobs_gateway_coalesced_total ?? 0)).toBe(3)
  expect(during.jobs_gateway_publish_to_socket_seconds_count).toBeGreaterThan(0)
  expect(during['jobs_gateway_publish_to_socket_seconds_bucket{le="10"}']).toBe(
    during.jobs_gateway_publish_to_socket_seconds_count,
  )
  watchers[0]?.send({ type: 'subscribe', job: (await h.jobs.get(await h.enqueue()))?.id, cursor: '9-9' })
  await watchers[0]?.next('reset')
  expect(await h.metrics()).toMatchObject({ 'jobs_gateway_resets_total{reason="ahead"}': 1 })
  for (let i = 0; i < 10; i++) watchers[1]?.send('nonsense')
  expect((await watchers[1]?.closed)?.code).toBe(4010)
  watchers[2]?.socket.close(4999)
  await watchers[2]?.closed
  watchers[0]?.terminate()
  await until(async () => (await h.metrics()).jobs_gateway_sockets === 0)
  expect(await h.metrics()).toMatchObject({
    'jobs_gateway_closed_total{code="4010"}': 1,
    'jobs_gateway_closed_total{code="1006"}': 1,
    'jobs_gateway_closed_total{code="other"}': 1,
    jobs_gateway_watchers: 0,
  })
  await until(async () => ((await h.metrics()).jobs_gateway_probe_round_trip_seconds ?? 0) > 0)
  expect((await h.metrics()).jobs_gateway_probe_age_seconds).toBeLessThan(5)
})

it('is text that Prometheus reads, and labels have values of ours only', async () => {
  const id = await h.enqueue()
  const watcher = await h.watch()
  watcher.send({ type: 'subscribe', job: id })
  await watcher.next('live')
  await dial(h.gateway.port, { headers: { 'sec-websocket-protocol': 'evil"} 1' } })
  for (const path of ['/x', '/y?token=secret']) await fetch(`http://127.0.0.1:${h.gateway.port}${path}`)
  const { type, text } = await scrape()
  expect(type).toContain('text/plain; version=0.0.4')
  const series =
    /^([a-zA-Z_:][\w:]*)(\{(?:[a-zA-Z_]\w*="(?:[^"\\\n]|\\.)*",?)*\})? (NaN|[+-]?(?:Inf|\d+(?:\.\d+)?(?:e[+-]?\d+)?))$/
  const lines = text.trimEnd().split('\n')
  expect(lines.filter((line) => line !== '' && !/^# (HELP|TYPE) /.test(line) && !series.test(line))).toEqual(
    [],
  )
  const ours = lines.filter((line) => line.startsWith('jobs_gateway_'))
  const labels = new Set(
    ours.flatMap((line) => [...line.matchAll(/(\w+)="([^"]*)"/g)].map(([, l, v]) => `${l}=${v}`)),
  )
  const codes = [...Object.values(CLOSE).map(({ code }) => String(code)), 'other']
  const known: Record<string, RegExp> = {
    code: new RegExp(`^(${codes.join('|')}|10\\d\\d)$`),
    reason:
      /^(\d{3}|connections|address|address_rate|rate|dropped|draining|trimmed|diverged|ahead|too_far|redis_recovered)$/,
    cause: /^(number|reconnect)$/,
    kind: /^(snapshot|replay)$/,
    le: /^(\d+(\.\d+)?|\+Inf)$/,
    version: /^\d+\.\d+\.\d+$/,
    node: /^v\d+\.\d+\.\d+$/,
  }
  const unknown = [...labels].filter((pair) => {
    const [label = '', value = ''] = pair.split('=')
    return !known[label]?.test(value)
  })
  expect(unknown).toEqual([])
  for (const secret of [id, 'secret', 'evil', '127.0.0.1']) expect(text).not.toContain(secret)
  watcher.terminate()
})

it('is not on the public port', async () => {
  for (const path of ['/metrics', '/livez', '/readyz'])
    expect((await fetch(`http://127.0.0.1:${h.gateway.port}${path}`)).status).toBe(404)
})
