// The Redis side: listens to the channels of watched jobs, and reads jobs and streams. Knows no sockets.
import { randomBytes } from 'node:crypto'
import {
  type Continuation,
  isStateError,
  type Keys,
  keysOf,
  type LinkOptions,
  type Live,
  type LiveRead,
  partitionOf,
  RedisLink,
  readLive,
  readRevocations,
  readTagCounts,
  readWhetherLast,
  Subscriber,
} from '@jobs/state'
import { lag } from '../metrics.ts'
import { ReadGate } from './read-gate.ts'
import { Reads } from './reads.ts'
import type { RoomSource } from './room-reads.ts'
import type { TagPart } from './tag-room.ts'
import type { TagChannels } from './tag-rooms.ts'

/** Rooms looked at at the same time after Redis came back. */
const READS_AT_ONCE = 256
/** Jobs read by one call; and positions compared, which is little of each. */
const JOBS_A_CALL = 16
const PLACES_A_CALL = 128
/** Milliseconds until rooms that could not be read are tried again. */
const RETRY_MS = 500
/** Tries to read a job that is damaged itself. */
const DAMAGED_TRIES = 3
/** Milliseconds of silence after which a channel is checked; how many are at most, each second, and at the same time. */
const QUIET_MS = 30_000
const CHECKS_A_SECOND = 512
const CHECKS_AT_ONCE = 64

/** What the tailer needs of a room. */
interface Hearer {
  readonly quietMs: number
  hear(message: string): void
  lost(): void
  recovered(): Promise<void>
  check(): Promise<void>
  /** What it reads is damaged, and stays so. */
  giveUp?(): void
}

interface Watched {
  hearer: Hearer
  subscribed: Promise<void>
  lingering?: NodeJS.Timeout | undefined
}

export interface TailerOptions extends LinkOptions {
  namespace: string
  partitions: number
  onError: (error: unknown) => void
  /** Redis grants no right to publish a probe: only PING tells whether the subscription lives. */
  onProbeRefused: (error: unknown) => void
}

export class Tailer implements RoomSource, TagChannels {
  private readonly link: RedisLink
  private readonly gate = new ReadGate()
  private readonly subscriber: Subscriber
  private readonly all: Keys[]
  private readonly jobs: Reads<LiveRead, Continuation<Live> | null>[]
  private readonly places: Reads<{ id: string; cursor: string }, boolean>[]
  private readonly onError: (error: unknown) => void
  private readonly watched = new Map<string, Watched>()
  /** Rooms that may have missed events and have not read their stream since. */
  private readonly stale = new Set<Hearer>()
  private recovering = false
  /** Whether rooms could not be read, or not yet. */
  private behind = false
  private closed = false
  private sampled = false
  private readonly checks: NodeJS.Timeout
  private checking = false
  private nextChecks: Iterator<Watched> = [].values()

  constructor(options: TailerOptions) {
    this.onError = options.onError
    this.all = Array.from({ length: options.partitions }, (_, partition) =>
      keysOf(options.namespace, partition),
    )
    this.link = new RedisLink({ ...options, deadlineMs: 3_000 })
    const { link } = this
    this.jobs = this.all.map((keys) => new Reads(JOBS_A_CALL, (jobs) => readLive(link, keys, jobs)))
    this.places = this.all.map(
      (keys) => new Reads(PLACES_A_CALL, (places) => readWhetherLast(link, keys, places)),
    )
    const listener = randomBytes(9).toString('base64url')
    const probe = {
      channels: this.all.map((keys) => keys.probe(listener)),
      publish: async (channel: string, text: string) => {
        const replies = await this.link.batch([[this.link.publish, channel, text], ['TIME']])
        const [seconds, micros] = replies[1] as [string, string]
        return Number(seconds) * 1_000 + Number(micros) / 1_000
      },
      onRefused: options.onProbeRefused,
    }
    const hears = {
      onMessage: (channel: string, message: string, aheadMs: number) => {
        this.watched.get(channel)?.hearer.hear(message)
        this.sample(message, aheadMs)
      },
      onLost: (channels: readonly string[]) => {
        for (const channel of channels) this.watched.get(channel)?.hearer.lost()
      },
      onRecovered: (channels: readonly string[]) => {
        for (const channel of channels) {
          const known = this.watched.get(channel)
          if (known) this.stale.add(known.hearer)
        }
        this.behind = true
        void this.recover()
      },
    }
    this.subscriber = new Subscriber(options, hears, probe)
    this.checks = setInterval(() => void this.checkQuiet(), 1_000)
  }

  /** Null when all jobs can be read and heard, else the reason why not. */
  get trouble(): string | null {
    if (!this.subscriber.alive) return 'what Redis publishes does not come through'
    if (!this.link.ready) return 'the connection to Redis is down'
    if (this.behind) return 'catching up after Redis came back'
    return null
  }

  /**
   * Why clients had better go elsewhere, or null. While a node of a cluster is away all gateways are in the same trouble, and
   * those who watch the jobs of the other nodes are served.
   */
  get unready(): string | null {
    const partly = !this.subscriber.alive && this.subscriber.partlyAlive && this.link.ready
    return partly ? null : this.trouble
  }

  get probed() {
    return this.subscriber.probed
  }

  async connect(): Promise<void> {
    await this.link.connect()
  }

  async snapshot(job: string): Promise<Live | null> {
    return (await this.read({ id: job }))?.snapshot ?? null
  }

  since(job: string, cursor: string, count: number): Promise<Continuation<Live> | null> {
    return this.read({ id: job, after: { cursor, count } })
  }

  /** Whether nothing has happened since the event at the cursor, which is still there. */
  isLast(job: string, cursor: string): Promise<boolean> {
    const places = this.places[this.partition(job)] as Reads<{ id: string; cursor: string }, boolean>
    return this.gate.pass(() => places.read({ id: job, cursor }))
  }

  get partitions(): number {
    return this.all.length
  }

  tagCounts(tag: string, partition: number) {
    return this.gate.pass(() => readTagCounts(this.link, this.all[partition] as Keys, tag))
  }

  async watchTag(tag: string, parts: readonly TagPart[]): Promise<void> {
    await Promise.all(parts.map((part, i) => this.listen((this.all[i] as Keys).tagStates(tag), part)))
  }

  unwatchTag(tag: string): void {
    for (const keys of this.all) this.drop(keys.tagStates(tag))
  }

  watch(job: string, hearer: Hearer): Promise<void> {
    return this.listen(this.keys(job).events(job), hearer)
  }

  /** Resolves once Redis has confirmed: what is read afterwards joins what is heard without a gap. */
  private listen(channel: string, hearer: Hearer): Promise<void> {
    let known = this.watched.get(channel)
    if (known) {
      clearTimeout(known.lingering)
      known.lingering = undefined
    } else {
      known = { hearer, subscribed: this.subscriber.subscribe(channel) }
      this.watched.set(channel, known)
    }
    return known.subscribed
  }

  /** What is revoked: heard from now on, and read now and whenever some of it may have been missed. */
  async follow(revocations: Hearer): Promise<void> {
    const channel = this.first.revoked
    this.watched.set(channel, { hearer: revocations, subscribed: this.subscriber.subscribe(channel) })
    await this.watched.get(channel)?.subscribed
    await revocations.recovered()
  }

  readRevocations() {
    return readRevocations(this.link, this.first)
  }

  private get first(): Keys {
    return this.all[0] as Keys
  }

  /** Lets go of a channel after a while, if `close` says then that nobody has come back. */
  unwatch(job: string, afterMs: number, close: () => boolean): void {
    const channel = this.keys(job).events(job)
    const known = this.watched.get(channel)
    if (!known) return
    const end = () => {
      if (close()) this.drop(channel)
    }
    clearTimeout(known.lingering)
    if (afterMs === 0) end()
    else known.lingering = setTimeout(end, afterMs)
  }

  private drop(channel: string): void {
    const known = this.watched.get(channel)
    if (!known) return
    this.watched.delete(channel)
    this.stale.delete(known.hearer)
    this.subscriber.unsubscribe(channel)
  }

  async close(): Promise<void> {
    this.closed = true
    clearInterval(this.checks)
    for (const { lingering } of this.watched.values()) clearTimeout(lingering)
    this.subscriber.close()
    await this.link.close()
  }

  later(hearer: Hearer, error: unknown): void {
    // Else the round that is under way tells of those that fail again, one line for all.
    if (!this.recovering) this.onError(error)
    this.behind ||= !isDamage(error)
    this.stale.add(hearer)
    void this.recover()
  }

  /** Every stale room reads its stream, a bounded number at a time, until all have. */
  private async recover(): Promise<void> {
    if (this.recovering) return
    this.recovering = true
    const tries = new Map<Hearer, number>()
    while (this.stale.size > 0 && !this.closed) {
      const round = [...this.stale].values()
      const failed: unknown[] = []
      let again = 0
      const reader = async () => {
        for (const hearer of round) {
          // One that closed meanwhile is no longer there; one that turns stale again during its read is, once more.
          if (!this.stale.delete(hearer)) continue
          await hearer.recovered().catch((error) => {
            failed.push(error)
            const tried = isDamage(error) ? (tries.get(hearer) ?? 0) + 1 : 0
            tries.set(hearer, tried)
            if (tried >= DAMAGED_TRIES && hearer.giveUp) {
              hearer.giveUp()
              return
            }
            this.stale.add(hearer)
            again++
          })
        }
      }
      await Promise.all(Array.from({ length: READS_AT_ONCE }, reader))
      // One job that can't be read is a fault, and no reason to send everybody elsewhere.
      this.behind = this.stale.size > again || !failed.every(isDamage)
      if (failed.length === 0) continue
      // One line for all of them.
      this.onError(failed[0])
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS))
    }
    this.recovering = false
    this.behind = false
  }

  /**
   * One event a tick at most: sockets are written to at the end of the tick that it was heard in, and before what is
   * planned after them.
   */
  private sample(message: string, aheadMs: number): void {
    if (this.sampled) return
    this.sampled = true
    const publishedMs = Number(/^\d+-(\d+) /.exec(message)?.[1])
    setImmediate(() => {
      this.sampled = false
      // Clocks are compared to a few milliseconds.
      if (publishedMs) lag.observe(Math.max(0, Date.now() + aheadMs - publishedMs) / 1_000)
    })
  }

  /** Nobody tells that a job is gone: rooms that have heard nothing for long look, some each second. */
  private async checkQuiet(): Promise<void> {
    if (this.checking || this.trouble) return
    this.checking = true
    try {
      for (let checked = 0; checked < CHECKS_A_SECOND; checked += CHECKS_AT_ONCE) {
        const quiet = this.nextQuiet(CHECKS_AT_ONCE)
        await Promise.all(quiet.map((hearer) => hearer.check()))
        if (quiet.length < CHECKS_AT_ONCE) break
      }
    } catch (error) {
      this.onError(error)
    } finally {
      this.checking = false
    }
  }

  /** Those that are next to be checked; fewer once all channels were looked at, and then from the first again. */
  private nextQuiet(most: number): Hearer[] {
    const quiet: Hearer[] = []
    while (quiet.length < most) {
      const next = this.nextChecks.next()
      if (next.done) {
        this.nextChecks = this.watched.values()
        break
      }
      if (next.value.hearer.quietMs >= QUIET_MS) quiet.push(next.value.hearer)
    }
    return quiet
  }

  private keys(job: string): Keys {
    return this.all[this.partition(job)] as Keys
  }

  private partition(job: string): number {
    return partitionOf(job, this.all.length)
  }

  private read(read: LiveRead): Promise<Continuation<Live> | null> {
    const jobs = this.jobs[this.partition(read.id)] as Reads<LiveRead, Continuation<Live> | null>
    return this.gate.pass(() => jobs.read(read))
  }
}

/** Not Redis is the trouble, but what stands at a key: a job that somebody wrote to by hand. */
const isDamage = (error: unknown): boolean =>
  !isStateError(error) || (error.code === 'REDIS_REFUSED' && error.message.includes('WRONGTYPE'))
