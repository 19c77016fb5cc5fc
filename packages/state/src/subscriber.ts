// A connection that listens to job channels. Publish/subscribe is at most once: whoever uses this treats a message as a
// hint of what is in the stream, and every (re)connect as a gap in all of its channels.
import { Redis } from 'ioredis'
import { addressOf, type LinkOptions, profile, typed } from './redis.ts'

export interface Listener {
  onMessage(channel: string, message: string): void
  /** All channels are subscribed again after the connection was lost: each may have missed messages. */
  onRecovered(): void
  onLost?(): void
}

/** Milliseconds between probes of the subscribed connection, and until an unanswered one has it replaced. */
const PROBE_MS = 2_000

export class Subscriber {
  private readonly client: Redis
  private readonly wanted = new Set<string>()
  private readonly listener: Listener
  private readonly probe: NodeJS.Timeout
  private established = false
  private closed = false
  private answeredAt = performance.now()

  constructor(options: LinkOptions, listener: Listener) {
    const address = addressOf(options.url)
    this.listener = listener
    this.client = new Redis(options.url, profile(options))
    this.client.on('error', (error) => options.onTrouble?.(typed(error, address)))
    this.client.on('message', (channel: string, message: string) => listener.onMessage(channel, message))
    this.client.on('ready', () => void this.resume())
    this.client.on('close', () => {
      if (this.established && !this.closed) listener.onLost?.()
    })
    this.client.connect().catch((error) => options.onTrouble?.(typed(error, address)))
    this.probe = setInterval(() => this.check(), PROBE_MS)
  }

  /** Whether messages arrive: connected, and the last probe was answered. */
  get alive(): boolean {
    return this.client.status === 'ready' && performance.now() - this.answeredAt < 2.5 * PROBE_MS
  }

  /**
   * Listens to a channel. Resolves once Redis has confirmed, so that whatever is read afterwards joins without a gap;
   * while the connection is down it resolves at once, and `onRecovered` comes when the channel is live.
   */
  async subscribe(channel: string): Promise<void> {
    this.wanted.add(channel)
    if (this.client.status !== 'ready') return
    try {
      await this.client.subscribe(channel)
    } catch {
      // The connection went away meanwhile: `resume` subscribes to everything wanted and tells `onRecovered`.
    }
  }

  unsubscribe(channel: string): void {
    this.wanted.delete(channel)
    if (this.client.status === 'ready')
      this.client.unsubscribe(channel).catch(() => this.client.disconnect(true))
  }

  close(): void {
    this.closed = true
    clearInterval(this.probe)
    this.client.disconnect()
  }

  private async resume(): Promise<void> {
    this.answeredAt = performance.now()
    try {
      const channels = [...this.wanted]
      for (let i = 0; i < channels.length; i += 1_000)
        await this.client.subscribe(...channels.slice(i, i + 1_000))
    } catch {
      // Lost again: the next 'ready' starts over.
      return
    }
    const again = this.established
    this.established = true
    if (again || this.wanted.size > 0) this.listener.onRecovered()
  }

  /** A half-open connection looks alive for ever: one that does not answer is replaced. */
  private check(): void {
    if (this.client.status !== 'ready') return
    if (!this.alive) {
      this.client.disconnect(true)
      return
    }
    this.client.ping().then(
      () => {
        this.answeredAt = performance.now()
      },
      // The connection broke while the probe was under way; ioredis reconnects by itself.
      () => undefined,
    )
  }
}
