// One connection to one Redis server: the profile it is made with, the waits for it, and its replacement once it is silent.
import { Redis, type RedisOptions } from 'ioredis'
import { type Address, parseAddress } from './address.ts'
import { StateError } from './errors.ts'
import { watchMaster } from './sentinel.ts'

export interface LinkOptions {
  /** `redis://…`, `redis+cluster://…` or `redis+sentinel://…`: see `parseAddress`. */
  url: string
  /** Milliseconds after which a call settles, retries included; default: 10,000. */
  deadlineMs?: number
  /** Milliseconds without an answer after which a connection counts as dead and is replaced; default: 3,000. */
  commandTimeoutMs?: number
  /** Told of each lost or refused connection, for logs; the link goes on trying. */
  onTrouble?: (error: StateError) => void
  /** Shown by CLIENT LIST. */
  connectionName?: string
  /** The fault point: awaited before and after each command, and may throw. For tests. */
  fault?: (point: 'before' | 'after', command: string) => void | Promise<void>
}

/** Milliseconds in which a server that took the connection must answer its first commands. */
const HANDSHAKE_MS = 3_000
/** Milliseconds that a sentinel gets to name the master before the next one is asked. */
const SENTINEL_MS = 1_000

const backoff = (times: number) => Math.min(50 * 2 ** Math.min(times, 5), 1_000) * (0.5 + Math.random() / 2)

/** How every connection is made: nothing is sent twice behind our back, nothing waits without a bound. */
export const profile = (options: LinkOptions) =>
  ({
    lazyConnect: true,
    autoResendUnfulfilledCommands: false,
    enableOfflineQueue: false,
    maxRetriesPerRequest: 0,
    // Blocking and subscribed connections need their own limit; ours is per call, below.
    connectTimeout: 2_000,
    // What is replaced is half-open more often than not: its other end will not say goodbye.
    disconnectTimeout: 50,
    autoResubscribe: false,
    enableAutoPipelining: false,
    noDelay: true,
    keepAlive: 10_000,
    replyMapping: 'legacy' as const,
    retryStrategy: backoff,
    sentinelRetryStrategy: backoff,
    sentinelCommandTimeout: SENTINEL_MS,
    ...(options.connectionName ? { connectionName: options.connectionName } : {}),
  }) satisfies RedisOptions

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

export const isServerAnswer = (error: unknown): error is Error =>
  (error as Error | null)?.name === 'ReplyError'

export class Connection {
  readonly client: Redis
  /** For messages, and the node's name in a cluster. */
  readonly address: string
  private readonly onTrouble: LinkOptions['onTrouble']
  private handshake: NodeJS.Timeout | undefined
  private retry: NodeJS.Timeout | undefined
  private readonly unwatch: () => void
  private closed = false
  private lastTrouble: StateError | undefined

  /** @param node of a cluster; else the server, or the master that the sentinels name */
  constructor(options: LinkOptions, address: Address, node?: { host: string; port: number }) {
    this.address = node ? `${node.host}:${node.port}` : address.shown
    this.onTrouble = options.onTrouble
    this.client = new Redis({ ...profile(options), ...address.options, ...node } as RedisOptions & {
      replyMapping: 'legacy'
    })
    // Every call that waits for the connection listens for it.
    this.client.setMaxListeners(0)
    this.client.on('error', (error) => this.trouble(error))
    this.unwatch =
      address.kind === 'sentinel' ? watchMaster(options, address, () => this.replace()) : () => undefined
    // A server that takes the connection and says nothing would be waited for without end.
    this.client.on('connect', () => {
      clearTimeout(this.handshake)
      this.handshake = setTimeout(() => this.replace(), HANDSHAKE_MS)
    })
    for (const event of ['ready', 'close'] as const) this.client.on(event, () => clearTimeout(this.handshake))
  }

  get ready(): boolean {
    return this.client.status === 'ready'
  }

  /** Drops the connection, whatever is under way on it, and makes another. */
  replace(): void {
    if (!this.closed) this.client.disconnect(true)
  }

  close(): void {
    this.closed = true
    clearTimeout(this.handshake)
    clearTimeout(this.retry)
    this.unwatch()
    this.client.disconnect()
  }

  /** Waits for the connection. Answers whether it is there: false after `withinMs`, or when it was closed. */
  within(withinMs: number): Promise<boolean> {
    return this.wait(withinMs, ['end'])
  }

  /** The same, but one failure to connect is an answer too. */
  attempt(withinMs: number): Promise<boolean> {
    if (this.client.status === 'reconnecting') return Promise.resolve(false)
    return this.wait(withinMs, ['end', 'close'])
  }

  /** A connection that does not answer in time is replaced; ioredis by itself would wait for ever. */
  timed<T>(promise: Promise<T>, timeoutMs: number): Promise<T> {
    const ms = Math.max(1, Math.round(timeoutMs))
    return new Promise<T>((resolve, reject) => {
      const timer = setTimeout(() => {
        reject(new StateError('REDIS_TIMEOUT', `Redis at ${this.address} did not answer within ${ms} ms.`))
        this.replace()
      }, ms)
      promise.then(resolve, reject).finally(() => clearTimeout(timer))
    })
  }

  /** Why there is no connection. */
  get unreachable(): StateError {
    return new StateError(
      'REDIS_UNAVAILABLE',
      this.lastTrouble?.message ?? `Redis at ${this.address} is not reachable (no answer).`,
    )
  }

  private connect(): void {
    const { client } = this
    if (client.status === 'wait' || client.status === 'end')
      // A refusal comes again as an 'error' event, and the retry goes on by itself.
      client.connect().catch((error) => this.trouble(error))
  }

  private trouble(error: unknown) {
    this.lastTrouble = typed(error, this.address)
    this.onTrouble?.(this.lastTrouble)
  }

  private wait(withinMs: number, failures: ('end' | 'close')[]): Promise<boolean> {
    const { client } = this
    if (client.status === 'ready') return Promise.resolve(true)
    if (this.closed) return Promise.resolve(false)
    this.connect()
    return new Promise((resolve) => {
      const done = (there: boolean) => {
        clearTimeout(timer)
        client.off('ready', onReady)
        for (const failure of failures) client.off(failure, onFailure)
        resolve(there)
      }
      const onReady = () => done(true)
      // Without being closed by us an end is followed by another beginning.
      const onFailure = () => (this.closed || failures.length > 1) && done(false)
      const timer = setTimeout(() => done(false), Math.max(1, withinMs))
      client.on('ready', onReady)
      for (const failure of failures) client.on(failure, onFailure)
    })
  }
}

/** Which connection a key's commands go over, and what to make of their errors. */
export interface Servers {
  readonly ready: boolean
  /** Connections made so far. */
  readonly connections: number
  /** Throws REDIS_UNAVAILABLE at the deadline (of `performance.now()`), CLOSED. */
  reach(key: string | undefined, deadline: number): Promise<Connection>
  failed(connection: Connection, error: unknown): void
  close(): void
}

export const closedError = () => new StateError('CLOSED', 'This connection has been closed.')

/** Answers of a server that is no longer the one to write to: a new connection finds the new one. */
const DEMOTED = ['READONLY', 'LOADING', 'MASTERDOWN', 'UNBLOCKED']

/** A single server, or the master that sentinels name at each connection. */
export class OneServer implements Servers {
  private readonly connection: Connection
  private readonly demoted: string[]
  private made = 0
  private closed = false

  constructor(options: LinkOptions) {
    const address = parseAddress(options.url)
    this.connection = new Connection(options, address)
    this.connection.client.on('ready', () => this.made++)
    // A master that the others took for gone and replaced has lost its replicas: with min-replicas-to-write it says so.
    this.demoted = address.kind === 'sentinel' ? [...DEMOTED, 'NOREPLICAS'] : DEMOTED
  }

  get ready() {
    return this.connection.ready
  }
  get connections() {
    return this.made
  }

  async reach(_key: string | undefined, deadline: number): Promise<Connection> {
    if (this.connection.ready) return this.connection
    if (!this.closed && (await this.connection.within(deadline - performance.now()))) return this.connection
    throw this.closed ? closedError() : this.connection.unreachable
  }

  failed(connection: Connection, error: unknown): void {
    if (isServerAnswer(error) && this.demoted.some((prefix) => error.message.startsWith(prefix)))
      connection.replace()
  }

  close(): void {
    this.closed = true
    this.connection.close()
  }
}
