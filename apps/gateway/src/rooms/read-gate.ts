// Bounds the reads of jobs: how many run at the same time, and how many wait. Answers may be large, and clients may ask for
// many at once.
import { StateError } from '@jobs/state'

const RUNNING = 256
const WAITING = 20_000
/** Milliseconds that a read may wait for its turn: then its client had better ask again. */
const PATIENCE_MS = 3_000

interface Waiting {
  since: number
  go: (turn: boolean) => void
}

const tooBusy = () => new StateError('REDIS_UNAVAILABLE', 'More jobs are being read than this gateway can.')

export class ReadGate {
  private running = 0
  private readonly waiting: Waiting[] = []

  /** @throws StateError when too many wait, or it waited for too long */
  async pass<T>(read: () => Promise<T>): Promise<T> {
    if (this.running < RUNNING) this.running++
    else {
      if (this.waiting.length >= WAITING) throw tooBusy()
      const turn = await new Promise<boolean>((go) => this.waiting.push({ since: performance.now(), go }))
      if (!turn) throw tooBusy()
    }
    try {
      return await read()
    } finally {
      this.next()
    }
  }

  /** The place goes to the first that has not waited for too long. */
  private next(): void {
    for (let first = this.waiting.shift(); first; first = this.waiting.shift()) {
      const turn = performance.now() - first.since < PATIENCE_MS
      first.go(turn)
      if (turn) return
    }
    this.running--
  }
}
