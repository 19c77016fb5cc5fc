// Tells that a worker process is there, and what it is and holds: for people and for `explain`. Nobody is reaped by it.
import { hostname } from 'node:os'
import { z } from 'zod'
import type { Keys } from './keys.ts'
import { loopLag, unwatchLoop, watchLoop } from './loop-lag.ts'
import type { RedisLink } from './redis.ts'
import type { Transitions } from './transitions.ts'

/** Milliseconds between tellings, and until a worker that tells nothing more counts as gone. */
const TELL_MS = 10_000
const GONE_MS = 35_000
const RUNNING_TOLD = 100

const About = z.object({
  host: z.string(),
  pid: z.int(),
  node: z.string(),
  /** Job name it takes. */
  name: z.string(),
  concurrency: z.int(),
  startedAt: z.int(),
  /** Milliseconds of this process' clock and Redis' may differ: for people only. */
  toldAt: z.int(),
  /** Milliseconds that the event loop of the process came late since the telling before: at most, and in 99 of 100 samples. */
  loopLagMaxMs: z.int(),
  loopLagP99Ms: z.int(),
  /** Ids of the jobs it runs, at most 100, and their number. */
  running: z.array(z.string()),
  runningCount: z.int(),
})
type About = z.infer<typeof About>

export type WorkerAbout = About & { id: string }

export interface PresenceOptions {
  id: string
  name: string
  concurrency: number
  running: () => string[]
  trouble: (error: unknown) => void
}

type Told = Pick<Transitions, 'present' | 'absent'>

export class Presence {
  private readonly transitions: Told
  private readonly options: PresenceOptions
  private readonly startedAt = Date.now()
  private timer: NodeJS.Timeout | undefined
  private telling: Promise<void> | undefined

  constructor(transitions: Told, options: PresenceOptions) {
    this.transitions = transitions
    this.options = options
  }

  /** Resolves when the worker has been told of. */
  async start(): Promise<void> {
    watchLoop()
    this.next()
    await this.telling
  }

  async stop(): Promise<void> {
    clearTimeout(this.timer)
    unwatchLoop()
    await this.telling
    await this.transitions.absent(this.options.id).catch(this.options.trouble)
  }

  private next(): void {
    this.telling = this.tell()
    this.timer = setTimeout(() => this.next(), TELL_MS)
  }

  private async tell(): Promise<void> {
    const { id, name, concurrency, running, trouble } = this.options
    const ids = running()
    const lag = loopLag(TELL_MS / 2)
    const about: About = {
      host: hostname(),
      pid: process.pid,
      node: process.version,
      name,
      concurrency,
      startedAt: this.startedAt,
      toldAt: Date.now(),
      loopLagMaxMs: lag.max,
      loopLagP99Ms: lag.p99,
      running: ids.slice(0, RUNNING_TOLD),
      runningCount: ids.length,
    }
    await this.transitions.present(id, GONE_MS, JSON.stringify(about)).then(() => undefined, trouble)
  }
}

/** The worker processes that are there. */
export const presentWorkers = async (link: RedisLink, first: Keys): Promise<WorkerAbout[]> => {
  const ids = (await link.call('ZRANGE', first.workers, 0, -1)) as string[]
  const told = await link.batch(ids.map((id) => ['GET', first.worker(id)] as const))
  return told.flatMap((text, i) => {
    if (typeof text !== 'string') return []
    const about = About.safeParse(JSON.parse(text))
    return about.success ? [{ id: ids[i] as string, ...about.data }] : []
  })
}
