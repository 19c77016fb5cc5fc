// How everything is sent to Redis, be it one server, a master behind sentinels or a cluster: repeats what was not executed,
// settles every call by a deadline and turns errors into typed ones without arguments (ioredis errors carry payloads and
// even the password). Everything sent through `call` may be sent twice: reads, and scripts that are idempotent.
import { isDeepStrictEqual } from 'node:util'
import type { Redis } from 'ioredis'
import { parseAddress } from './address.ts'
import { ClusterServers } from './cluster.ts'
import { isServerAnswer, type LinkOptions, OneServer, type Servers, typed } from './connection.ts'
import { StateError } from './errors.ts'
import type { Script } from './scripts.generated.ts'

/**
 * Server answers that mean "not executed, try again", by prefix: texts differ between Redis and Valkey. ASK is one of
 * them: a slot that is being moved key by key is waited for, since a transition needs all keys of its partition in one
 * place, and finds the ones that it does not declare missing on either side.
 */
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
  'NOREPLICAS',
]

export type Reply = unknown
/** What `once` answers when the stream or its consumer group is gone: after a flush or a restart without data. */
export const NO_GROUP = Symbol('NOGROUP')
export type Command = readonly [name: string, ...args: (string | number)[]]

/** Milliseconds that a call needs to be worth another try. */
const LAST_TRY_MS = 50

/** Looks at what changes all the time until a read is given up. */
const STEADY_TRIES = 20

const notExecuted = (error: unknown): boolean =>
  isServerAnswer(error) && NOT_EXECUTED.some((prefix) => error.message.startsWith(prefix))

/** A MULTI is discarded (EXECABORT) when one of its commands was refused; what matters is why that one was. */
const telling = (error: unknown): unknown =>
  (error as { previousErrors?: unknown[] }).previousErrors?.find(notExecuted) ?? error

const pause = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms))

/** The key of a command: every key of ours begins with its hash tag, and no word before a key does. */
const keyOf = (command: Command): string | undefined =>
  command.find((word): word is string => typeof word === 'string' && word.startsWith('{'))

export class RedisLink {
  readonly address: string
  /** The command a script publishes with. */
  readonly publish: 'PUBLISH' | 'SPUBLISH'
  private readonly servers: Servers
  private readonly options: LinkOptions
  private readonly deadlineMs: number
  private readonly commandTimeoutMs: number
  private closed = false

  /** @throws StateError INVALID_OPTIONS */
  constructor(options: LinkOptions) {
    const { kind, shown } = parseAddress(options.url)
    this.options = options
    this.address = shown
    this.deadlineMs = options.deadlineMs ?? 10_000
    this.commandTimeoutMs = options.commandTimeoutMs ?? 3_000
    this.servers = kind === 'cluster' ? new ClusterServers(options) : new OneServer(options)
    this.publish = kind === 'cluster' ? 'SPUBLISH' : 'PUBLISH'
  }

  /** Runs one command that may safely run twice. Throws a StateError; settles within the deadline. */
  call(...command: Command): Promise<Reply> {
    return this.callAt(keyOf(command), ...command)
  }

  /** The same, on the server that has the key: for commands that name none. */
  callAt(key: string | undefined, ...command: Command): Promise<Reply> {
    return this.settle(command[0], key, (client) => client.call(...(command as [string, ...string[]])))
  }

  /** The address of the server that has the key. */
  async serverOf(key: string): Promise<string> {
    const { address } = await this.servers.reach(key, performance.now() + this.deadlineMs)
    return address
  }

  /**
   * Runs one command once, without repeating it: for blocking reads, on a link of their own. A read that does not come
   * back by `timeoutMs` has its connection replaced (ioredis#1888: it may never).
   */
  async once(command: Command, timeoutMs: number): Promise<Reply> {
    const deadline = performance.now() + this.deadlineMs
    const connection = await this.servers.reach(keyOf(command), deadline)
    try {
      await this.options.fault?.('before', command[0])
      const [name, ...args] = command
      const reply = await connection.timed(connection.client.call(name, ...args.map(String)), timeoutMs)
      await this.options.fault?.('after', command[0])
      return reply
    } catch (error) {
      if (isServerAnswer(error) && error.message.startsWith('NOGROUP')) return NO_GROUP
      this.servers.failed(connection, error)
      throw typed(error, connection.address)
    }
  }

  /**
   * Runs a transition; the script is loaded by content where the server does not have it (restart, failover, flush).
   *
   * @param key routes it; the keys it touches share its hash tag
   */
  script(script: Script, key: string, argv: string[]): Promise<Reply> {
    return this.settle(script.name, key, async (client) => {
      try {
        return await client.call('EVALSHA', script.sha, 1, key, ...argv)
      } catch (error) {
        if (!isServerAnswer(error)) throw error
        if (error.message.startsWith('NOSCRIPT'))
          return await client.call('EVAL', script.source, 1, key, ...argv)
        error.message = located(error.message, script)
        throw error
      }
    })
  }

  /** Runs reads on keys of one partition in one MULTI, so that all of them see one moment. */
  atomic(commands: Command[]): Promise<Reply[]> {
    return this.settle('MULTI', keyOf(commands[0] ?? ['']), async (client) => {
      try {
        return unwrap(await client.multi(commands.map(named)).exec())
      } catch (error) {
        // EXECABORT: nothing was executed, for the reason that a command was not even queued.
        const reason = (error as { previousErrors?: Error[] }).previousErrors?.[0]
        if (reason?.message.startsWith('OOM')) return this.steady(client, commands)
        throw error
      }
    })
  }

  /** With its memory full Redis queues nothing in a MULTI. What says the same twice in a row held in between. */
  private async steady(client: Redis, commands: Command[]): Promise<Reply[]> {
    for (let tries = 0; tries < STEADY_TRIES; tries++) {
      const replies = unwrap(await client.pipeline([...commands, ...commands].map(named)).exec())
      const once = replies.slice(0, commands.length)
      const again = replies.slice(commands.length)
      if (commands.every(([name], i) => name === 'TIME' || isDeepStrictEqual(once[i], again[i]))) return once
    }
    throw new StateError(
      'REDIS_OUT_OF_MEMORY',
      `Redis at ${this.address} is at its memory limit (maxmemory).`,
    )
  }

  /** Runs commands on keys of one partition in one round trip and in order, not atomically. */
  batch(commands: Command[]): Promise<Reply[]> {
    if (commands.length === 0) return Promise.resolve([])
    return this.settle('PIPELINE', keyOf(commands[0] ?? ['']), async (client) =>
      unwrap(await client.pipeline(commands.map(named)).exec()),
    )
  }

  /** Connections made so far: another number means that replies may have been lost, and that Redis knows us anew. */
  get connections(): number {
    return this.servers.connections
  }

  /** Whether the connection is up at this moment; in a cluster, any of them. */
  get ready(): boolean {
    return this.servers.ready
  }

  /** Connects, and waits at most `withinMs` for it. Throws REDIS_UNAVAILABLE with the address. */
  async connect(withinMs = this.deadlineMs): Promise<void> {
    await this.servers.reach(undefined, performance.now() + withinMs)
  }

  async close(): Promise<void> {
    this.closed = true
    this.servers.close()
  }

  private async settle<T>(
    name: string,
    key: string | undefined,
    send: (client: Redis) => Promise<T>,
  ): Promise<T> {
    const deadline = performance.now() + this.deadlineMs
    for (let tries = 0; ; tries++) {
      const connection = await this.servers.reach(key, deadline)
      try {
        await this.options.fault?.('before', name)
        const leftMs = Math.min(this.commandTimeoutMs, deadline - performance.now())
        const reply = await connection.timed(send(connection.client), leftMs)
        await this.options.fault?.('after', name)
        return reply
      } catch (thrown) {
        const error = telling(thrown)
        if (!this.closed) this.servers.failed(connection, error)
        const final = isServerAnswer(error) && !notExecuted(error)
        const pauseMs = Math.min(20 * 2 ** tries, 500) * (0.5 + Math.random() / 2)
        // A try that has no time to be answered would hide why the others failed, and cost a connection that is well.
        const late = performance.now() + pauseMs + LAST_TRY_MS >= deadline
        if (final || this.closed || late) throw typed(error, connection.address)
        await pause(pauseMs)
      }
    }
  }
}

/** The clock, in milliseconds, of the server that has the key. */
export const redisTime = async (link: RedisLink, key: string): Promise<number> =>
  msOfTime(await link.callAt(key, 'TIME'))

/** Of the reply to TIME. */
export const msOfTime = (reply: Reply): number => {
  const [seconds, micros] = reply as [string, string]
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
