// Which node of a Redis Cluster a key's commands go to: the map of slots, asked for anew at every sign of change, and one
// connection for each node in use. Nothing is redirected behind a caller's back: an error leads to another try.
import { type Address, parseAddress } from './address.ts'
import {
  Connection,
  closedError,
  isServerAnswer,
  type LinkOptions,
  type Servers,
  typed,
} from './connection.ts'
import type { StateError } from './errors.ts'
import { SLOTS, slotOf } from './slots.ts'

/** Milliseconds that a node gets to connect, and to tell the map, before another is asked. */
const NODE_MS = 500
/** Milliseconds between maps, so that an outage does not make a storm of them. */
const MAP_PAUSE_MS = 50

/** Answers after which the map may be another. */
const CHANGED = ['MOVED', 'CLUSTERDOWN', 'READONLY', 'LOADING', 'MASTERDOWN', 'UNBLOCKED']

type Node = [host: string | null, port: number, ...more: unknown[]]
type Range = [from: number, to: number, master: Node, ...replicas: Node[]]

const pause = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms))

export class ClusterServers implements Servers {
  private readonly options: LinkOptions
  private readonly address: Address
  /** Slot to node, as `host:port`. */
  private owners: (string | undefined)[] = []
  private masters = new Set<string>()
  /** Every node that may tell the map. */
  private nodes: string[]
  private readonly pool = new Map<string, Connection>()
  private looking: Promise<void> | undefined
  private turn = 0
  private made = 0
  private closed = false
  private lastTrouble: StateError | undefined

  constructor(options: LinkOptions) {
    this.address = parseAddress(options.url)
    this.options = {
      ...options,
      onTrouble: (error) => {
        this.lastTrouble = error
        options.onTrouble?.(error)
      },
    }
    this.nodes = this.address.nodes.map(({ host, port }) => `${host}:${port}`)
  }

  /** Whether any node is connected: the others' keys may be out of reach for a while. */
  get ready() {
    return [...this.pool.values()].some(({ ready }) => ready)
  }
  get connections() {
    return this.made
  }

  /** The node that owns the key's slot, as the last map says. */
  owner(key: string): string | undefined {
    return this.owners[slotOf(key)]
  }

  async reach(key: string | undefined, deadline: number): Promise<Connection> {
    for (;;) {
      if (this.closed) throw closedError()
      const owner = key === undefined ? this.anyMaster() : this.owner(key)
      const leftMs = deadline - performance.now()
      if (owner !== undefined) {
        const connection = this.open(owner)
        if (await connection.attempt(Math.min(leftMs, NODE_MS))) return connection
      }
      if (performance.now() >= deadline) throw this.unreachable(owner)
      await Promise.race([this.look(), pause(deadline - performance.now())])
    }
  }

  failed(connection: Connection, error: unknown): void {
    if (this.closed) return
    if (isServerAnswer(error)) {
      if (!CHANGED.some((prefix) => error.message.startsWith(prefix))) return
      const [, slot, host, port] = /^MOVED (\d+) (\S*):(\d+)/.exec(error.message) ?? []
      if (slot) this.owners[Number(slot)] = `${host || hostOf(connection.address)}:${port}`
    }
    void this.look()
  }

  /** Asks nodes for the map until one tells it, each node once. One such round is under way at a time. */
  look(): Promise<void> {
    this.looking ??= this.ask().then(() => {
      this.looking = undefined
    })
    return this.looking
  }

  close(): void {
    this.closed = true
    for (const connection of this.pool.values()) connection.close()
    this.pool.clear()
  }

  private async ask(): Promise<void> {
    // Another node each time, those that are connected first: one that was cut off tells an old map.
    const turn = this.turn++
    const rotated = this.nodes.map((_, i) => this.nodes[(i + turn) % this.nodes.length] as string)
    const connected = rotated.filter((node) => this.pool.get(node)?.ready)
    for (const node of [...connected, ...rotated.filter((node) => !connected.includes(node))]) {
      if (this.closed) return
      const connection = this.open(node)
      if (!(await connection.attempt(NODE_MS))) continue
      try {
        const ranges = await connection.timed(connection.client.call('CLUSTER', 'SLOTS'), NODE_MS)
        if (this.learn(ranges as Range[], hostOf(node))) break
      } catch (error) {
        this.lastTrouble = typed(error, node)
      }
    }
    await pause(MAP_PAUSE_MS)
  }

  private learn(ranges: Range[], asked: string): boolean {
    if (ranges.length === 0) return false
    const owners: (string | undefined)[] = new Array(SLOTS)
    const masters = new Set<string>()
    const nodes = new Set<string>()
    for (const [from, to, ...holders] of ranges)
      for (const [i, [host, port]] of holders.entries()) {
        // A node that has no name of its own is where it was asked.
        const node = `${host && host !== '?' ? host : asked}:${port}`
        nodes.add(node)
        if (i > 0) continue
        masters.add(node)
        owners.fill(node, from, to + 1)
      }
    this.owners = owners
    this.masters = masters
    this.nodes = [...nodes]
    // A node that is gone is not tried for ever. One that only lost its slots has calls under way.
    for (const [node, connection] of this.pool)
      if (!masters.has(node) && !connection.ready) {
        connection.close()
        this.pool.delete(node)
      }
    return true
  }

  private open(node: string): Connection {
    let connection = this.pool.get(node)
    if (!connection) {
      const split = node.lastIndexOf(':')
      connection = new Connection(this.options, this.address, {
        host: node.slice(0, split),
        port: Number(node.slice(split + 1)),
      })
      connection.client.on('ready', () => this.made++)
      this.pool.set(node, connection)
    }
    return connection
  }

  private anyMaster(): string | undefined {
    for (const master of this.masters) if (this.pool.get(master)?.ready) return master
    const masters = [...this.masters]
    return masters[this.turn % Math.max(1, masters.length)]
  }

  private unreachable(owner: string | undefined): StateError {
    const connection = owner === undefined ? undefined : this.pool.get(owner)
    if (connection) return connection.unreachable
    return this.lastTrouble ?? typed(new Error('no node told the map of slots'), this.address.shown)
  }
}

const hostOf = (node: string) => node.slice(0, node.lastIndexOf(':'))
