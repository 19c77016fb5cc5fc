// What waits and runs, by job name and priority: from the work streams and their consumer groups.
import { GROUP, type Keys } from './keys.ts'
import { fieldsOf } from './record.ts'
import { type RedisLink, redisTime } from './redis.ts'
import type { Priority } from './schema/machine.ts'

export interface QueueStats {
  name: string
  priority: Priority
  queued: number
  /** Given to workers: running, or about to be. */
  processing: number
  /** Milliseconds that the oldest queued job has been waiting; null when none waits. */
  oldestMs: number | null
  paused: boolean
}

/** `name` for normal priority, `name:high` and `name:low` for the others. */
export const queueName = (name: string, priority: Priority): string =>
  priority === 'normal' ? name : `${name}:${priority}`

export const queueNamed = (queue: string): { name: string; priority: Priority } => {
  const [name = '', priority = 'normal'] = queue.split(':')
  return { name, priority: priority as Priority }
}

export interface QueueState {
  queue: string
  length: number
  pending: number
  /** The last entry that a worker was given. */
  delivered: string
}

/** The queues of a partition that have ever been used. */
export const queuesOf = async (link: RedisLink, keys: Keys): Promise<QueueState[]> => {
  const queues = ((await link.call('SMEMBERS', keys.queues)) as string[]).sort()
  const lengths = await link.batch(queues.map((queue) => ['XLEN', keys.work(queue)] as const))
  const states: QueueState[] = []
  for (const [i, queue] of queues.entries()) {
    // Without a stream there is no group to ask for.
    const exists = Number(await link.call('EXISTS', keys.work(queue))) === 1
    const groups = exists
      ? ((await link.call('XINFO', 'GROUPS', keys.work(queue))) as unknown[]).map(fieldsOf)
      : []
    const group = groups.find(({ name }) => name === GROUP)
    states.push({
      queue,
      length: Number(lengths[i]),
      pending: Number(group?.pending ?? 0),
      delivered: group?.['last-delivered-id'] ?? '0-0',
    })
  }
  return states
}

export const queueStats = async (link: RedisLink, partitions: readonly Keys[]): Promise<QueueStats[]> => {
  const stats = new Map<string, QueueStats>()
  for (const keys of partitions) {
    const now = await redisTime(link, keys.prefix)
    const paused = new Set((await link.call('SMEMBERS', keys.paused)) as string[])
    for (const { queue, length, pending, delivered } of await queuesOf(link, keys)) {
      const { name, priority } = queueNamed(queue)
      const waiting = (await link.call('XRANGE', keys.work(queue), `(${delivered}`, '+', 'COUNT', 1)) as [
        string,
        unknown,
      ][]
      const since = waiting[0]?.[0]
      const oldestMs = since ? Math.max(0, now - Number(since.split('-')[0])) : null
      const before = stats.get(queue)
      stats.set(queue, {
        name,
        priority,
        queued: (before?.queued ?? 0) + Math.max(0, length - pending),
        processing: (before?.processing ?? 0) + pending,
        oldestMs: oldestMs === null ? (before?.oldestMs ?? null) : Math.max(before?.oldestMs ?? 0, oldestMs),
        paused: paused.has(name) || paused.has('*'),
      })
    }
  }
  return [...stats.values()]
}
