// Listens to channels. In a cluster each channel is heard from the node that owns its slot. Publish/subscribe is at most
// once: whoever uses this treats a message as a hint of what is in the stream, and every `onRecovered` as a gap in each of
// the channels that it names.
import { parseAddress } from './address.ts'
import { ClusterServers } from './cluster.ts'
import { Connection, isServerAnswer, type LinkOptions } from './connection.ts'
import { slotOf } from './slots.ts'

export interface Listener {
  /** @param aheadMs how far the clock of the server is ahead of ours, as last measured by a probe; 0 without one */
  onMessage(channel: string, message: string, aheadMs: number): void
  /** Channels are subscribed again after a connection was lost or a slot has moved: each may have missed messages. */
  onRecovered(channels: readonly string[]): void
  /** The connection that these were heard on is gone; the others' is not. */
  onLost?(channels: readonly string[]): void
}

/**
 * A connection that answers PING may still hear nothing: what is published to one of `channels` must come back. There is
 * one channel for each partition; each server is probed through one that is its own.
 */
export interface Probe {
  channels: readonly string[]
  /** Publishes, and answers the server's clock. */
  publish(channel: string, text: string): Promise<number>
  /** There is no right to publish or to hear probes: from now on PING has to do. */
  onRefused(error: unknown): void
}

/** Milliseconds between probes of a subscribed connection, and until an unanswered one has it replaced. */
const PROBE_MS = 2_000
const DEAD_MS = 2.5 * PROBE_MS
/** Milliseconds between tries to subscribe what could not be. */
const MEND_PAUSE_MS = 50
/** Milliseconds that one server gets to connect, or to confirm, in one try. */
const TRY_MS = 1_000
const CHANNELS_AT_ONCE = 1_000

/** One subscribed connection. */
interface Ear {
  connection: Connection
  answeredAt: number
  /** Subscriptions under way. */
  asking: number
  /** The channel that its probes come back on, once it is subscribed. */
  channel: string | undefined
  probing: boolean
  sent: number
  heard: number
  heardAt: number
  /** When the first probe was published that did not come back. */
  unheardSince: number | undefined
  roundTripMs: number
  aheadMs: number
}

const pause = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms))

export class Subscriber {
  private readonly options: LinkOptions
  private readonly listener: Listener
  /** Knows the owners of slots; undefined where there is one server. */
  private readonly cluster: ClusterServers | undefined
  private readonly ears = new Map<string, Ear>()
  private readonly wanted = new Set<string>()
  /** Where each channel was confirmed. */
  private readonly placed = new Map<string, Ear>()
  private probe: Probe | undefined
  private readonly checks: NodeJS.Timeout
  private soon: { channels: string[]; heard: Promise<boolean> } | undefined
  private broken = false
  private mending = false
  private closed = false

  /** @throws StateError INVALID_OPTIONS */
  constructor(options: LinkOptions, listener: Listener, probe?: Probe) {
    this.options = options
    this.listener = listener
    this.probe = probe
    if (parseAddress(options.url).kind === 'cluster') this.cluster = new ClusterServers(options)
    void this.mend()
    this.checks = setInterval(() => this.check(), PROBE_MS)
  }

  /** Whether messages arrive: connected, the last probes were answered, and no channel waits for its subscription. */
  get alive(): boolean {
    if (this.mending || (this.cluster && !this.cluster.ready)) return false
    return [...this.ears.values()].every(isAlive)
  }

  /** Whether some messages arrive: in a cluster the channels of other nodes are heard while one is away. */
  get partlyAlive(): boolean {
    return this.alive || (this.cluster?.ready === true && [...this.ears.values()].some(isAlive))
  }

  /** Of the connection that has been silent for longest: since its last probe came back, and how long that took. */
  get probed(): { ageMs: number; roundTripMs: number } {
    const ears = [...this.ears.values()].filter(
      ({ channel, connection }) => channel !== undefined || !connection.ready,
    )
    const oldest = Math.min(...ears.map(({ heardAt }) => heardAt))
    return {
      ageMs: ears.length === 0 ? 0 : performance.now() - oldest,
      roundTripMs: Math.max(0, ...ears.map(({ roundTripMs }) => roundTripMs)),
    }
  }

  /**
   * Listens to a channel. Resolves once Redis has confirmed, so that whatever is read afterwards joins without a gap;
   * while the connection is down it resolves at once, and `onRecovered` comes when the channel is live.
   */
  async subscribe(channel: string): Promise<void> {
    this.wanted.add(channel)
    const ear = this.earOf(channel)
    if (ear?.connection.ready && (await this.listenSoon(ear, channel))) return
    if (!this.placed.has(channel)) void this.mend()
  }

  /** Channels that are asked for in one tick go out as one command; in a cluster one takes channels of one slot only. */
  private listenSoon(ear: Ear, channel: string): Promise<boolean> {
    if (this.cluster) return this.listen(ear, [channel])
    if (!this.soon || this.soon.channels.length === CHANNELS_AT_ONCE) {
      const channels: string[] = []
      const heard = new Promise<boolean>((resolve) => {
        setImmediate(() => {
          if (this.soon?.channels === channels) this.soon = undefined
          resolve(this.listen(ear, channels))
        })
      })
      this.soon = { channels, heard }
    }
    this.soon.channels.push(channel)
    return this.soon.heard
  }

  unsubscribe(channel: string): void {
    this.wanted.delete(channel)
    const ear = this.placed.get(channel)
    this.placed.delete(channel)
    if (ear) this.leave(ear, channel)
  }

  close(): void {
    this.closed = true
    clearInterval(this.checks)
    for (const { connection } of this.ears.values()) connection.close()
    this.cluster?.close()
  }

  /** Places every channel that is not where it belongs, until all are; tells of each as soon as it is. */
  private async mend(): Promise<void> {
    this.broken = true
    if (this.mending || this.closed) return
    this.mending = true
    while (this.broken && !this.closed) {
      this.broken = false
      if (await this.place()) continue
      this.broken = true
      await pause(MEND_PAUSE_MS)
    }
    this.mending = false
  }

  private async place(): Promise<boolean> {
    await this.cluster?.look()
    const missing = new Map<Ear, Map<number, string[]>>()
    let complete = true
    for (const channel of this.wanted) {
      const ear = this.earOf(channel)
      const at = this.placed.get(channel)
      if (at && at === ear) continue
      if (at) {
        this.placed.delete(channel)
        this.leave(at, channel)
      }
      if (!ear) {
        complete = false
        continue
      }
      // One command takes channels of one slot only.
      const slot = this.cluster ? slotOf(channel) : 0
      const slots = missing.get(ear) ?? new Map<number, string[]>()
      missing.set(ear, slots)
      const channels = slots.get(slot)
      if (channels) channels.push(channel)
      else slots.set(slot, [channel])
    }
    // Without a channel the connection of a single server is made all the same: it is what readiness looks at.
    if (!this.cluster) complete = await this.ear('').connection.attempt(TRY_MS)
    const heard = await Promise.all(
      [...missing].map(async ([ear, slots]) => {
        if (!(await ear.connection.attempt(TRY_MS))) return false
        let all = true
        for (const channels of slots.values())
          for (let i = 0; i < channels.length; i += CHANNELS_AT_ONCE)
            all = (await this.recover(ear, channels.slice(i, i + CHANNELS_AT_ONCE))) && all
        return all
      }),
    )
    return complete && heard.every((each) => each)
  }

  private async recover(ear: Ear, channels: string[]): Promise<boolean> {
    if (!(await this.listen(ear, channels))) return false
    // Nobody waits for one that was let go of meanwhile.
    const heard = channels.filter((channel) => this.placed.get(channel) === ear)
    if (heard.length > 0 && !this.closed) this.listener.onRecovered(heard)
    return true
  }

  /** Whether Redis has confirmed the channels. */
  private async listen(ear: Ear, channels: string[]): Promise<boolean> {
    const { client } = ear.connection
    ear.asking++
    try {
      const asked = this.cluster ? client.ssubscribe(...channels) : client.subscribe(...channels)
      await ear.connection.timed(asked as Promise<unknown>, TRY_MS)
    } catch (error) {
      // The connection went away or the slot has moved: `mend` goes on.
      this.cluster?.failed(ear.connection, error)
      return false
    } finally {
      ear.asking--
    }
    if (!ear.connection.ready) return false
    for (const channel of channels)
      if (this.wanted.has(channel)) this.placed.set(channel, ear)
      else this.leave(ear, channel)
    return true
  }

  private leave({ connection }: Ear, channel: string): void {
    if (!connection.ready) return
    const { client } = connection
    const left = this.cluster ? client.sunsubscribe(channel) : client.unsubscribe(channel)
    left.catch((error) => {
      // Where the slot has moved away the server has let go of the channel by itself.
      if (!isServerAnswer(error)) connection.replace()
    })
  }

  private earOf(channel: string): Ear | undefined {
    if (!this.cluster) return this.ear('')
    const owner = this.cluster.owner(channel)
    return owner === undefined ? undefined : this.ear(owner)
  }

  /** @param node of the cluster; '' for the one server there is */
  private ear(node: string): Ear {
    const known = this.ears.get(node)
    if (known) return known
    const split = node.lastIndexOf(':')
    const at = node === '' ? undefined : { host: node.slice(0, split), port: Number(node.slice(split + 1)) }
    const connection = new Connection(this.options, parseAddress(this.options.url), at)
    const now = performance.now()
    const ear: Ear = {
      ...{ connection, answeredAt: now, asking: 0, channel: undefined, probing: false },
      ...{ sent: 0, heard: 0, heardAt: now, unheardSince: undefined, roundTripMs: 0, aheadMs: 0 },
    }
    this.ears.set(node, ear)
    const onMessage = (channel: string, message: string) => {
      if (channel === ear.channel) hearProbe(ear, Number(message))
      else this.listener.onMessage(channel, message, ear.aheadMs)
    }
    connection.client.on('message', onMessage)
    connection.client.on('smessage', onMessage)
    connection.client.on('ready', () => {
      ear.answeredAt = ear.heardAt = performance.now()
      void this.sendProbe(ear)
    })
    connection.client.on('close', () => {
      ear.channel = ear.unheardSince = undefined
      this.lost(ear)
    })
    // The server let go of channels whose slot it gave away, without naming them here. (It also comes with the error of a
    // subscription under way, which names them.)
    connection.client.on('moved', () => {
      if (ear.asking > 0) void this.mend()
      else this.lost(ear)
    })
    return ear
  }

  private lost(ear: Ear): void {
    if (this.closed) return
    const channels: string[] = []
    for (const [channel, at] of this.placed) if (at === ear) channels.push(channel)
    for (const channel of channels) this.placed.delete(channel)
    if (channels.length > 0) this.listener.onLost?.(channels)
    if (channels.length > 0 || !this.cluster) void this.mend()
  }

  /** A half-open connection looks alive for ever: one that does not answer is replaced. */
  private check(): void {
    for (const [node, ear] of this.ears) {
      const { connection } = ear
      if (!connection.ready) {
        // A node that went and has no channels any more is not tried for ever.
        if (this.cluster && !this.mending && ![...this.placed.values()].includes(ear)) {
          connection.close()
          this.ears.delete(node)
        }
        continue
      }
      if (isDeaf(ear)) {
        connection.replace()
        continue
      }
      void this.sendProbe(ear)
      connection.client.ping().then(
        () => {
          ear.answeredAt = performance.now()
        },
        // The connection broke while the probe was under way; it is made anew by itself.
        () => undefined,
      )
    }
    if (this.cluster) void this.cluster.look().then(() => this.compare())
  }

  /** On the whole path: out over the connection that jobs are read with, back over the one that hears them. */
  private async sendProbe(ear: Ear): Promise<void> {
    const { probe } = this
    if (!probe || ear.probing || this.closed) return
    ear.probing = true
    try {
      const channel = probe.channels.find((each) => this.owns(ear, each))
      if (channel !== ear.channel) await this.moveProbe(ear, channel)
      if (ear.channel === undefined) return
      const asked = performance.now()
      const wall = Date.now()
      const serverMs = await probe.publish(ear.channel, String(++ear.sent))
      ear.aheadMs = serverMs - (wall + Date.now()) / 2
      const now = performance.now()
      ear.roundTripMs = now - asked
      if (ear.channel === channel && ear.heard < ear.sent) ear.unheardSince ??= now
    } catch (error) {
      // While Redis is away the connections are made anew by themselves.
      if (!(error instanceof Error && error.message.includes('NOPERM')) || !this.probe) return
      this.probe = undefined
      for (const each of this.ears.values()) each.channel = each.unheardSince = undefined
      probe.onRefused(error)
    } finally {
      ear.probing = false
    }
  }

  private owns({ connection }: Ear, channel: string): boolean {
    return this.cluster === undefined || this.cluster.owner(channel) === connection.address
  }

  private async moveProbe(ear: Ear, channel: string | undefined): Promise<void> {
    const { connection, channel: old } = ear
    if (old !== undefined) this.leave(ear, old)
    ear.channel = ear.unheardSince = undefined
    if (channel === undefined || !connection.ready) return
    const { client } = connection
    ear.asking++
    try {
      const asked = this.cluster ? client.ssubscribe(channel) : client.subscribe(channel)
      await connection.timed(asked as Promise<unknown>, TRY_MS)
    } finally {
      ear.asking--
    }
    ear.channel = channel
    ear.heardAt = performance.now()
  }

  /** A node that was cut off from the cluster keeps its subscribers and has nothing to tell them: the map is compared. */
  private compare(): void {
    if (this.mending || this.closed) return
    for (const [channel, ear] of this.placed)
      if (this.earOf(channel) !== ear) {
        void this.mend()
        return
      }
  }
}

const hearProbe = (ear: Ear, sent: number): void => {
  ear.heard = sent
  ear.heardAt = performance.now()
  ear.unheardSince = undefined
}

/** Does not answer, or answers and does not tell what was published. */
const isDeaf = ({ answeredAt, unheardSince }: Ear): boolean =>
  Math.min(answeredAt, unheardSince ?? Number.POSITIVE_INFINITY) + DEAD_MS <= performance.now()

const isAlive = (ear: Ear): boolean =>
  ear.connection.ready &&
  !isDeaf(ear) &&
  (ear.channel === undefined || performance.now() - ear.heardAt < DEAD_MS)
