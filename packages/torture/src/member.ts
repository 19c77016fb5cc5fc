// One process of the fleet, again and again: each start is an incarnation. Whoever ends it is told from one that ended by
// itself, which is started again, and is a violation unless a poison job may have killed it.
import { appendFileSync } from 'node:fs'
import { join } from 'node:path'
import { workspaceRoot } from '@jobs/provision'
import { type Exit, startProcess, type TestProcess } from '@jobs/testkit'

export type Kind = 'worker' | 'keeper' | 'reaper' | 'gateway' | 'enqueuer' | 'watcher'

export interface Death {
  /** Name of the incarnation; a worker is known to Redis by it. */
  who: string
  kind: Kind
  at: number
  /** `stopped`: in order, as it was asked to; `killed`: by the driver; `itself`: neither of them. */
  how: 'stopped' | 'killed' | 'itself'
  /** Of one that was asked to stop: when. */
  askedAt?: number
}

/** How a process has ended, by how it was ended and what its exit says. */
export const howEnded = (ended: 'asked' | 'killed' | undefined, { code, signal }: Exit): Death['how'] => {
  if (ended === 'asked' && code === 0) return 'stopped'
  // One that still starts may end by the SIGTERM itself.
  return ended === 'killed' || (ended === 'asked' && signal === 'SIGTERM') ? 'killed' : 'itself'
}

/** Whether a process may have ended so though nobody ended it: a poison job kills its worker. Others may not, of whatever. */
export const mayEndItself = (kind: Kind, { signal }: Exit, poisoned: boolean): boolean =>
  kind === 'worker' && signal === 'SIGKILL' && poisoned

export interface MemberOptions {
  name: string
  kind: Kind
  /** Under the workspace. */
  main: string
  /** What its next incarnation is given. */
  env: (incarnation: string, n: number) => Record<string, string>
  /** The line that says it works. */
  ready: string
  folder: string
  onLine?: (line: string) => void
  onDeath: (death: Death) => void
  /** Whether a poison job is about. */
  poisoned: () => boolean
  violation: (says: string) => void
}

/** Milliseconds until one that ended by itself is started again. */
const AGAIN_MS = 200
const READY_MS = 120_000
/** Milliseconds in which a process that is asked to end does so. */
const STOP_MS = 20_000
const BUILD = 'packages/torture/src/member/build.ts'
/** Starting is most of what a process costs here. */
const COMPILED = join(workspaceRoot(), '.cache/compiled')

const pause = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms))

export class Member {
  readonly name: string
  readonly kind: Kind
  /** When the current incarnation came to work; undefined while there is none. */
  upSince: number | undefined
  private readonly options: MemberOptions
  private process: TestProcess | undefined
  private starting: Promise<void> | undefined
  private n = 0
  private wanted = false
  /** What was done to end the current incarnation. */
  private ended: 'asked' | 'killed' | undefined
  private askedAt: number | undefined

  constructor(options: MemberOptions) {
    this.options = options
    this.name = options.name
    this.kind = options.kind
  }

  get incarnation(): string {
    return `${this.name}.${this.n}`
  }

  get pid(): number | undefined {
    return this.process?.pid
  }

  /** Resolves when it works. */
  start(): Promise<void> {
    this.wanted = true
    this.starting ??= this.begin().finally(() => {
      this.starting = undefined
    })
    return this.starting
  }

  /** Ends it at once, and leaves it so. */
  async kill(signal: 'SIGKILL' | 'SIGSEGV' = 'SIGKILL'): Promise<void> {
    this.wanted = false
    this.ended = 'killed'
    await this.process?.kill(signal)
  }

  /** Asks it to end, and leaves it so. */
  async stop(): Promise<void> {
    this.wanted = false
    const { process, incarnation } = this
    if (!process) return
    // One that still starts has not got to where it hears signals.
    const starts = this.upSince === undefined
    this.ended ??= 'asked'
    this.askedAt = Date.now()
    const exit = await Promise.race([process.kill('SIGTERM'), pause(STOP_MS)])
    if (!exit) {
      this.options.violation(`${incarnation} did not end within ${STOP_MS} ms of a SIGTERM`)
      this.ended = 'killed'
      await process.kill('SIGKILL')
    } else if (exit.code !== 0 && !(starts && exit.signal === 'SIGTERM') && !this.mayEnd(exit))
      this.options.violation(
        `${incarnation} ended with ${exit.code ?? exit.signal} after a SIGTERM: ${tail(process)}`,
      )
  }

  freeze(): void {
    void this.process?.kill('SIGSTOP')
  }

  thaw(): void {
    void this.process?.kill('SIGCONT')
  }

  say(line: string): void {
    this.process?.write(`${line}\n`)
  }

  /** Says something and waits for the line that answers it. */
  async ask(line: string, fits: (answer: string) => boolean, timeoutMs: number): Promise<string> {
    this.say(line)
    if (!this.process) throw new Error(`${this.name} does not run`)
    return this.process.line(fits, timeoutMs)
  }

  /** One that is killed while it stops was killed by another fault, or by a poison job. */
  private mayEnd(exit: Exit): boolean {
    return this.ended === 'killed' || mayEndItself(this.kind, exit, this.options.poisoned())
  }

  private async begin(): Promise<void> {
    if (this.process) return
    this.n++
    this.ended = undefined
    this.askedAt = undefined
    const { incarnation } = this
    const { main, env, folder, ready, onLine, onDeath, violation } = this.options
    const args = [
      '--conditions=@jobs/source',
      '--import',
      join(workspaceRoot(), BUILD),
      join(workspaceRoot(), main),
    ]
    const log = join(folder, `${this.name}.log`)
    const started = startProcess(process.execPath, args, {
      env: { ...env(incarnation, this.n), LOG_LEVEL: 'info', NODE_COMPILE_CACHE: COMPILED },
    })
    this.process = started
    let seen = 0
    const follow = () => {
      for (; seen < started.stdout.length; seen++) {
        const line = started.stdout[seen] as string
        appendFileSync(log, `${incarnation} ${line}\n`)
        onLine?.(line)
      }
    }
    const following = setInterval(follow, 20)
    void started.exited.then((exit) => {
      clearInterval(following)
      follow()
      if (started.stderr.length > 0) appendFileSync(log, `${incarnation} ${started.stderr.join('\n')}\n`)
      this.process = undefined
      this.upSince = undefined
      const { kind, ended, askedAt } = this
      onDeath({
        ...{ who: incarnation, kind, at: Date.now(), how: howEnded(ended, exit) },
        ...(askedAt === undefined ? {} : { askedAt }),
      })
      if (!this.wanted) return
      if (!this.mayEnd(exit))
        violation(`${incarnation} ended by itself with ${exit.code ?? exit.signal}: ${tail(started)}`)
      setTimeout(() => {
        if (this.wanted) void this.start().catch(() => undefined)
      }, AGAIN_MS)
    })
    await started
      .line((line) => line.includes(ready), READY_MS)
      .catch(async (error) => {
        // One that has ended while it started is judged by its exit, and started again by whoever ended it.
        await Promise.race([started.exited, pause(AGAIN_MS)])
        if (this.wanted && this.process === started) throw error
      })
    if (this.process === started) this.upSince = Date.now()
  }
}

const tail = ({ stdout, stderr }: TestProcess): string =>
  [...stdout.slice(-3), ...stderr.slice(-8)].join(' | ').slice(-1_500)
