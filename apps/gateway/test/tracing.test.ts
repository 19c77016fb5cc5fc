// OpenTelemetry: spans of what clients ask for where an SDK is loaded and OTEL_… is set; none otherwise.
import { join } from 'node:path'
import { until } from '@jobs/testkit'
import { afterEach, expect, it } from 'vitest'
import { type Harness, startHarness } from './harness.ts'

const NODE_OPTIONS = [
  `--import=${import.meta.resolve('tsx')}`,
  `--import=${join(import.meta.dirname, 'span-printer.ts')}`,
].join(' ')
const TRACEPARENT = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'

let h: Harness
afterEach(() => h.stop())

const askAll = async () => {
  const id = await h.enqueue()
  const watcher = await h.watch()
  watcher.send({ type: 'subscribe', job: id })
  await watcher.next('live')
  watcher.terminate()
  await fetch(`http://127.0.0.1:${h.gateway.port}/v1/jobs/${id}`, { headers: { traceparent: TRACEPARENT } })
  return id
}
const spans = () =>
  h.gateway.stdout.filter((line) => line.includes('"tracer"')).map((line) => JSON.parse(line))

it('has a span for each job that is watched or read, as part of the trace of its request', async () => {
  h = await startHarness({ env: { NODE_OPTIONS, OTEL_SERVICE_NAME: 'gateway' } })
  const id = await askAll()
  await until(() => spans().length === 2)
  const common = { tracer: '@jobs/gateway', attributes: { 'jobs.job': id } }
  expect(spans()).toEqual([
    expect.objectContaining({ ...common, name: 'watch' }),
    expect.objectContaining({ ...common, name: 'read', parent: TRACEPARENT }),
  ])
})

it.each([{}, { OTEL_SERVICE_NAME: 'gateway', OTEL_SDK_DISABLED: 'true' }])(
  'has none with %j',
  async (env) => {
    h = await startHarness({ env: { NODE_OPTIONS, ...env } as Record<string, string> })
    await askAll()
    expect(spans()).toEqual([])
  },
)
