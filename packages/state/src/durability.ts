// How far a job must have got before its enqueue counts as accepted. Its event is read back on the connection that then
// writes and waits for a replica or the disk. Such a wait speaks only of what its own connection has written (from Redis 7.2
// on not even of what it has read) and answers at once where that is nothing; a replica that has the later write has the
// event. The read shows that no failover has thrown it away.
import type { LinkOptions } from './connection.ts'
import { StateError } from './errors.ts'
import type { Keys } from './keys.ts'
import { type Command, RedisLink } from './redis.ts'

/** `memory`: the server's memory; `replica`: a replica's as well; `fsync`: the server's disk. */
export const ACKS = ['memory', 'replica', 'fsync'] as const
export type Ack = (typeof ACKS)[number]
type Level = Exclude<Ack, 'memory'>

/** Milliseconds that a replica or the disk gets. */
const CONFIRM_MS = 1_000
const MARK_MS = 60_000

interface Waiting {
  level: Level
  id: string
  cursor: string
  keys: Keys
  resolve: () => void
  reject: (error: unknown) => void
}

/** One connection that waits: nothing else can use it meanwhile, so what comes then shares the next wait. */
interface Lane {
  link: RedisLink
  waiting: Waiting[]
  busy: boolean
  hasDisk: boolean
}

export class Confirmer {
  private readonly options: LinkOptions
  private readonly shared: boolean
  /** What is waited for, what it must answer at least, and what is said when it does not. */
  private readonly waits: Record<Level, { command: Command; wanted: number; missing: string }>
  private readonly lanes = new Map<string, Lane>()

  /**
   * @param shared whether all partitions are on one server
   * @param replicas how many of them must confirm
   */
  constructor(options: LinkOptions, shared: boolean, replicas: number) {
    if (!Number.isSafeInteger(replicas) || replicas < 1)
      throw new StateError('INVALID_OPTIONS', 'ackReplicas must be a whole number from 1 on.')
    this.options = options
    this.shared = shared
    this.waits = {
      replica: {
        command: ['WAIT', replicas, CONFIRM_MS],
        wanted: replicas,
        missing: `${replicas} replica(s) have not confirmed it`,
      },
      fsync: { command: ['WAITAOF', 1, 0, CONFIRM_MS], wanted: 1, missing: 'it is not known to be on disk' },
    }
  }

  /** Throws ACK_UNSUPPORTED where the server can't tell of the level. */
  async supported(keys: Keys, level: Level): Promise<void> {
    const lane = this.lane(keys)
    if (level !== 'fsync' || lane.hasDisk) return
    try {
      await lane.link.callAt(keys.prefix, 'WAITAOF', 1, 0, 1)
      lane.hasDisk = true
    } catch (error) {
      if (!/unknown command|appendonly/i.test((error as Error).message)) throw error
      throw new StateError(
        'ACK_UNSUPPORTED',
        "ack 'fsync' needs Redis 7.2 or Valkey, with appendonly yes; nothing was enqueued.",
      )
    }
  }

  /** Throws NOT_REPLICATED when the level was not reached in time. */
  confirm(level: Level, keys: Keys, id: string, cursor: string): Promise<void> {
    const lane = this.lane(keys)
    return new Promise((resolve, reject) => {
      lane.waiting.push({ level, id, cursor, keys, resolve, reject })
      if (!lane.busy) void this.serve(lane)
    })
  }

  async close(): Promise<void> {
    await Promise.all([...this.lanes.values()].map(({ link }) => link.close()))
  }

  private async serve(lane: Lane): Promise<void> {
    lane.busy = true
    // Those of the same tick go together.
    await new Promise((resolve) => setImmediate(resolve))
    while (lane.waiting.length > 0) {
      const round = lane.waiting
      lane.waiting = []
      try {
        await this.ask(lane.link, round)
      } catch (error) {
        for (const { reject } of round) reject(error)
      }
    }
    lane.busy = false
  }

  private async ask(link: RedisLink, round: Waiting[]): Promise<void> {
    const levels = (['replica', 'fsync'] as const).filter((level) =>
      round.some((each) => each.level === level),
    )
    const replies = await link.batch([
      ...round.map(({ keys, id, cursor }) => ['XRANGE', keys.events(id), cursor, cursor] as const),
      ['SET', (round[0] as Waiting).keys.confirmed, '1', 'PX', MARK_MS],
      ...levels.map((level) => this.waits[level].command),
    ])
    const reached = (level: Level) =>
      Number([replies[round.length + 1 + levels.indexOf(level)]].flat()[0]) >= this.waits[level].wanted
    for (const [i, { level, id, resolve, reject }] of round.entries())
      if (reached(level) && (replies[i] as unknown[]).length > 0) resolve()
      else
        reject(
          new StateError(
            'NOT_REPLICATED',
            `The job ${id} is in the memory of Redis, but ${this.waits[level].missing} within ${CONFIRM_MS} ms: a failover may lose ` +
              'it. Enqueue it again with this id (or the same key) to ask once more; it stays one job.',
          ),
        )
  }

  private lane(keys: Keys): Lane {
    const name = this.shared ? '' : keys.prefix
    let lane = this.lanes.get(name)
    if (!lane) {
      lane = { link: new RedisLink(this.options), waiting: [], busy: false, hasDisk: false }
      this.lanes.set(name, lane)
    }
    return lane
  }
}
