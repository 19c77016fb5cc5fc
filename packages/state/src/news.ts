// Wakes whoever waits for news of a job, from one subscribed connection for all of them.
import type { LinkOptions } from './connection.ts'
import type { Wakeups } from './events.ts'
import { Subscriber } from './subscriber.ts'

export class News {
  private readonly options: LinkOptions
  private subscriber: Subscriber | undefined
  private readonly waiting = new Map<string, Set<() => void>>()

  constructor(options: LinkOptions) {
    this.options = options
  }

  /** Of one channel. Resolves once it is heard, so that whatever is read afterwards joins without a gap. */
  async of(channel: string): Promise<Wakeups> {
    this.subscriber ??= new Subscriber(this.options, {
      onMessage: (on) => this.wake(on),
      onRecovered: (channels) => {
        for (const on of channels) this.wake(on)
      },
    })
    const wakes = this.waiting.get(channel) ?? new Set()
    this.waiting.set(channel, wakes)
    // Kept from the first moment, so that nothing between two reads is missed.
    let rung = false
    let ring = () => {
      rung = true
    }
    const wake = () => ring()
    wakes.add(wake)
    await this.subscriber.subscribe(channel)
    return {
      next: (maxMs, signal) => {
        if (rung) {
          rung = false
          return Promise.resolve()
        }
        return new Promise((resolve) => {
          const done = () => {
            clearTimeout(timer)
            signal?.removeEventListener('abort', done)
            ring = () => {
              rung = true
            }
            resolve()
          }
          const timer = setTimeout(done, maxMs)
          signal?.addEventListener('abort', done, { once: true })
          ring = done
        })
      },
      close: () => {
        wakes.delete(wake)
        if (wakes.size > 0) return
        this.waiting.delete(channel)
        this.subscriber?.unsubscribe(channel)
      },
    }
  }

  close(): void {
    this.subscriber?.close()
    for (const channel of this.waiting.keys()) this.wake(channel)
  }

  private wake(channel: string): void {
    for (const wake of this.waiting.get(channel) ?? []) wake()
  }
}
