// A snapshot over HTTP whose reader does not take it: counted while it waits, and cut when that is too long or too much.
import { createServer, get, type IncomingMessage } from 'node:http'
import type { AddressInfo } from 'node:net'
import { until } from '@jobs/testkit'
import { afterEach, expect, it, vi } from 'vitest'
import { Answers } from '../src/http/answers.ts'
import { rounds } from '../src/sockets/rounds.ts'

/** More than the system buffers between two sockets. */
const BODY = Buffer.alloc(32_000_000, 'x')

const answers = new Answers()
const server = createServer((_, response) => {
  response.writeHead(200, { 'content-length': BODY.length })
  answers.send(response, BODY)
})
const { maxQueuedBytes } = rounds
afterEach(() => {
  vi.useRealTimers()
  rounds.maxQueuedBytes = maxQueuedBytes
  server.close()
})

const ask = async (): Promise<IncomingMessage> => {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return new Promise((resolve) => {
    get({ port: (server.address() as AddressInfo).port, agent: false }, (response) => {
      response.on('error', () => undefined)
      resolve(response.pause())
    })
  })
}

it('goes to the end to a reader that takes it, and is not counted then', async () => {
  const response = await ask()
  expect(answers.queuedBytes).toBeGreaterThan(0)
  response.resume()
  await until(() => response.complete)
  expect(answers.queuedBytes).toBe(0)
})

it('is cut after ten seconds', async () => {
  vi.useFakeTimers({ toFake: ['performance', 'setInterval', 'clearInterval'] })
  const response = await ask()
  vi.advanceTimersByTime(9_900)
  expect(answers.queuedBytes).toBeGreaterThan(0)
  vi.advanceTimersByTime(200)
  response.resume()
  await new Promise((resolve) => response.on('close', resolve))
  expect([response.complete, answers.queuedBytes]).toEqual([false, 0])
})

it('is cut when all sockets together leave too much untaken', async () => {
  rounds.maxQueuedBytes = 1_000_000
  const response = await ask()
  response.resume()
  await new Promise((resolve) => response.on('close', resolve))
  expect([response.complete, answers.queuedBytes]).toEqual([false, 0])
})
