// How late the event loop of this process comes: one measure for all of its workers.
import { monitorEventLoopDelay } from 'node:perf_hooks'

/** Milliseconds between samples. */
const SAMPLE_MS = 20

/** Whole milliseconds: the longest that the loop was late, and what 99 of 100 samples stayed below. */
export interface LoopLag {
  max: number
  p99: number
}

let users = 0
let histogram: ReturnType<typeof monitorEventLoopDelay> | undefined
let since = 0
let last: LoopLag = { max: 0, p99: 0 }

const lateMs = (ns: number) => Math.max(0, Math.round(ns / 1e6) - SAMPLE_MS)

export const watchLoop = (): void => {
  if (++users > 1) return
  histogram = monitorEventLoopDelay({ resolution: SAMPLE_MS })
  histogram.enable()
  since = performance.now()
}

export const unwatchLoop = (): void => {
  if (--users > 0) return
  histogram?.disable()
  histogram = undefined
}

/** Of at least the last `windowMs`, or of the time since the last such reading: several workers read the same. */
export const loopLag = (windowMs: number): LoopLag => {
  if (histogram && performance.now() - since >= windowMs) {
    last = histogram.count > 0 ? { max: lateMs(histogram.max), p99: lateMs(histogram.percentile(99)) } : last
    histogram.reset()
    since = performance.now()
  }
  return last
}
