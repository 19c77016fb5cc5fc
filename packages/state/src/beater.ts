// Beats for the attempts on boards, one timer per interval, wherever it runs: in the thread, or in the loop that runs the
// handlers. All that is due at one interval goes out in one tick, hence as one call per partition.

import { type Page, sharedNow } from './board.ts'
import { StateError } from './errors.ts'
import type { Beating, Verdict } from './outcomes.ts'
import type { Transitions } from './transitions.ts'

/** Milliseconds; see WorkerOptions. */
export interface Pace {
  leaseMs: number
  heartbeatMs: number
  blockedLoopMs: number
}

/** Attempts that one beat speaks for at most: no script may hold Redis for long. */
const TOGETHER = 256

/** What an attempt is told of a verdict. */
export type Heard = Exclude<Verdict, 'error'>

export interface Beaten {
  /** The worker process and its job name. */
  readonly worker: string
  readonly name: string
  readonly pace: Pace
  readonly pages: readonly Page[]
  readonly beat: Transitions['beat']
  /** `slot` counts through all pages. */
  readonly heard: (slot: number, turn: number, verdict: Heard) => void
  /** Once a tick at most. */
  readonly trouble: (error: unknown) => void
}

export class Beater {
  /** When the loop that runs the handlers was last seen alive, of `sharedNow`. */
  private readonly aliveAt: () => number
  private readonly byInterval = new Map<number, { timer: NodeJS.Timeout; boards: Set<Beaten> }>()
  /** Boards whose last beats Redis has not answered: while it is slow, beats do not pile up. */
  private readonly waiting = new Set<Beaten>()

  constructor(aliveAt: () => number) {
    this.aliveAt = aliveAt
  }

  add(board: Beaten): void {
    const { heartbeatMs } = board.pace
    let group = this.byInterval.get(heartbeatMs)
    if (!group) {
      const boards = new Set<Beaten>()
      group = { boards, timer: setInterval(() => this.tick(boards), heartbeatMs) }
      this.byInterval.set(heartbeatMs, group)
    }
    group.boards.add(board)
  }

  remove(board: Beaten): void {
    const { heartbeatMs } = board.pace
    const group = this.byInterval.get(heartbeatMs)
    group?.boards.delete(board)
    if (!group || group.boards.size > 0) return
    clearInterval(group.timer)
    this.byInterval.delete(heartbeatMs)
  }

  private tick(boards: Set<Beaten>): void {
    const silentMs = sharedNow() - this.aliveAt()
    // A loop that has been blocked for too long is given up: its leases lapse, and others take its jobs.
    for (const board of boards)
      if (silentMs <= board.pace.blockedLoopMs && !this.waiting.has(board)) void this.beat(board)
  }

  private async beat(board: Beaten): Promise<void> {
    const { leaseMs, heartbeatMs } = board.pace
    // A job needs no beat before a quarter of its lease has passed; a cancel is heard within two intervals all the same.
    const minAgeMs = Math.min(leaseMs / 5, heartbeatMs / 2)
    const held: { slot: number; turn: number; attempt: Beating }[] = []
    let first = 0
    for (const page of board.pages) {
      for (let slot = 0; slot < page.slots; slot++) {
        const found = page.read(slot, minAgeMs)
        if (found) held.push({ slot: first + slot, ...found })
      }
      first += page.slots
    }
    if (held.length === 0) return
    this.waiting.add(board)
    try {
      // One after the other: a worker of thousands is no burst.
      for (let from = 0; from < held.length; from += TOGETHER)
        await this.beatFor(board, held.slice(from, from + TOGETHER))
    } catch (error) {
      board.trouble(error)
    } finally {
      this.waiting.delete(board)
    }
  }

  private async beatFor(
    { worker, name, beat, heard, trouble }: Beaten,
    held: { slot: number; turn: number; attempt: Beating }[],
  ): Promise<void> {
    const attempts = held.map(({ attempt }) => attempt)
    const verdicts = await beat(worker, name, attempts)
    for (const [i, verdict] of verdicts.entries()) {
      if (!verdict) continue
      const { slot, turn, attempt } = held[i] as (typeof held)[number]
      if (verdict === 'error')
        trouble(new StateError('REDIS_REFUSED', `The heartbeat of ${attempt.id} failed in Redis.`))
      else heard(slot, turn, verdict)
    }
  }
}
