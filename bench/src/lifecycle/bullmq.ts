// BullMQ as its documentation sets it up: a connection for adding, another for the worker, everything kept.
import { Queue, Worker } from 'bullmq'
import { Redis } from 'ioredis'
import type { Peer } from './peer.ts'

export const openBullMq = (url: string): Peer => {
  const connect = () => new Redis(url, { maxRetriesPerRequest: null })
  const connection = connect()
  const queue = new Queue('work', { connection })
  const other = new Queue('other', { connection })
  const closing: (() => Promise<unknown>)[] = []
  return {
    add: (payload) => queue.add('work', payload),
    addMany: (payloads) => queue.addBulk(payloads.map((data) => ({ name: 'work', data }))),
    addLater: (payloads) =>
      other.addBulk(payloads.map((data) => ({ name: 'work', data, opts: { delay: 86_400_000 } }))),
    work: async ({ concurrency, progress, started, ended }) => {
      const worker = new Worker(
        'work',
        async (job) => {
          started?.()
          if (progress === 'none') return
          await job.updateProgress(50)
          await job.updateProgress(100)
        },
        { connection: connect(), concurrency },
      )
      worker.on('completed', ended)
      worker.on('error', fail)
      worker.on('failed', (_, error) => fail(error))
      await worker.waitUntilReady()
      closing.push(() => worker.close(true))
    },
    idle: async () => {
      const worker = new Worker('work', async () => null, { connection: connect() })
      worker.on('error', fail)
      await worker.waitUntilReady()
      closing.push(() => worker.close(true))
    },
    close: async () => {
      await Promise.all(closing.map((close) => close()))
      await Promise.all([queue.close(), other.close()])
    },
  }
}

const fail = (error: unknown) => {
  console.error(error)
  process.exit(1)
}
