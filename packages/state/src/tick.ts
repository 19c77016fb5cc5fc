// The end of a tick of the process, when what it produced goes out; and the pace at which answers are heard. Answers that
// were all heard in one tick would all be followed by moves of the next: Redis and this process would take turns, each
// idle for half of the time. So they are heard some at a time, and while Redis is at the moves that follow the first ones
// this process is at the next.

/** Answers heard in one tick. Fewer would be more, and smaller, calls. */
const HEARD_A_TICK = 32

interface Heard {
  count: number
  next: number
  hear: (i: number) => void
}

export class Tick {
  private scheduled = false
  private last: (() => void)[] = []
  private sends: (() => void)[] = []
  private readonly heard: Heard[] = []
  /** Answers that may still be heard in this tick. */
  private room = HEARD_A_TICK

  /** Runs at the tick's end, before anything is sent: to add what belongs to it. */
  finally(add: () => void): void {
    this.last.push(add)
    this.schedule()
  }

  /** Runs at the tick's end. */
  send(flush: () => void): void {
    this.sends.push(flush)
    this.schedule()
  }

  /** Hears answers, now or in the ticks that follow, after those that came before. */
  hear(count: number, hear: (i: number) => void): void {
    this.heard.push({ count, next: 0, hear })
    this.hearSome()
  }

  private hearSome(): void {
    while (this.room > 0) {
      const first = this.heard[0]
      if (!first) break
      this.room--
      first.hear(first.next++)
      if (first.next === first.count) this.heard.shift()
    }
    if (this.room < HEARD_A_TICK) this.schedule()
  }

  private schedule(): void {
    if (this.scheduled) return
    this.scheduled = true
    setImmediate(() => this.end())
  }

  private end(): void {
    const { last } = this
    this.last = []
    try {
      for (const add of last) add()
      const { sends } = this
      this.sends = []
      for (const flush of sends) flush()
    } finally {
      // What throws is a fault of ours, and ends the process or is reported; where it is reported, ticks go on.
      this.scheduled = false
      this.room = HEARD_A_TICK
      this.hearSome()
    }
  }
}
