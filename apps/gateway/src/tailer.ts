// The Redis side: listens to the channels of watched jobs, and reads jobs and streams. Knows no sockets.
import {
  type Keys,
  keysOf,
  type LinkOptions,
  partitionOf,
  RedisLink,
  readSince,
  readSnapshot,
  Subscriber,
} from '@jobs/state'
import type { RoomSource } from './room.ts'

/** Milliseconds a channel is kept after its last watcher left: pages reload. */
const LINGER_MS = 5_000
/** Milliseconds until a room that could not be read is tried again. */
const RETRY_MS = 500
/** Rooms read at the same time after Redis came back. */
const READS_AT_ONCE = 64

/** What the tailer needs of a room. */
interface Hearer {
  hear(body: string): void
  recovered(): Promise<void>
}

export interface TailerOptions extends LinkOptions {
  namespace: string
  partitions: number
  onError: (error: unknown) => void
}

export class Tailer implements RoomSource {
  private readonly link: RedisLink
  private readonly subscriber: Subscriber
  private readonly all: Keys[]
  private readonly onError: (error: unknown) => void
  private readonly watched = new Map<string, { hearer: Hearer; lingering?: NodeJS.Timeout }>()
  private recovering: Promise<void> | undefined
  private recoverAgain = false

  constructor(options: TailerOptions) {
    this.onError = options.onError
    this.all = Array.from({ length: options.partitions }, (_, partition) =>
      keysOf(options.namespace, partition),
    )
    this.link = new RedisLink({ ...options, deadlineMs: 3_000 })
    this.subscriber = new Subscriber(options, {
      onMessage: (channel, body) => this.watched.get(channel)?.hearer.hear(body),
      onRecovered: () => void this.recover(),
    })
  }

  /** Null when jobs can be read and heard, else the reason why not. */
  get trouble(): string | null {
    if (!this.subscriber.alive) return 'the subscribed connection to Redis does not answer'
    if (!this.link.ready) return 'the connection to Redis is down'
    if (this.recovering) return 'catching up after Redis came back'
    return null
  }

  async connect(): Promise<void> {
    await this.link.connect()
  }

  snapshot(job: string) {
    return readSnapshot(this.link, this.keys(job), job)
  }

  since(job: string, cursor: string, count: number) {
    return readSince(this.link, this.keys(job), job, cursor, count)
  }

  /** Resolves once Redis has confirmed: what is read afterwards joins what is heard without a gap. */
  async watch(job: string, hearer: Hearer): Promise<void> {
    const channel = this.keys(job).events(job)
    const known = this.watched.get(channel)
    clearTimeout(known?.lingering)
    this.watched.set(channel, { hearer })
    await this.subscriber.subscribe(channel)
  }

  /** Lets go of a channel after a while, if nobody has come by then; tells `gone`. */
  unwatch(job: string, idle: () => boolean, gone: () => void): void {
    const channel = this.keys(job).events(job)
    const known = this.watched.get(channel)
    if (!known) return
    clearTimeout(known.lingering)
    known.lingering = setTimeout(() => {
      if (!idle()) return
      this.watched.delete(channel)
      this.subscriber.unsubscribe(channel)
      gone()
    }, LINGER_MS)
  }

  async close(): Promise<void> {
    for (const { lingering } of this.watched.values()) clearTimeout(lingering)
    this.subscriber.close()
    await this.link.close()
  }

  /** Every room may have missed events: each reads its stream, a bounded number at a time. */
  private recover(): Promise<void> {
    if (this.recovering) {
      this.recoverAgain = true
      return this.recovering
    }
    this.recovering = (async () => {
      do {
        this.recoverAgain = false
        const rooms = [...this.watched.values()].values()
        const reader = async () => {
          for (const { hearer } of rooms) await this.retried(() => hearer.recovered())
        }
        await Promise.all(Array.from({ length: READS_AT_ONCE }, reader))
      } while (this.recoverAgain)
    })().finally(() => {
      this.recovering = undefined
    })
    return this.recovering
  }

  /** Redis may go away again meanwhile; the next recovery comes with the next connection. */
  private async retried(read: () => Promise<void>): Promise<void> {
    try {
      await read()
    } catch (error) {
      this.onError(error)
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS))
      this.recoverAgain ||= this.subscriber.alive
    }
  }

  private keys(job: string): Keys {
    return this.all[partitionOf(job, this.all.length)] as Keys
  }
}
