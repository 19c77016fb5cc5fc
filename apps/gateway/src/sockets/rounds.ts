// When sockets are written to. What a tick brought goes out in one round over all sockets that have something waiting; a
// round of thousands is cut into slices, between which the loop reads. After a round that took long comes a rest as long:
// what is heard meanwhile is merged, so the busier the gateway, the more each write carries. It also looks after the
// sockets that lag behind, and keeps what all of them hold below one bound.

/** Sockets written to in one turn of the loop: 500 writes take about 4 ms. */
const SLICE = 500
/** Milliseconds that a round waits for the last one's sake, at most: with the round itself, what a watcher may wait. */
const MAX_REST_MS = 50
/**
 * Rests below this are none: in a round of that length few sockets get more than one message, so that a rest would make
 * watchers wait and save no write.
 */
const MIN_REST_MS = 8
/** Milliseconds between looks at the sockets that lag behind. */
const LOOK_MS = 20
/** When the bound is crossed, those with the most are cut until this share of it is held. */
const RELIEVED = 0.9

/** A room that tells in the next round what it has heard. */
export interface Teller {
  tellWaiting(): void
}

/** What waits for one socket. */
export interface Sender {
  /** Hands to the socket what it takes. */
  flush(): void
  /** Bytes that wait here or in the socket. */
  readonly queuedBytes: number
  /** Looks whether the socket goes on; answers whether it still lags. */
  look(now: number): boolean
  cut(): void
}

export class Rounds {
  /** Bytes that all sockets together may leave untaken. */
  maxQueuedBytes = 268_435_456
  private readonly tellers = new Set<Teller>()
  private waiting: Sender[] = []
  private planned = false
  private restUntil = 0
  /** The senders that lag, with the bytes last counted for each, and their sum. */
  private readonly lagging = new Map<Sender, number>()
  private lagged = 0
  private looks: NodeJS.Timeout | undefined

  /** The room is asked in the next round, which is the one that its watchers are written to in. */
  tell(teller: Teller): void {
    this.tellers.add(teller)
    this.plan()
  }

  /** The sender is flushed in the next round; the caller sees to it that it asks once. */
  send(sender: Sender): void {
    this.waiting.push(sender)
    this.plan()
  }

  /** Counts what waits for a sender; it is looked at until it lags no more. */
  lag(sender: Sender): void {
    const bytes = sender.queuedBytes
    this.lagged += bytes - (this.lagging.get(sender) ?? 0)
    this.lagging.set(sender, bytes)
    if (this.lagged > this.maxQueuedBytes) this.relieve()
    if (this.lagging.size > 0) this.looks ??= setInterval(() => this.look(), LOOK_MS)
  }

  forget(sender: Sender): void {
    const bytes = this.lagging.get(sender)
    if (bytes === undefined) return
    this.lagged -= bytes
    this.lagging.delete(sender)
    if (this.lagging.size > 0) return
    clearInterval(this.looks)
    this.looks = undefined
  }

  private plan(): void {
    if (this.planned) return
    this.planned = true
    const restMs = this.restUntil - performance.now()
    if (restMs < MIN_REST_MS) setImmediate(() => this.round())
    else setTimeout(() => this.round(), restMs)
  }

  private round(): void {
    const from = performance.now()
    const tellers = [...this.tellers]
    this.tellers.clear()
    for (const teller of tellers) teller.tellWaiting()
    const senders = this.waiting
    this.waiting = []
    this.slice(senders, 0, performance.now() - from)
  }

  private slice(senders: Sender[], start: number, spentMs: number): void {
    const from = performance.now()
    const end = Math.min(senders.length, start + SLICE)
    for (let i = start; i < end; i++) (senders[i] as Sender).flush()
    const now = performance.now()
    const spent = spentMs + now - from
    if (end < senders.length) {
      setImmediate(() => this.slice(senders, end, spent))
      return
    }
    this.restUntil = now + Math.min(spent, MAX_REST_MS)
    this.planned = false
    if (this.waiting.length > 0 || this.tellers.size > 0) this.plan()
  }

  private look(): void {
    const now = performance.now()
    for (const sender of [...this.lagging.keys()])
      if (sender.look(now)) this.lag(sender)
      else this.forget(sender)
  }

  private relieve(): void {
    const most = [...this.lagging].sort(([, a], [, b]) => b - a)
    for (const [sender] of most) {
      if (this.lagged <= this.maxQueuedBytes * RELIEVED) return
      this.forget(sender)
      sender.cut()
    }
  }
}

/** Of this process. */
export const rounds = new Rounds()
