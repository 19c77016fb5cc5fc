// A model of one job in a few dozen lines: what each move does to it, or that it is refused. The random test compares it
// with the real job after every step.
import { isTerminal, type Snapshot, type State } from '@jobs/state'

export interface JobOptions {
  maxAttempts: number
  maxCrashes: number
  delayed: boolean
  ttl: boolean
  timeout: boolean
  priority: 'high' | 'normal' | 'low'
  tags: string[]
}

/** Moves of one job that the model knows. `pass` moves are made by a reaper whose pass finds the job due. */
export type ModelMove =
  | 'heartbeat'
  | 'progress'
  | 'log'
  | 'checkpoint'
  | 'complete'
  | 'fail'
  | 'retry'
  | 'release'
  | 'abort'
  | 'cancel'
  | 'reschedule'
  | 'rerun'
  | 'remove'
  | 'claim'
  | 'promote'
  | 'expire'
  | 'reap'

const REPORTS: ReadonlySet<ModelMove> = new Set(['heartbeat', 'progress', 'log', 'checkpoint'])

export class JobModel {
  readonly id: string
  readonly options: JobOptions
  state: State | null
  attempt = 0
  failures = 0
  crashes = 0
  cancelRequested = false
  worker: string | null = null
  progress: unknown = null
  result: unknown = null
  /** Its error's code or message; null for none. */
  error: string | null = null
  /** Of the current attempt; null when no attempt may write. */
  fence: string | null = null
  rerun = false
  /** The last change of state. */
  private last: ModelMove | null = null

  constructor(id: string, options: JobOptions) {
    this.id = id
    this.options = options
    this.state = options.delayed ? 'SCHEDULED' : 'QUEUED'
  }

  get queue(): string {
    return this.options.priority === 'normal' ? 'any' : `any:${this.options.priority}`
  }

  get waits(): boolean {
    return this.state === 'SCHEDULED' || this.state === 'QUEUED'
  }

  /** Whether its time is limited in the state it is in. */
  get limited(): boolean {
    if (this.state === 'PROCESSING') return this.options.timeout
    return this.waits && this.options.ttl && this.attempt === 0 && !this.rerun
  }

  /** What of the snapshot the model foretells. */
  get foretold(): Partial<Snapshot> | null {
    if (this.state === null) return null
    const { state, attempt, failures, crashes, cancelRequested, worker, progress, result } = this
    return {
      state,
      attempt,
      failures,
      crashes,
      cancelRequested,
      worker,
      progress,
      result,
    } as Partial<Snapshot>
  }

  /** Makes the move; false when it is refused. `value` is what it carries; `later` asks for a delay. */
  make(move: ModelMove, fence: string | null, carried: { value?: unknown; later?: boolean }): boolean {
    const made = this.judge(move, fence, carried)
    if (made && !REPORTS.has(move)) this.last = move
    return made
  }

  private judge(
    move: ModelMove,
    fence: string | null,
    { value, later = false }: { value?: unknown; later?: boolean },
  ): boolean {
    const holds = this.state === 'PROCESSING' && fence !== null && fence === this.fence
    switch (move) {
      case 'heartbeat':
      case 'log':
      case 'checkpoint':
        return holds
      case 'progress':
        if (holds) this.progress = value
        return holds
      case 'complete':
        if (!holds) return false
        this.result = value
        this.error = null
        return this.end('COMPLETED')
      case 'fail':
        if (!holds) return false
        this.failures++
        this.error = String(value)
        return this.end('FAILED')
      case 'retry':
        if (!holds) return false
        this.failures++
        this.error = String(value)
        return this.again(later)
      case 'release':
        return holds && this.again(false)
      case 'abort':
        return holds && this.cancelRequested && this.end('CANCELLED')
      case 'cancel':
        if (this.waits) this.end('CANCELLED')
        else if (this.state !== 'PROCESSING' || this.cancelRequested) return false
        this.cancelRequested = true
        return true
      case 'reschedule':
        if (!this.waits) return false
        // To run at once, said twice, is said once.
        if (!later && this.state === 'QUEUED' && this.last === 'reschedule') return false
        this.state = later ? 'SCHEDULED' : 'QUEUED'
        return true
      case 'rerun':
        if (this.state === null || !isTerminal(this.state)) return false
        Object.assign(this, { state: 'QUEUED', failures: 0, crashes: 0, cancelRequested: false, rerun: true })
        Object.assign(this, { result: null, error: null })
        return true
      case 'remove':
        if (this.state === null || !isTerminal(this.state)) return false
        this.state = null
        return true
      case 'claim':
        if (this.state !== 'QUEUED') return false
        this.attempt++
        Object.assign(this, { state: 'PROCESSING', fence, worker: value, progress: null })
        return true
      case 'promote':
        if (this.state !== 'SCHEDULED') return false
        this.state = 'QUEUED'
        return true
      case 'expire':
        if (!this.limited) return false
        if (this.state !== 'PROCESSING') {
          this.error = 'EXPIRED'
          return this.end('FAILED')
        }
        this.failures++
        this.error = 'TIMED_OUT'
        this.fence = null
        return this.cancelRequested || this.failures < this.options.maxAttempts
          ? this.again(false)
          : this.end('FAILED')
      case 'reap':
        if (this.state !== 'PROCESSING') return false
        this.crashes++
        this.fence = null
        if (this.cancelRequested || this.crashes <= this.options.maxCrashes) return this.again(false)
        this.error = 'CRASHED'
        return this.end('FAILED')
    }
  }

  private again(later: boolean): true {
    if (this.cancelRequested) return this.end('CANCELLED')
    this.state = later ? 'SCHEDULED' : 'QUEUED'
    this.worker = null
    return true
  }

  private end(state: State): true {
    this.state = state
    this.worker = null
    return true
  }
}
