// What a worker reads of its queues: the entries that come next, blocking, on a connection of its own; and those that
// were delivered to it before. In a cluster, where one read can't wait at several partitions, it is told which have some.
import { isStateError } from './errors.ts'
import type { Jobs } from './jobs.ts'
import { GROUP } from './keys.ts'
import type { Taken } from './outcomes.ts'
import { queueName } from './queues.ts'
import { NO_GROUP, RedisLink } from './redis.ts'
import { checkRights } from './rights.ts'
import { PRIORITIES } from './schema/machine.ts'
import { Subscriber } from './subscriber.ts'

/** Milliseconds a read blocks for; a read that has not come back a while later has its connection replaced. */
const BLOCK_MS = 5_000
const BLOCK_GRACE_MS = 1_500

/** A worker that was told in vain so many times in a row waits up to 2 to that power milliseconds the next time. */
const MOST_VAIN = 7

export type Entry = [id: string, entry: string]

/** `name` for normal priority, `name:high` and `name:low` for the others. */
const streamsOf = (name: string): string[] => PRIORITIES.map((priority) => queueName(name, priority))

export class QueueReader {
  /** Whether `next` only tells that there is something to take. */
  readonly told: boolean
  private readonly jobs: Jobs
  private readonly name: string
  private readonly queues: string[]
  private readonly worker: string
  /** Streams that one command can read, and of each the partition where there are several. */
  private readonly reads: string[][]
  private readonly partitions = new Map<string, number>()
  private readonly trouble: (error: unknown) => void
  // A blocking read shares its connection with nothing else.
  private readonly link: RedisLink
  private bell: Subscriber | undefined
  /** Partitions that may have jobs waiting. */
  private readonly due = new Set<number>()
  private ring: () => void = () => undefined
  /** Those it was told of since it last looked, and how many times in a row another was faster. */
  private readonly heard = new Set<number>()
  private vain = 0
  private late: NodeJS.Timeout | undefined
  private clientId: unknown
  private connection = 0

  constructor(jobs: Jobs, name: string, worker: string, trouble: (error: unknown) => void) {
    this.jobs = jobs
    this.name = name
    this.queues = streamsOf(name)
    this.worker = worker
    const streams = jobs.transitions.keys.map((keys) => this.queues.map((queue) => keys.work(queue)))
    this.told = jobs.link.publish === 'SPUBLISH'
    this.reads = this.told ? streams : [streams.flat()]
    for (const [partition, names] of streams.entries())
      for (const name of names) this.partitions.set(name, partition)
    this.trouble = trouble
    this.link = new RedisLink({ ...jobs.options, onTrouble: trouble })
  }

  /** Another text than before: replies may have been lost meanwhile. */
  get connections(): string {
    return `${this.link.connections} ${this.jobs.link.connections}`
  }

  /** Connects, asks whether the user may work here, and makes the streams and groups that are not there. */
  async open(): Promise<void> {
    if (!this.told) await this.link.connect()
    await checkRights(this.jobs.link, this.jobs.transitions.keys, 'worker', this.name)
    await this.ensureGroups().catch((error) => {
      // What is missing is made when something is queued, or read; memory that is full may be so for long.
      if (!isStateError(error, 'REDIS_OUT_OF_MEMORY')) throw error
      this.trouble(error)
    })
    if (!this.told) return
    const { options } = this.jobs
    this.bell = new Subscriber(
      { ...options, onTrouble: this.trouble },
      {
        onMessage: (stream) => this.hear(this.partitions.get(stream) ?? 0),
        onRecovered: () => this.rung(this.partitions.values()),
      },
    )
    this.rung(this.partitions.values())
    await Promise.all([...this.partitions.keys()].map((stream) => this.bell?.subscribe(stream)))
  }

  /** Whether the partition may have jobs waiting. */
  mayHave(partition: number): boolean {
    return !this.told || this.due.has(partition)
  }

  /** Takes from a partition, and remembers if nothing is left there. */
  async take(partition: number, take: () => Promise<Taken>): Promise<Taken> {
    let empty = false
    // Before the call: what comes while it is under way is told of again.
    this.due.delete(partition)
    const heard = this.heard.delete(partition)
    try {
      const taken = await take()
      empty = taken.grants.length === 0 && taken.broken.length === 0 && taken.retryInMs === 0
      if (!empty) this.vain = 0
      else if (heard) this.vain = Math.min(this.vain + 1, MOST_VAIN)
      return taken
    } finally {
      if (!empty) this.due.add(partition)
    }
  }

  /** Entries that were delivered to this worker and are neither done nor given to another. */
  async own(count: number): Promise<Entry[]> {
    const found = await Promise.all(
      this.reads.map((streams) => this.read('0', count, this.jobs.link, streams)),
    )
    return found.flatMap((entries) => entries ?? [])
  }

  /** The next entries, waiting for the first a few seconds. Empty when none came, or the read was ended. */
  async next(count: number): Promise<Entry[]> {
    if (this.told) {
      await this.untilRung()
      return []
    }
    const { connections } = this.link
    if (this.connection !== connections) {
      this.clientId = await this.link.call('CLIENT', 'ID')
      this.connection = connections
    }
    const found = await this.read('>', count, this.link, this.reads[0] as string[])
    if (!found) await this.ensureGroups()
    return found ?? []
  }

  /** Ends the blocked read, again and again until `loop` has ended: it may be sent just after a wake-up that came too early. */
  async leave(loop: Promise<void>): Promise<void> {
    let left = false
    const leaving = loop.then(() => {
      left = true
    })
    while (!left) {
      this.ring()
      if (this.clientId !== undefined)
        await this.jobs.link.call('CLIENT', 'UNBLOCK', String(this.clientId)).catch(this.trouble)
      await Promise.race([leaving, new Promise((resolve) => setTimeout(resolve, 20))])
    }
  }

  close(): Promise<void> {
    clearTimeout(this.late)
    this.bell?.close()
    return this.link.close()
  }

  /** Undefined when a group is gone. */
  private async read(
    from: '>' | '0',
    count: number,
    link: RedisLink,
    streams: string[],
  ): Promise<Entry[] | undefined> {
    const block = from === '>' ? (['BLOCK', BLOCK_MS] as const) : []
    const reply = await link.once(
      [
        ...(['XREADGROUP', 'GROUP', GROUP, this.worker, 'COUNT', count, ...block, 'STREAMS'] as const),
        ...streams,
        ...streams.map(() => from),
      ],
      from === '>' ? BLOCK_MS + BLOCK_GRACE_MS : BLOCK_GRACE_MS,
    )
    if (reply === NO_GROUP) return undefined
    const found: Entry[] = []
    // A flat list under RESP3: stream, entries, stream, entries … Each stream gives up to COUNT.
    for (const entries of (reply ?? []) as (string | [string, string[] | null][])[])
      if (Array.isArray(entries))
        for (const [entry, fields] of entries) if (fields?.[1]) found.push([fields[1], entry])
    return found
  }

  /**
   * A job came into an empty queue. The message wakes all that are idle, and one of them gets the job: where another was
   * faster the last times, a random while passes first. So few of many come for one job, and who is alone comes at once.
   */
  private hear(partition: number): void {
    this.heard.add(partition)
    this.due.add(partition)
    if (this.vain === 0) this.ring()
    else
      this.late ??= setTimeout(
        () => {
          this.late = undefined
          this.ring()
        },
        Math.random() * 2 ** this.vain,
      )
  }

  private rung(partitions: Iterable<number>): void {
    for (const partition of partitions) this.due.add(partition)
    this.ring()
  }

  /** Until a partition has something; all are looked at now and then, since publish/subscribe may lose a message. */
  private async untilRung(): Promise<void> {
    if (this.due.size > 0) return
    await new Promise<void>((resolve) => {
      const timer = setTimeout(() => this.rung(this.partitions.values()), BLOCK_MS)
      this.ring = () => {
        clearTimeout(timer)
        this.ring = () => undefined
        resolve()
      }
    })
  }

  private async ensureGroups(): Promise<void> {
    for (const keys of this.jobs.transitions.keys)
      for (const queue of this.queues) {
        await this.jobs.link.call('SADD', keys.queues, queue)
        try {
          await this.jobs.link.call('XGROUP', 'CREATE', keys.work(queue), GROUP, '0', 'MKSTREAM')
        } catch (error) {
          // It is there already.
          if (!(isStateError(error, 'REDIS_REFUSED') && error.message.includes('BUSYGROUP'))) throw error
        }
      }
  }
}
