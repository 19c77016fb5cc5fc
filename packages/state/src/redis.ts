// The one wrapper around ioredis. It owns the connection profile, repeats what was not executed, settles every call by a
// deadline and turns errors into typed ones without arguments (ioredis errors carry payloads and even the password).
// Everything sent through `call` may be sent twice: reads, and scripts that are idempotent by construction.
import { isDeepStrictEqual } from 'node:util'
import { Redis, type RedisOptions } from 'ioredis'
import { StateError } from './errors.ts'
import type { Script } from './scripts.generated.ts'

/** Server answers that mean "not executed, try again", by prefix: texts differ between Redis and Valkey. */
const NOT_EXECUTED = [
  'LOADING',
  'READONLY',
  'MOVED',
  'ASK',
  'TRYAGAIN',
  'CLUSTERDOWN',
  'MASTERDOWN',
  'BUSY ',
  'UNBLOCKED',
]

export interface LinkOptions {
  /** `redis://[user:password@]host:port[/db]`, or `rediss://` for TLS. */
  url: string
  /** Milliseconds after which a call settles, retries included. */
  deadlineMs?: number
  /** Milliseconds without an answer after which a connection counts as dead and is replaced. */
  commandTimeoutMs?: number
  /** Told of each lost or refused connection, for logs; the link goes on trying. */
  onTrouble?: (error: StateError) => void
  /** Shown by CLIENT LIST. */
  connectionName?: string
  /** The fault point: awaited before and after each command, and may throw. For tests. */
  fault?: (point: 'before' | 'after', command: string) => void | Promise<void>
}

export type Reply = unknown
/** What `once` answers when the stream or its consumer group is gone: after a flush or a restart without data. */
export const NO_GROUP = Symbol('NOGROUP')
export type Command = readonly [name: string, ...args: (string | number)[]]

/** Connection settings of `design.md`: nothing is sent twice behind our back, nothing waits without a bound. */
export const profile = (options: LinkOptions) =>
  ({
    lazyConnect: true,
    autoResendUnfulfilledCommands: false,
    enableOfflineQueue: false,
    maxRetriesPerRequest: 0,
    // Blocking and subscribed connections need their own limit; ours is per call, below.
    connectTimeout: 2_000,
    autoResubscribe: false,
    enableAutoPipelining: false,
    noDelay: true,
    keepAlive: 10_000,
    replyMapping: 'legacy' as const,
    retryStrategy: (times: number) =>
      Math.min(50 * 2 ** Math.min(times, 5), 1_000) * (0.5 + Math.random() / 2),
    ...(options.connectionName ? { connectionName: options.connectionName } : {}),
  }) satisfies RedisOptions

export const addressOf = (url: string): string => {
  try {
    const { hostname, port } = new URL(url)
    return `${hostname}:${port || 6379}`
  } catch {
    throw new StateError('INVALID_OPTIONS', 'REDIS_URL is not a URL like redis://127.0.0.1:6379')
  }
}

/** A typed error that names the server and the kind of trouble, and nothing of what was sent. */
export const typed = (error: unknown, address: string): StateError => {
  if (error instanceof StateError) return error
  if (error instanceof TypeError || error instanceof RangeError) throw error
  const text = error instanceof Error ? error.message : String(error)
  if (text.startsWith('OOM'))
    return new StateError('REDIS_OUT_OF_MEMORY', `Redis at ${address} is at its memory limit (maxmemory).`)
  if (/^[A-Z]{3,}\b/.test(text) && !/^(ECONN|EPIPE|ENOTFOUND|ETIMEDOUT|EHOST|EAI)/.test(text))
    return new StateError('REDIS_REFUSED', `Redis at ${address} refused a command: ${text.slice(0, 200)}`)
  return new StateError('REDIS_UNAVAILABLE', `Redis at ${address} is not reachable (${causeOf(error)}).`)
}

const causeOf = (error: unknown): string => {
  const code = (error as { code?: unknown } | null)?.code
  if (typeof code === 'string') return code
  return error instanceof Error && error.message ? error.message.slice(0, 100) : 'connection closed'
}

/** Looks at what changes all the time until a read is given up. */
const STEADY_TRIES = 20

const isServerAnswer = (error: unknown): boolean => (error as Error | null)?.name === 'ReplyError'

const notExecuted = (error: unknown): boolean =>
  isServerAnswer(error) && NOT_EXECUTED.some((prefix) => (error as Error).message.startsWith(prefix))

const pause = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms))

export class RedisLink {
  readonly address: string
  private readonly client: Redis
  private readonly options: LinkOptions
  private readonly deadlineMs: number
  private readonly commandTimeoutMs: number
  private closed = false
  private connected = 0
  private lastTrouble: StateError | undefined

  constructor(options: LinkOptions) {
    this.options = options
    this.address = addressOf(options.url)
    this.deadlineMs = options.deadlineMs ?? 10_000
    this.commandTimeoutMs = options.commandTimeoutMs ?? 3_000
    this.client = new Redis(options.url, profile(options))
    // Every call that waits for the connection listens for it.
    this.client.setMaxListeners(0)
    this.client.on('error', (error) => this.trouble(error))
    this.client.on('ready', () => this.connected++)
  }

  private trouble(error: unknown) {
    this.lastTrouble = typed(error, this.address)
    this.options.onTrouble?.(this.lastTrouble)
  }

  /** Runs one command that may safely run twice. Throws a StateError; settles within the deadline. */
  call(...command: Command): Promise<Reply> {
    return this.settle(command[0], () => this.client.call(...(command as [string, ...string[]])))
  }

  /**
   * Runs one command once, without repeating it: for blocking reads, on a link of their own. A read that does not come
   * back by `timeoutMs` has its connection replaced (ioredis#1888: it may never).
   */
  async once(command: Command, timeoutMs: number): Promise<Reply> {
    await this.whenReady(performance.now() + this.deadlineMs)
    try {
      await this.options.fault?.('before', command[0])
      const [name, ...args] = command
      const reply = await this.timed(this.client.call(name, ...args.map(String)), timeoutMs)
      await this.options.fault?.('after', command[0])
      return reply
    } catch (error) {
      if (isServerAnswer(error) && (error as Error).message.startsWith('NOGROUP')) return NO_GROUP
      throw typed(error, this.address)
    }
  }

  /** The command a script publishes with. */
  readonly publish: 'PUBLISH' | 'SPUBLISH' = 'PUBLISH'

  /**
   * Runs a transition; the script is loaded by content where the server does not have it (restart, failover, flush).
   *
   * @param key routes it; the keys it touches share its hash tag
   */
  script(script: Script, key: string, argv: string[]): Promise<Reply> {
    return this.settle(script.name, async () => {
      try {
        return await this.client.call('EVALSHA', script.sha, 1, key, ...argv)
      } catch (error) {
        if (!isServerAnswer(error)) throw error
        if ((error as Error).message.startsWith('NOSCRIPT'))
          return await this.client.call('EVAL', script.source, 1, key, ...argv)
        ;(error as Error).message = located((error as Error).message, script)
        throw error
      }
    })
  }

  /** Runs reads in one MULTI, so that all of them see one moment. */
  atomic(commands: Command[]): Promise<Reply[]> {
    return this.settle('MULTI', async () => {
      try {
        return unwrap(await this.client.multi(commands.map(named)).exec())
      } catch (error) {
        // EXECABORT: nothing was executed, for the reason that a command was not even queued.
        const reason = (error as { previousErrors?: Error[] }).previousErrors?.[0] ?? error
        if ((reason as Error).message.startsWith('OOM')) return this.steady(commands)
        throw reason
      }
    })
  }

  /** With its memory full Redis queues nothing in a MULTI. What says the same twice in a row held in between. */
  private async steady(commands: Command[]): Promise<Reply[]> {
    for (let tries = 0; tries < STEADY_TRIES; tries++) {
      const replies = unwrap(await this.client.pipeline([...commands, ...commands].map(named)).exec())
      const once = replies.slice(0, commands.length)
      if (isDeepStrictEqual(once, replies.slice(commands.length))) return once
    }
    throw new StateError(
      'REDIS_OUT_OF_MEMORY',
      `Redis at ${this.address} is at its memory limit (maxmemory).`,
    )
  }

  /** Runs commands in one round trip, not atomically. */
  batch(commands: Command[]): Promise<Reply[]> {
    if (commands.length === 0) return Promise.resolve([])
    return this.settle('PIPELINE', async () => unwrap(await this.client.pipeline(commands.map(named)).exec()))
  }

  /** Connections made so far: another number means that replies may have been lost, and that Redis knows us anew. */
  get connections(): number {
    return this.connected
  }

  /** Whether the connection is up at this moment. */
  get ready(): boolean {
    return this.client.status === 'ready'
  }

  /** Connects, and waits at most `withinMs` for it. Throws REDIS_UNAVAILABLE with the address. */
  async connect(withinMs = this.deadlineMs): Promise<void> {
    await this.whenReady(performance.now() + withinMs)
  }

  async close(): Promise<void> {
    this.closed = true
    this.client.disconnect()
  }

  private async settle<T>(name: string, send: () => Promise<T>): Promise<T> {
    const deadline = performance.now() + this.deadlineMs
    for (let tries = 0; ; tries++) {
      await this.whenReady(deadline)
      try {
        await this.options.fault?.('before', name)
        const reply = await this.timed(send(), Math.min(this.commandTimeoutMs, deadline - performance.now()))
        await this.options.fault?.('after', name)
        return reply
      } catch (error) {
        const final = isServerAnswer(error) && !notExecuted(error)
        if (final || this.closed || performance.now() >= deadline) throw typed(error, this.address)
        // READONLY and the like come from a server that was demoted: a new connection finds the new one.
        if (isServerAnswer(error)) this.client.disconnect(true)
        await pause(Math.min(20 * 2 ** tries, 500) * (0.5 + Math.random() / 2))
      }
    }
  }

  /** A connection that does not answer in time is replaced; ioredis by itself would wait for ever. */
  private timed<T>(promise: Promise<T>, timeoutMs: number): Promise<T> {
    const ms = Math.max(1, Math.round(timeoutMs))
    return new Promise<T>((resolve, reject) => {
      const timer = setTimeout(() => {
        reject(new StateError('REDIS_TIMEOUT', `Redis at ${this.address} did not answer within ${ms} ms.`))
        if (!this.closed) this.client.disconnect(true)
      }, ms)
      promise.then(resolve, reject).finally(() => clearTimeout(timer))
    })
  }

  private async whenReady(deadline: number): Promise<void> {
    if (this.client.status === 'ready') return
    if (this.closed) throw new StateError('CLOSED', 'This connection has been closed.')
    if (this.client.status === 'wait' || this.client.status === 'end')
      // A refusal comes again as an 'error' event, and the retry goes on by itself.
      this.client.connect().catch((error) => this.trouble(error))
    await new Promise<void>((resolve, reject) => {
      const done = (finish: () => void) => {
        clearTimeout(timer)
        this.client.off('ready', onReady)
        this.client.off('end', onEnd)
        finish()
      }
      const onReady = () => done(resolve)
      const onEnd = () =>
        this.closed && done(() => reject(new StateError('CLOSED', 'This connection has been closed.')))
      const timer = setTimeout(
        () =>
          done(() =>
            reject(
              new StateError(
                'REDIS_UNAVAILABLE',
                this.lastTrouble?.message ?? `Redis at ${this.address} is not reachable (no answer).`,
              ),
            ),
          ),
        Math.max(1, deadline - performance.now()),
      )
      this.client.once('ready', onReady)
      this.client.on('end', onEnd)
    })
  }
}

/** Redis' clock in milliseconds. */
export const redisTime = async (link: RedisLink): Promise<number> => {
  const [seconds, micros] = (await link.call('TIME')) as [string, string]
  return Number(seconds) * 1_000 + Math.floor(Number(micros) / 1_000)
}

/** Pipelines know commands by their lower-case name only. */
const named = ([name, ...args]: Command) => [name.toLowerCase(), ...args]

const unwrap = (results: [Error | null, unknown][] | null): Reply[] =>
  (results ?? []).map(([error, reply]) => {
    if (error) throw error
    return reply
  })

/** `user_script:157` becomes `complete.lua:8`. */
export const located = (text: string, { name, files }: Script): string =>
  text.replace(/user_script:(\d+)/g, (_, line) => {
    const [first, file] = files.findLast(([start]) => start <= Number(line)) ?? [1, name]
    return `${file}:${Number(line) - first + 1}`
  })
