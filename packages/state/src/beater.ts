// Beats for the attempts on boards, one timer per interval, wherever it runs: in the thread, or in the loop that runs the
// handlers. All that is due at one interval goes out in one tick, hence as one call per partition.
import { type Page, sharedNow } from './board.ts'
import type { Transitions } from './transitions.ts'

/** Milliseconds; see WorkerOptions. */
export interface Pace {
  leaseMs: number
  heartbeatMs: number
  blockedLoopMs: number
}

/** What a beat says that the attempt must hear: another owns the job (or none), or a cancel was requested. */
export type Verdict = 'lost' | 'cancel'

export interface Beaten {
  readonly pace: Pace
  readonly pages: readonly Page[]
  readonly heartbeat: Transitions['heartbeat']
  /** `slot` counts through all pages. */
  readonly heard: (slot: number, turn: number, verdict: Verdict) => void
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
    const answers: Promise<void>[] = []
    let first = 0
    for (const page of board.pages) {
      for (let slot = 0; slot < page.slots; slot++) {
        const held = page.read(slot, minAgeMs)
        if (!held) continue
        const at = first + slot
        answers.push(
          board.heartbeat(held.attempt).then((answer) => {
            if (!answer.ok) board.heard(at, held.turn, 'lost')
            else if (answer.cancelRequested) board.heard(at, held.turn, 'cancel')
          }),
        )
      }
      first += page.slots
    }
    if (answers.length === 0) return
    this.waiting.add(board)
    const failed = (await Promise.allSettled(answers)).find(({ status }) => status === 'rejected')
    this.waiting.delete(board)
    if (failed) board.trouble((failed as PromiseRejectedResult).reason)
  }
}
