// What one attempt reports, in order: log lines each, progress coalesced (the last value wins) under a rate cap.
// One report is under way at a time; a report whose reply was lost is repeated under its number and written once.
import type { Outcome } from './transitions.ts'

/** Log lines that may wait; beyond it lines are left out, and a line tells how many. */
const MAX_WAITING_LINES = 1_000
/** Milliseconds until reports are tried again after an error. */
const PAUSE_MS = 500

export interface ReportSink {
  progress(op: number, text: string): Promise<Outcome>
  log(op: number, line: string): Promise<Outcome>
  /** The attempt is not ours any more. */
  lost(): void
  /** Redis is in trouble; the report stays and is tried again. */
  trouble(error: unknown): void
}

export class Reporter {
  private readonly sink: ReportSink
  private readonly intervalMs: number
  private readonly lines: string[] = []
  private leftOut = 0
  private latest: string | undefined
  private op = 0
  private lastProgressAt = Number.NEGATIVE_INFINITY
  private pausedUntil = Number.NEGATIVE_INFINITY
  private sending: Promise<void> | undefined
  private timer: NodeJS.Timeout | undefined
  private closed = false
  private flushing = false
  private failure: unknown

  constructor(sink: ReportSink, intervalMs: number) {
    this.sink = sink
    this.intervalMs = intervalMs
  }

  progress(text: string): void {
    this.latest = text
    this.schedule()
  }

  log(line: string): void {
    if (this.lines.length >= MAX_WAITING_LINES) this.leftOut++
    else this.lines.push(line)
    this.schedule()
  }

  /** Writes what waits, the last progress included. Throws what Redis said when something still waits. */
  async flush(): Promise<void> {
    clearTimeout(this.timer)
    this.timer = undefined
    // Until it is through, nothing else starts: two reports under way would share a number.
    this.flushing = true
    try {
      await this.sending
      await this.send(true)
    } finally {
      this.flushing = false
    }
    if (!this.closed && (this.lines.length > 0 || this.latest !== undefined)) throw this.failure
  }

  /** Drops what waits: the attempt is over. */
  close(): void {
    this.closed = true
    clearTimeout(this.timer)
  }

  private schedule(): void {
    if (this.closed || this.flushing || this.sending || this.timer) return
    if (this.lines.length === 0 && this.latest === undefined) return
    const due =
      this.lines.length > 0
        ? this.pausedUntil
        : Math.max(this.lastProgressAt + this.intervalMs, this.pausedUntil)
    const waitMs = due - performance.now()
    if (waitMs <= 0) this.start()
    else this.wake(waitMs)
  }

  private wake(ms: number): void {
    this.timer = setTimeout(() => {
      this.timer = undefined
      this.start()
    }, ms)
  }

  private start(): void {
    this.sending = this.send(false).finally(() => {
      this.sending = undefined
      this.schedule()
    })
  }

  private async send(all: boolean): Promise<void> {
    while (!this.closed && this.lines.length > 0) {
      if (!(await this.deliver('log', this.lines[0] as string))) return
      this.lines.shift()
      if (this.lines.length === 0 && this.leftOut > 0) {
        this.lines.push(`(${this.leftOut} log lines left out: they came faster than Redis took them)`)
        this.leftOut = 0
      }
    }
    const due = all || performance.now() - this.lastProgressAt >= this.intervalMs
    if (this.closed || this.latest === undefined || !due) return
    const text = this.latest
    this.lastProgressAt = performance.now()
    if ((await this.deliver('progress', text)) && this.latest === text) this.latest = undefined
  }

  private async deliver(kind: 'log' | 'progress', text: string): Promise<boolean> {
    try {
      const outcome = await this.sink[kind](this.op + 1, text)
      this.op++
      if (outcome.ok) return true
      this.close()
      this.sink.lost()
      return false
    } catch (error) {
      this.failure = error
      this.sink.trouble(error)
      this.pausedUntil = performance.now() + PAUSE_MS
      // Perhaps it was written. A line keeps its number, so its repeat is recognised; a newer progress would be taken
      // for that repeat, so it gets a number of its own.
      if (kind === 'progress') this.op++
      return false
    }
  }
}
