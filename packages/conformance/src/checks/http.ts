// The routes beside the socket, where a gateway offers them.
import { request } from 'node:http'
import { must, short, skip } from '../outcome.ts'
import type { Bench, Check } from '../run.ts'
import { live } from './subscriptions.ts'

const get = (bench: Bench, path: string, token: string | undefined, headers: Record<string, string> = {}) =>
  new Promise<{ status: number; etag: string | undefined; type: string; body: string }>((resolve, reject) => {
    const all = { ...headers, ...(token ? { authorization: `Bearer ${token}` } : {}) }
    const asked = request(bench.origin + path, { headers: all, timeout: bench.waitMs }, (response) => {
      let body = ''
      response.setEncoding('utf8').on('data', (chunk) => {
        body += chunk
      })
      response.on('error', reject)
      response.on('end', () =>
        resolve({
          status: response.statusCode ?? 0,
          etag: response.headers.etag,
          type: response.headers['content-type'] ?? '',
          body,
        }),
      )
    })
    asked.on('timeout', () => asked.destroy(new Error(`GET ${path} does not end`)))
    asked.on('error', reject)
    asked.end()
  })

/** The server-sent events of a stream. */
const eventsOf = (body: string): { id: string | undefined; messages: { type: string; from?: number }[] }[] =>
  body
    .split(/\r?\n\r?\n/)
    .map((block) => block.split(/\r?\n/))
    .filter((lines) => lines.some((line) => line.startsWith('data:')))
    .map((lines) => {
      const field = (name: string) =>
        lines
          .filter((line) => line.startsWith(`${name}:`))
          .map((line) => line.slice(name.length + 1).replace(/^ /, ''))
      return { id: field('id')[0], messages: [JSON.parse(field('data').join('\n'))].flat() }
    })

export const http: Check[] = [
  {
    name: 'http/snapshot',
    promise:
      'GET /v1/jobs/:id is the snapshot as JSON; ETag is the cursor, If-None-Match gives 304, an unknown job 404',
    run: async (bench) => {
      const job = await bench.driver.create()
      const token = await bench.token?.()
      const first = await get(bench, `/v1/jobs/${job}`, token)
      if (first.status === 404) skip('this gateway does not offer the route')
      must(first.status === 200 && first.type.includes('application/json'), 'HTTP 200 with JSON', first)
      const { state, cursor } = JSON.parse(first.body)
      must(
        state === 'QUEUED' && first.etag?.includes(cursor) === true,
        'the snapshot; the cursor as ETag',
        first,
      )
      const again = await get(bench, `/v1/jobs/${job}`, token, { 'if-none-match': first.etag as string })
      must(again.status === 304, 'HTTP 304', again)
      await bench.driver.claim(job)
      const changed = await get(bench, `/v1/jobs/${job}`, token, { 'if-none-match': first.etag as string })
      must(changed.status === 200, 'HTTP 200 after a change', changed)
      const unknown = await get(bench, '/v1/jobs/no-such-job', token)
      must(unknown.status === 404, 'HTTP 404 for an unknown job', unknown)
    },
  },
  {
    name: 'http/events',
    promise:
      'GET /v1/jobs/:id/events tells the same messages; Last-Event-ID resumes; it ends after `complete`, then gives 204',
    run: async (bench) => {
      const job = await bench.driver.create()
      await live(bench.driver, job)
      const token = await bench.token?.()
      const path = `/v1/jobs/${job}/events`
      const whole = await get(bench, path, token)
      if (whole.status === 404) skip('this gateway does not offer the route')
      must(
        whole.status === 200 && whole.type.includes('text/event-stream'),
        'HTTP 200 with an event stream',
        whole,
      )
      const types = eventsOf(whole.body).flatMap(({ messages }) => messages.map(({ type }) => type))
      must(
        short(types.slice(-2)) === short(['snapshot', 'complete']),
        'snapshot and complete, then the end',
        types,
      )
      const { id: last } = eventsOf(whole.body).findLast(({ id }) => id !== undefined) ?? {}
      must(last !== undefined, '`id:` is the cursor', whole.body)
      const over = await get(bench, path, token, { 'last-event-id': last as string })
      must(over.status === 204, 'HTTP 204 on a reconnect after `complete`', over)
      const rest = await get(bench, path, token, { 'last-event-id': '0-0' })
      const events = eventsOf(rest.body).flatMap(({ messages }) => messages)
      must(events.find(({ type }) => type === 'events')?.from === 1, 'Last-Event-ID resumes', rest.body)
      must(events.at(-1)?.type === 'complete', 'and it ends with `complete`', rest.body)
    },
  },
]
