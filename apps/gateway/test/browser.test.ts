// A browser's own EventSource, and its own fetch, on a page of another origin: what a page does that brings no library.
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { findProgram } from '@jobs/provision'
import { startProxy } from '@jobs/testkit'
import { chromium } from 'playwright-core'
import { expect, it } from 'vitest'
import { startHarness } from './harness.ts'

const chromiumPath = findProgram('chromium')
if (chromiumPath === undefined) console.log('EventSource is not tested: there is no chromium on the PATH.')

interface Seen {
  /** Of each event: the numbers it told, and the position it leads to. */
  events: { seqs: number[]; id: string }[]
  complete: boolean
  opened: number
  /** Codes of errors that it was told. */
  errors: string[]
  source: EventSource
}

it.runIf(chromiumPath !== undefined)(
  'EventSource sees each event once through a connection that drops, and stops after complete',
  async () => {
    const h = await startHarness()
    const proxy = await startProxy(h.gateway.port)
    const pages = createServer((_, response) => {
      response.writeHead(200, { 'content-type': 'text/html' }).end('<!doctype html><title>page</title>')
    })
    await new Promise<void>((resolve) => pages.listen(0, '127.0.0.1', resolve))
    const browser = await chromium.launch({
      executablePath: chromiumPath as string,
      args: ['--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking'],
    })
    const held = await h.claim(await h.enqueue())
    let op = 0
    const report = async (count: number) => {
      for (let i = 0; i < count; i++) await h.jobs.transitions.progress(held, ++op, `${op}`)
    }

    const page = await browser.newPage()
    await page.goto(`http://127.0.0.1:${(pages.address() as AddressInfo).port}/`)
    const url = `http://127.0.0.1:${proxy.port}/v1/jobs/${held.id}`
    await page.evaluate((address) => {
      const source = new EventSource(address)
      const seen: Seen = { events: [], complete: false, opened: 0, errors: [], source }
      Object.assign(globalThis, { seen })
      source.onopen = () => seen.opened++
      source.onmessage = ({ data, lastEventId }) => {
        const messages = [JSON.parse(data)].flat()
        const items = messages.flatMap((message) => message.items ?? [])
        if (items.length > 0) seen.events.push({ seqs: items.map(({ seq }) => seq), id: lastEventId })
        if (messages.some(({ type }) => type === 'complete')) seen.complete = true
        for (const { type, code } of messages) if (type === 'error') seen.errors.push(code)
      }
    }, `${url}/events`)
    const until = (told: number, opened: number) =>
      page.waitForFunction(
        ([seq, times]) => {
          const { seen } = globalThis as unknown as { seen: Seen }
          return seen.events.at(-1)?.seqs.at(-1) === seq && seen.opened === times
        },
        [told, opened] as const,
      )
    await page.waitForFunction(() => (globalThis as unknown as { seen: Seen }).seen.opened === 1)
    await report(5)
    await until(7, 1)
    proxy.refuse(true)
    proxy.cutAll()
    await report(5)
    proxy.refuse(false)
    await until(12, 2)

    // While Redis can't be read it is told so, and comes back.
    await h.redis.freeze()
    proxy.cutAll()
    await page.waitForFunction(() => (globalThis as unknown as { seen: Seen }).seen.errors.length > 0)
    await h.redis.thaw()
    await report(2)
    await page.waitForFunction(
      () => (globalThis as unknown as { seen: Seen }).seen.events.at(-1)?.seqs.at(-1) === 14,
    )

    // With a token a page reads by fetch, which asks for leave first.
    const read = await page.evaluate(async (address) => {
      const response = await fetch(address, { headers: { authorization: 'Bearer any' } })
      const { seq } = (await response.json()) as { seq: number }
      return [response.status, response.headers.get('etag') !== null, seq]
    }, url)
    expect(read).toEqual([200, true, 14])

    await h.jobs.transitions.complete(held, '1')
    // It comes back after the end by itself, is answered 204, and gives up.
    await page.waitForFunction(
      () => (globalThis as unknown as { seen: Seen }).seen.source.readyState === EventSource.CLOSED,
    )
    const seen = await page.evaluate(() => {
      const { events, complete, errors } = (globalThis as unknown as { seen: Seen }).seen
      return { seqs: events.flatMap(({ seqs }) => seqs), complete, errors: [...new Set(errors)] }
    })
    expect(seen).toEqual({
      seqs: Array.from({ length: 13 }, (_, i) => i + 3),
      complete: true,
      errors: ['unavailable'],
    })
    await browser.close()
    pages.close()
    await proxy.close()
    await h.stop()
  },
)
