// A gateway process on a real Redis, a job to watch, and a client that keeps protocol.md's promises in view.
import { randomBytes } from 'node:crypto'
import { ServerMessage } from '@jobs/protocol'
import { defineJob, Jobs } from '@jobs/state'
import {
  type Message,
  openWatcher,
  startApp,
  startTestRedis,
  type TestApp,
  type TestRedis,
  until,
  type Watcher,
} from '@jobs/testkit'
import { expect } from 'vitest'

export const anyJob = defineJob({ name: 'any' })

export interface Held {
  id: string
  fence: string
}

export const startHarness = async ({
  redisUrl,
  appendonly = false,
  partitions = 1,
  env: settings = {},
}: {
  redisUrl?: (redis: TestRedis) => Promise<string>
  appendonly?: boolean
  partitions?: number
  /** Settings of the gateway. */
  env?: Record<string, string>
} = {}) => {
  const redis = await startTestRedis({ appendonly })
  const namespace = `t${randomBytes(4).toString('hex')}`
  const jobs = new Jobs({ url: redis.url, namespace, partitions })
  const env = {
    REDIS_URL: (await redisUrl?.(redis)) ?? redis.url,
    JOBS_NAMESPACE: namespace,
    JOBS_PARTITIONS: String(partitions),
    GATEWAY_PORT: '0',
    GATEWAY_OPS_PORT: '0',
    LOG_LEVEL: 'info',
    ...settings,
  }
  let gateway = await startApp('apps/gateway/src/main.ts', env)
  const { transitions, link } = jobs
  return {
    redis,
    jobs,
    get gateway(): TestApp {
      return gateway
    },
    url: () => `ws://127.0.0.1:${gateway.port}/v1/ws`,
    /** Starts another gateway beside it; who starts it ends it. */
    anotherGateway: (port = 0) =>
      startApp('apps/gateway/src/main.ts', { ...env, GATEWAY_PORT: String(port) }),
    ready: async () => (await fetch(`http://127.0.0.1:${gateway.opsPort}/readyz`)).status === 200,
    /** Of /metrics: each series with its value. */
    metrics: async (): Promise<Record<string, number>> => {
      const text = await (await fetch(`http://127.0.0.1:${gateway.opsPort}/metrics`)).text()
      const lines = text.split('\n').filter((line) => line !== '' && !line.startsWith('#'))
      return Object.fromEntries(
        lines.map((line) => {
          const at = line.lastIndexOf(' ')
          return [line.slice(0, at), Number(line.slice(at + 1))]
        }),
      )
    },
    /** Starts the gateway again, on the port it had. */
    restartGateway: async () => {
      gateway = await startApp('apps/gateway/src/main.ts', { ...env, GATEWAY_PORT: String(gateway.port) })
    },
    watch: () => openWatcher(`ws://127.0.0.1:${gateway.port}/v1/ws`),
    /** Many, a few at a time: a client that opens them all at once is late with its own requests. */
    watchMany: async (count: number, port = gateway.port): Promise<Watcher[]> => {
      const watchers: Watcher[] = []
      while (watchers.length < count)
        watchers.push(
          ...(await Promise.all(
            Array.from({ length: Math.min(50, count - watchers.length) }, () =>
              openWatcher(`ws://127.0.0.1:${port}/v1/ws`),
            ),
          )),
        )
      return watchers
    },
    enqueue: async () => (await jobs.enqueue(anyJob, { n: 1 })).id,
    claim: async (id: string): Promise<Held> => {
      const entry = String(await link.call('HGET', transitions.keysFor(id).job(id), 'place'))
      const nonce = randomBytes(6).toString('hex')
      const grant = await transitions.claim(id, entry, { worker: 'tester', nonce, leaseMs: 60_000 })
      if (!grant.ok) throw new Error(grant.reason)
      return grant
    },
    stop: async () => {
      await gateway.kill('SIGKILL')
      await jobs.close()
      await redis.stop()
    },
  }
}
export type Harness = Awaited<ReturnType<typeof startHarness>>

/** Follows one job over any number of connections, checking promise 2 at every message: contiguous, once, in order. */
export class Follower {
  readonly job: string
  cursor: string | undefined
  seq = 0
  state = ''
  resets: string[] = []
  complete = false
  /** Every seq told as an item or inside a snapshot. */
  readonly told: number[] = []
  watcher: Watcher | undefined
  private read = 0

  constructor(job: string, cursor?: string) {
    this.job = job
    this.cursor = cursor
  }

  /** Subscribes on this connection, from where the last one ended. */
  subscribe(watcher: Watcher): void {
    this.watcher = watcher
    this.read = 0
    watcher.send({ type: 'subscribe', job: this.job, ...(this.cursor ? { cursor: this.cursor } : {}) })
  }

  /** Reads the messages of another connection from their first. */
  resume(): void {
    this.read = 0
    this.take()
  }

  /** Takes in what has come so far. */
  take(): void {
    const messages = this.watcher?.messages ?? []
    for (; this.read < messages.length; this.read++) this.apply(messages[this.read] as Message)
  }

  private apply(message: Message): void {
    // Throws for what the contract does not know.
    ServerMessage.parse(message)
    if (message.job !== undefined && message.job !== this.job) return
    switch (message.type) {
      case 'snapshot':
        this.cursor = message.cursor
        this.seq = message.seq
        this.state = message.state
        return
      case 'events': {
        if (message.from !== this.seq + 1) throw new Error(`events from ${message.from} after ${this.seq}`)
        if (message.items.length + (message.conflated ?? 0) !== message.to - message.from + 1)
          throw new Error(`items do not account for ${message.from}..${message.to}`)
        for (const item of message.items) {
          this.told.push(item.seq)
          if (item.type === 'state') this.state = item.state
        }
        this.seq = message.to
        this.cursor = message.cursor
        return
      }
      case 'reset':
        this.resets.push(message.reason)
        return
      case 'complete':
        if (this.complete) throw new Error('complete came twice')
        this.complete = true
        return
      case 'error':
        throw new Error(`${message.code}: ${message.message}`)
    }
  }
}

/** A job reports before, between and after troubles; a watcher is told each event once, and the gateway is ready at the end. */
export const followThrough = async (
  jobs: Jobs,
  troubles: readonly ((prefix: string) => Promise<unknown>)[],
): Promise<void> => {
  const { url, namespace, partitions = 1 } = jobs.options
  const gateway = await startApp('apps/gateway/src/main.ts', {
    ...{ REDIS_URL: url, JOBS_NAMESPACE: namespace, JOBS_PARTITIONS: String(partitions) },
    ...{ GATEWAY_PORT: '0', GATEWAY_OPS_PORT: '0' },
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
    for (const trouble of troubles) {
      await trouble(keys.prefix)
      await report(20)
    }
    await transitions.complete(held, '"end"')
    await watcher.next('complete')
    follower.take()
    expect(follower.told).toEqual(Array.from({ length: op + 3 }, (_, i) => i + 1))
    expect(follower.resets).toEqual([])
    // Probes too go where the data is now.
    const ready = async () => (await fetch(`http://127.0.0.1:${gateway.opsPort}/readyz`)).status
    await until(async () => (await ready()) === 200, { what: '/readyz green' })
  } finally {
    await gateway.kill('SIGKILL')
  }
}
