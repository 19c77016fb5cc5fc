// When connections are pinged, and who has not answered: one timer for all. Those that come together are spread over the
// period, so that thousands of pings never go out in one turn of the loop.

/** Parts of a period that are pinged one after the other. */
const PARTS = 50

export interface Beating {
  /** A period has passed. */
  beat(): void
  /** It has not answered in time. */
  silent(): void
}

export class Heartbeats {
  readonly periodMs: number
  private readonly answerMs: number
  private readonly ring: Set<Beating>[] = Array.from({ length: PARTS }, () => new Set())
  /** Since when each is to answer; whoever was asked first stands first. */
  private readonly asked = new Map<Beating, number>()
  private readonly beganAt = performance.now()
  /** Parts of periods since the beginning, and the newcomers. */
  private passed = 0
  private added = 0

  /** @param answerMs how long each has for its answer */
  constructor(periodMs: number, answerMs: number) {
    this.periodMs = periodMs
    this.answerMs = answerMs
    setInterval(() => this.tick(), periodMs / PARTS).unref()
  }

  /** Its first beat comes after half a period to a whole one. Answers its part of the ring, for `remove`. */
  add(one: Beating): number {
    const part = (this.passed + PARTS - (this.added++ % (PARTS / 2))) % PARTS
    this.ring[part]?.add(one)
    return part
  }

  remove(one: Beating, part: number): void {
    this.ring[part]?.delete(one)
    this.asked.delete(one)
  }

  /** Asked again before it has answered, it has the time of the first question. */
  ask(one: Beating): void {
    if (!this.asked.has(one)) this.asked.set(one, performance.now())
  }

  answered(one: Beating): void {
    this.asked.delete(one)
  }

  private tick(): void {
    const now = performance.now()
    // By the clock: a late timer makes no period longer.
    const due = Math.floor(((now - this.beganAt) / this.periodMs) * PARTS)
    while (this.passed < due)
      for (const one of [...(this.ring[++this.passed % PARTS] as Set<Beating>)]) one.beat()
    for (const [one, since] of this.asked) {
      if (now - since < this.answerMs) return
      this.asked.delete(one)
      one.silent()
    }
  }
}
