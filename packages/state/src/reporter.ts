// What one attempt reports, in order: log lines each, progress coalesced (the last value wins) under a rate cap, or each
// where the interval is 0. One send is under way at a time; a report whose reply was lost is repeated under its number
// and written once. What still waits at the attempt's end goes with the change of state.
import { isStateError } from './errors.ts'
import type { Outcome } from './outcomes.ts'

/** Reports that may wait; beyond it lines are left out, and a line tells how many, and progress is coalesced. */
const MAX_WAITING = 1_000
/** Milliseconds until reports are tried again after an error. */
const PAUSE_MS = 500

export interface ReportSink {
  progress(op: number, text: string): Promise<Outcome>
  log(op: number, line: string): Promise<Outcome>
  /** Runs when the tick ends, before what it produced is sent. */
  finally(send: () => void): void
  /** The attempt is not ours any more. */
  lost(): void
  /** Redis is in trouble; the report stays and is tried again. */
  trouble(error: unknown): void
}

interface Report {
  kind: 'log' | 'progress'
  text: string
  /** Its number among the attempt's reports, once it has been sent. */
  op: number
}

export class Reporter {
  private readonly sink: ReportSink
  private readonly intervalMs: number
  private readonly waiting: Report[] = []
  private leftOut = 0
  private ops = 0
  private nextProgressAt = 0
  private pausedUntil = 0
  private sending: Promise<void> | undefined
  private scheduled = false
  private timer: NodeJS.Timeout | undefined
  private closed = false
  /** One promise for all who wait: their number has no bound while Redis is away. */
  private settled: { promise: Promise<void>; resolve: () => void } | undefined

  constructor(sink: ReportSink, intervalMs: number) {
    this.sink = sink
    this.intervalMs = intervalMs
  }

  /** Resolves once this value is written, folded into a later one, or moot. Never rejects: `sink` hears of trouble. */
  progress(text: string): Promise<void> {
    if (this.closed) return Promise.resolve()
    if (this.intervalMs > 0 || this.waiting.length >= MAX_WAITING) {
      const older = this.waiting.findLastIndex(({ kind, op }) => kind === 'progress' && op === 0)
      if (older >= 0) this.waiting.splice(older, 1)
    }
    this.waiting.push({ kind: 'progress', text, op: 0 })
    this.schedule()
    this.settled ??= Promise.withResolvers<void>()
    return this.settled.promise
  }

  log(line: string): void {
    if (this.closed) return
    if (this.waiting.length >= MAX_WAITING) this.leftOut++
    else this.waiting.push({ kind: 'log', text: line, op: 0 })
    this.schedule()
  }

  /**
   * The attempt ends: sends the lines that wait, and answers the progress that waits ('' for none), which the change of
   * state is to carry. Both belong into one tick, so that they are one call. Throws what Redis said of the lines.
   */
  async end(): Promise<{ progress: string; written: Promise<void> }> {
    clearTimeout(this.timer)
    this.scheduled = true
    while (this.sending) await this.sending
    const last = this.waiting.findLast(({ kind }) => kind === 'progress')
    const others =
      this.intervalMs > 0
        ? this.waiting.filter(({ kind }) => kind === 'log')
        : this.waiting.filter((report) => report !== last)
    return { progress: last?.text ?? '', written: others.length > 0 ? this.deliver(others, true) : DONE }
  }

  /** Drops what waits: the attempt is over. */
  close(): void {
    this.closed = true
    clearTimeout(this.timer)
    this.waiting.length = 0
    this.settle()
  }

  private settle(): void {
    this.settled?.resolve()
    this.settled = undefined
  }

  private schedule(): void {
    if (this.scheduled || this.sending || this.closed || this.waiting.length === 0) return
    this.scheduled = true
    const now = performance.now()
    const lines = this.waiting.some(({ kind }) => kind === 'log')
    const waitMs = (lines ? this.pausedUntil : Math.max(this.nextProgressAt, this.pausedUntil)) - now
    // What comes in the same tick is coalesced, and a change of state that comes in it takes the progress along.
    if (waitMs <= 0) this.sink.finally(() => this.start())
    else this.timer = setTimeout(() => this.start(), waitMs)
  }

  private start(): void {
    if (this.closed || this.sending || !this.scheduled) return
    this.scheduled = false
    const due = performance.now() >= this.nextProgressAt
    const reports = due ? [...this.waiting] : this.waiting.filter(({ kind }) => kind === 'log')
    if (due) this.nextProgressAt = performance.now() + this.intervalMs
    const sending = this.deliver(reports, false).then(() => {
      this.sending = undefined
      this.schedule()
    })
    this.sending = sending
  }

  /** Sends reports in order; those that Redis has taken, or refused for good, wait no longer. */
  private async deliver(reports: Report[], final: boolean): Promise<void> {
    const { sink } = this
    const answers = await Promise.allSettled(
      reports.map((report) => {
        // A repeat keeps its number, so that one that was written is recognised.
        report.op ||= ++this.ops
        return sink[report.kind](report.op, report.text)
      }),
    )
    let failure: unknown
    for (const [i, answer] of answers.entries()) {
      if (answer.status === 'rejected') {
        failure = answer.reason
        continue
      }
      this.waiting.splice(this.waiting.indexOf(reports[i] as Report), 1)
      if (answer.value.ok) continue
      this.close()
      // `illegal` after our own end of the attempt is no news.
      if (answer.value.reason !== 'illegal' || !final) sink.lost()
      return
    }
    if (failure !== undefined) {
      sink.trouble(failure)
      this.pausedUntil = performance.now() + PAUSE_MS
      if (final && !isStateError(failure, 'REDIS_OUT_OF_MEMORY')) throw failure
      return
    }
    if (this.leftOut > 0 && !this.closed) {
      const text = `(${this.leftOut} log lines left out: they came faster than Redis took them)`
      this.leftOut = 0
      this.waiting.push({ kind: 'log', text, op: 0 })
    }
    this.settle()
  }
}

const DONE = Promise.resolve()
