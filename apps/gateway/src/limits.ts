// What one gateway grants, in all and to each client. Whatever clients do, the rest is refused before it costs memory.
import { readFileSync } from 'node:fs'
import type { BlockList, Socket } from 'node:net'
import { LIMITS_V1 } from '@jobs/protocol'
import { addressGroup, clientAddress, isIn } from './http/address.ts'

/** TCP connections that have not become sockets yet: request not complete, or plain HTTP. */
const HANDSHAKES = 4_000
/** Seconds' worth of new sockets that may come at once after a pause: clients of a gateway that died come together. */
const BURST_SECONDS = 2
/** Descriptors for Redis, logs, the ops port and what Node itself holds. */
const OWN_DESCRIPTORS = 64

/** What each connection is granted, told in `welcome`. The configuration may change it, once, at the start. */
export const granted: { [limit in keyof typeof LIMITS_V1]: number } = { ...LIMITS_V1 }

/** Counts by key, up to a bound for each. A key whose count is zero is forgotten. */
export class Tally {
  private readonly counts = new Map<string, number>()
  private readonly most: number

  constructor(most: number) {
    this.most = most
  }

  /** Answers false, and counts nothing, when the key has as many as it may. Who has no key is not counted. */
  take(key: string | undefined): boolean {
    if (key === undefined) return true
    if (this.full(key)) return false
    this.counts.set(key, (this.counts.get(key) ?? 0) + 1)
    return true
  }

  full(key: string): boolean {
    return (this.counts.get(key) ?? 0) >= this.most
  }

  giveBack(key: string | undefined): void {
    if (key === undefined) return
    const count = this.counts.get(key) ?? 0
    if (count > 1) this.counts.set(key, count - 1)
    else this.counts.delete(key)
  }
}

/** What all tokens of one subject may have at the same time, on however many connections. */
export interface Shares {
  connections: Tally
  subscriptions: Tally
}

/** Fills at a rate up to a bound; each who comes takes one. */
class Bucket {
  private readonly perMs: number
  private readonly most: number
  private tokens: number
  private filledAt = performance.now()

  constructor(perSecond: number, most: number) {
    this.perMs = perSecond / 1_000
    this.most = most
    this.tokens = most
  }

  get empty(): boolean {
    const now = performance.now()
    this.tokens = Math.min(this.most, this.tokens + (now - this.filledAt) * this.perMs)
    this.filledAt = now
    return this.tokens < 1
  }

  take(): void {
    this.tokens -= 1
  }
}

/** Why somebody is kept out. */
export type KeptOut = 'connections' | 'address' | 'rate' | 'address_rate'

export interface AdmissionOptions {
  /** Sockets in all. */
  connections: number
  /** Sockets of one client address. */
  perAddress: number
  /** New sockets a second. */
  perSecond: number
  proxies: BlockList
  handshakes?: number
}

/** The door: every TCP connection knocks, and is admitted when it becomes a socket. */
export class Admission {
  private readonly options: Required<AdmissionOptions>
  private readonly addresses: Tally
  private readonly knocking: Tally
  /** With the address group that each counts for; null for proxies of ours. */
  private readonly handshakes = new Map<Socket, string | null>()
  private readonly rate: Bucket
  /** Of each address that came lately; those that have been full again since are forgotten, a generation at a time. */
  private shares = new Map<string, Bucket>()
  private olderShares = new Map<string, Bucket>()
  private sharesSince = performance.now()
  private admitted = 0

  constructor(options: AdmissionOptions) {
    this.options = { handshakes: HANDSHAKES, ...options }
    this.addresses = new Tally(options.perAddress)
    this.knocking = new Tally(Math.ceil(this.options.handshakes / 2))
    this.rate = new Bucket(options.perSecond, BURST_SECONDS * options.perSecond)
  }

  /** Sockets now. */
  get sockets(): number {
    return this.admitted
  }

  /** TCP connections that are no sockets yet. */
  get waiting(): number {
    return this.handshakes.size
  }

  /** For the kernel's sake: beyond this Node closes a connection without a look at it. */
  get mostConnections(): number {
    return this.options.connections + this.options.handshakes
  }

  addressOf(socket: Socket, forwarded: string | undefined): string {
    return clientAddress(socket.remoteAddress, forwarded, this.options.proxies)
  }

  /** A TCP connection has come. Answers false when it is to be dropped: too many say nothing, or not enough. */
  knock(socket: Socket): boolean {
    if (this.handshakes.size >= this.options.handshakes) return false
    const peer = this.addressOf(socket, undefined)
    // One address must not hold all of them; a proxy of ours may.
    const group = isIn(this.options.proxies, peer) ? null : addressGroup(peer)
    if (group !== null && !this.knocking.take(group)) return false
    this.handshakes.set(socket, group)
    socket.once('close', () => this.through(socket))
    return true
  }

  /** It waits at the door no longer. */
  private through(socket: Socket): void {
    const group = this.handshakes.get(socket)
    if (!this.handshakes.delete(socket) || group == null) return
    this.knocking.giveBack(group)
  }

  /** Makes it one of ours until it closes; or says why not. */
  admit(socket: Socket, address: string): KeptOut | null {
    if (this.admitted >= this.options.connections) return 'connections'
    const group = addressGroup(address)
    if (this.addresses.full(group)) return 'address'
    if (this.rate.empty) return 'rate'
    const share = this.shareOf(group)
    if (share.empty) return 'address_rate'
    share.take()
    this.rate.take()
    this.addresses.take(group)
    this.admitted++
    this.through(socket)
    socket.once('close', () => {
      this.admitted--
      this.addresses.giveBack(group)
    })
    return null
  }

  /** For one request over a connection that is no socket and becomes none. */
  ask(address: string): KeptOut | null {
    const share = this.shareOf(addressGroup(address))
    if (share.empty) return 'address_rate'
    share.take()
    return null
  }

  /** One address that comes and goes all the time gets half of the rate, so that others still get in. */
  private shareOf(group: string): Bucket {
    const { perSecond } = this.options
    const now = performance.now()
    if (now - this.sharesSince > 2_000 * BURST_SECONDS) {
      this.olderShares = this.shares
      this.shares = new Map()
      this.sharesSince = now
    }
    const share =
      this.shares.get(group) ??
      this.olderShares.get(group) ??
      new Bucket(perSecond / 2, BURST_SECONDS * perSecond)
    this.shares.set(group, share)
    return share
  }
}

/** File descriptors that this process may have; undefined where the system does not tell. */
const descriptors = (): number | undefined => {
  try {
    const [, soft] = /^Max open files\s+(\d+)/m.exec(readFileSync('/proc/self/limits', 'utf8')) ?? []
    return soft === undefined ? undefined : Number(soft)
  } catch {
    return undefined
  }
}

/** As many connections as asked for, or as the file descriptors allow: each takes one, before it is admitted too. */
export const withinDescriptors = (
  connections: number,
  available = descriptors(),
): { connections: number; handshakes: number; short: boolean } => {
  const free = (available ?? Number.POSITIVE_INFINITY) - OWN_DESCRIPTORS
  if (connections + HANDSHAKES <= free) return { connections, handshakes: HANDSHAKES, short: false }
  const fewer = Math.max(1, Math.min(connections, Math.floor(free * 0.8)))
  const handshakes = Math.max(1, free - fewer)
  return { connections: fewer, handshakes: Math.min(HANDSHAKES, handshakes), short: fewer < connections }
}
