// What was delivered to a worker and is not claimed yet: until claims are allowed again, until a slot is free, or, of jobs
// that are broken, until a pause is over that grows with each try.
import type { Entry } from './queue-reader.ts'

/** Milliseconds until a broken job is looked at again, twice as long each time, at most. */
const RETRY_MS = 200
const MOST_RETRY_MS = 30_000
/** With so many broken jobs in its hands a worker takes no more: then the fault is not theirs. */
const MOST_BROKEN = 1_000

/** A job that could not be granted, since what is kept of it is broken. */
interface Broken {
  entry: Entry
  pauseMs: number
  /** When it is looked at again, of performance.now. */
  dueAt: number
}

export class PutOff {
  private readonly waiting = new Map<string, Entry>()
  private readonly broken = new Map<string, Broken>()

  /** Whether there is any to be claimed now. */
  get any(): boolean {
    return this.waiting.size > 0
  }

  get brokenCount(): number {
    return this.broken.size
  }

  get tooManyBroken(): boolean {
    return this.broken.size >= MOST_BROKEN
  }

  /** Once, however often our own list is read. */
  add(entry: Entry): void {
    this.waiting.set(entry.join(' '), entry)
  }

  /** Takes so many out, those that came first. */
  next(count: number): Entry[] {
    const next = [...this.waiting].slice(0, count)
    for (const [key] of next) this.waiting.delete(key)
    return next.map(([, entry]) => entry)
  }

  /** Puts a broken job aside, so that the others go on. Answers whether that is news: who mends it need not tell us. */
  putAside(entry: Entry): boolean {
    const key = entry.join(' ')
    const known = this.broken.get(key)
    const pauseMs = known ? Math.min(known.pauseMs * 2, MOST_RETRY_MS) : RETRY_MS
    this.broken.set(key, { entry, pauseMs, dueAt: performance.now() + pauseMs })
    return known === undefined
  }

  mended(entry: Entry): void {
    this.broken.delete(entry.join(' '))
  }

  /** Broken ones whose pause is over are to be claimed again. Answers whether there is any to be claimed. */
  recall(): boolean {
    if (this.broken.size === 0) return false
    const now = performance.now()
    for (const { entry, dueAt } of this.broken.values()) if (dueAt <= now) this.add(entry)
    return this.any
  }
}
