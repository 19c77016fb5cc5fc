// Runs the checks against one gateway, several at a time: each has its own connections and jobs.
import { CLOSE } from '@jobs/protocol'
import { Client, type OpenOptions } from './client.ts'
import type { Driver } from './driver.ts'
import { Broken, Skipped } from './outcome.ts'

export interface Check {
  /** `group/what`. */
  name: string
  /** What protocol.md promises. */
  promise: string
  /** It shakes the gateway: it runs when the others have ended, by itself. */
  alone?: true
  run(bench: Bench): Promise<void>
}

export interface TokenOptions {
  /** Seconds until it expires; may be over. */
  lifeSeconds?: number
  /** Its `jti`. */
  id?: string
}

export interface Result {
  name: string
  promise: string
  outcome: 'pass' | 'fail' | 'skip'
  /** Why not pass. */
  why?: string
  ms: number
}

export interface Settings {
  /** ws://host:port/v1/ws */
  url: string
  driver: Driver
  /** A token that lets watch these: job ids, `*` for every job, `tag:<tag>`; undefined where the gateway asks for none. */
  token: ((of?: string[], options?: TokenOptions) => Promise<string>) | undefined
  /** Whether `token` makes one for what it is asked for. */
  tokenPerJob: boolean
  /** Milliseconds that any answer may take. */
  waitMs: number
  /** Milliseconds of heartbeat that are waited for. */
  patienceMs: number
}

/** What one check works with. */
export interface Bench extends Settings {
  /** `http://host:port` of the same port. */
  origin: string
  open(options?: Partial<OpenOptions>): Promise<Client>
}

const CHECKS_AT_ONCE = 6
/** Closes that RFC 6455 has, beside those of the contract. 1006: the connection ended without a close frame. */
const RFC_CODES = [1000, 1001, 1002, 1003, 1006, 1007, 1008, 1009, 1011]

export const run = async (
  checks: readonly Check[],
  settings: Settings,
  onResult: (result: Result) => void = () => undefined,
): Promise<Result[]> => {
  const origin = settings.url.replace(/^ws/, 'http').replace(/\/v1\/ws$/, '')
  const results = new Map<Check, Result>()
  const queue = checks.filter(({ alone }) => !alone).values()
  const codes = new Set([...RFC_CODES, ...Object.values(CLOSE).map(({ code }) => code)])

  const runOne = async (check: Check): Promise<Result> => {
    const clients: Client[] = []
    const bench: Bench = {
      ...settings,
      origin,
      open: async (options = {}) => {
        const token = 'token' in options ? options.token : await settings.token?.()
        const client = await Client.open(settings.url, { waitMs: settings.waitMs, ...options, token })
        clients.push(client)
        return client
      },
    }
    const startedAt = performance.now()
    const { name, promise } = check
    const ended = (outcome: Result['outcome'], why?: string): Result => ({
      name,
      promise,
      outcome,
      ...(why === undefined ? {} : { why }),
      ms: Math.round(performance.now() - startedAt),
    })
    try {
      await check.run(bench)
      for (const { broken, code } of clients) {
        if (broken) throw broken
        if (code !== undefined && !codes.has(code))
          throw new Broken(`every close code is one of the contract or of RFC 6455; seen: ${code}`)
      }
      return ended('pass')
    } catch (error) {
      if (error instanceof Skipped) return ended('skip', error.message)
      // What broke first explains what came of it.
      const broken = clients.find((client) => client.broken)?.broken
      return ended('fail', String((broken ?? (error as Error)).message))
    } finally {
      for (const client of clients) client.cut()
    }
  }
  const work = async (queue: Iterable<Check>) => {
    for (const check of queue) {
      const result = await runOne(check)
      results.set(check, result)
      onResult(result)
    }
  }
  await Promise.all(Array.from({ length: CHECKS_AT_ONCE }, () => work(queue)))
  await work(checks.filter(({ alone }) => alone))
  return checks.map((check) => results.get(check) as Result)
}
