// Whether a user may do all that the scripts of its part do: Redis finds out about a right that is missing in the middle
// of a script, and does not take back what was written before. Asked before the first script; needs no right of its own.
import { StateError } from './errors.ts'
import { GROUP, type Keys } from './keys.ts'
import type { Command, RedisLink } from './redis.ts'
import { SCRIPTS } from './scripts.generated.ts'

/** Stands for any id, tag or digest. Nothing is read or written under it. */
const ANY = 'any'

/** `repair`: looking through everything and mending it, by a reaper or an operator. */
type Part = 'producer' | 'worker' | 'reaper' | 'repair'
type Rights = (keys: Keys, queue: string, publish: RedisLink['publish']) => Command[]

/** Puts an id into a queue. */
const queueing: Rights = (keys, queue, publish) => [
  ['HSET', keys.job(ANY), 'f', 'v'],
  ['HMGET', keys.job(ANY), 'f'],
  ['XADD', keys.events(ANY), '*', 'e', '1'],
  ['XADD', keys.work(queue), '*', 'id', ANY],
  ['XGROUP', 'CREATE', keys.work(queue), GROUP, '0'],
  ['SADD', keys.queues, queue],
  ['ZADD', keys.scheduled, 1, ANY],
  ['ZADD', keys.deadlines, 1, ANY],
  ['ZADD', keys.tag(ANY), 1, ANY],
  ['ZADD', keys.tagStates(ANY), 1, ANY],
  ['ZINCRBY', keys.tagStates(ANY), 1, '*'],
  [publish, keys.tagStates(ANY), ''],
  ...(publish === 'SPUBLISH'
    ? ([
        ['SPUBLISH', keys.work(queue), ''],
        ['XLEN', keys.work(queue)],
          ] as const)
    : []),
]

/** Takes a job out of its queue: to its end, or to another attempt. */
const ending: Rights = (keys, queue, publish) => [
  ...queueing(keys, queue, publish),
  [publish, keys.events(ANY), ''],
  ['HDEL', keys.job(ANY), 'f'],
  ['PEXPIRE', keys.job(ANY), 1],
  ['PEXPIRE', keys.events(ANY), 1],
  ['XDEL', keys.events(ANY), '1-1'],
  ['SET', keys.heartbeat(ANY), ''],
  ['DEL', keys.heartbeat(ANY)],
  ['XACK', keys.work(queue), GROUP, '1-1'],
  ['XDEL', keys.work(queue), '1-1'],
  ['XTRIM', keys.work(queue), 'MINID', '1-1'],
  ['XPENDING', keys.work(queue), GROUP, '-', '+', 1],
  ['XINFO', 'GROUPS', keys.work(queue)],
  ['ZREM', keys.scheduled, ANY],
  ['ZREM', keys.deadlines, ANY],
  ['ZSCORE', keys.deadlines, ANY],
  ['XADD', keys.endedAs(ANY), '*', 'id', ANY],
  ['PEXPIRE', keys.endedAs(ANY), 1],
  ['PTTL', keys.endedAs(ANY)],
  ['ZADD', keys.ended, 1, ANY],
  ['ZREMRANGEBYSCORE', keys.ended, 0, 1],
  ['ZREM', keys.tag(ANY), ANY],
  ['ZADD', keys.tagEnded(ANY), 1, ANY],
  ['EXISTS', keys.tag(ANY)],
  ['ZREMRANGEBYSCORE', keys.tagStates(ANY), 0, 1],
  ['PEXPIRE', keys.tagStates(ANY), 1],
]

const PARTS: Record<Part, Rights> = {
  producer: (keys, queue, publish) => [
    ...queueing(keys, queue, publish),
    ['EXISTS', keys.job(ANY)],
    ['PERSIST', keys.tagStates(ANY)],
    ['ZCOUNT', keys.tagStates(ANY), 0, 1],
    ['ZSCORE', keys.tagStates(ANY), '*'],
    ['GET', keys.key(ANY)],
    ['SET', keys.key(ANY), ''],
    ['XADD', keys.stream, '*', 'e', '1'],
    ['COPY', keys.stream, keys.events(ANY)],
    ['XRANGE', keys.events(ANY), '-', '+'],
  ],
  worker: (keys, queue, publish) => [
    ...ending(keys, queue, publish),
    ['HGET', keys.job(ANY), 'f'],
    ['XRANGE', keys.events(ANY), '-', '+'],
    ['GETEX', keys.heartbeat(ANY), 'PX', 1],
    ['PEXPIRE', keys.heartbeat(ANY), 1],
    ['XINFO', 'CONSUMERS', keys.work(queue), GROUP],
    ['XREADGROUP', 'GROUP', GROUP, ANY, 'STREAMS', keys.work(queue), '>'],
    ['XREADGROUP', 'GROUP', GROUP, ANY, 'STREAMS', keys.work(`${queue}:high`), '>'],
    ['XREADGROUP', 'GROUP', GROUP, ANY, 'STREAMS', keys.work(`${queue}:low`), '>'],
    ['XLEN', keys.work(queue)],
    ['XCLAIM', keys.work(queue), GROUP, ANY, 0, '1-1'],
    ['SMISMEMBER', keys.paused, queue],
    ['LLEN', keys.rate(queue)],
    ['LINDEX', keys.rate(queue), 0],
    ['RPUSH', keys.rate(queue), 1],
    ['LTRIM', keys.rate(queue), 0, 1],
  ],
  reaper: (keys, queue, publish) => [
    ...ending(keys, queue, publish),
    ['EXISTS', keys.heartbeat(ANY)],
    ['XRANGE', keys.work(queue), '1-1', '1-1'],
    ['XINFO', 'CONSUMERS', keys.work(queue), GROUP],
    ['XGROUP', 'DELCONSUMER', keys.work(queue), GROUP, ANY],
    ['HSET', keys.sweep, 'at', 1],
    ['ZRANGE', keys.scheduled, 0, 0],
    ['ZRANGEBYSCORE', keys.scheduled, 0, 1],
    ['ZRANGEBYSCORE', keys.deadlines, 0, 1],
    // What its metrics count.
    ['ZCARD', keys.scheduled],
    ['XLEN', keys.work(queue)],
    ['XRANGE', keys.endedAs(ANY), '-', '+'],
    ['SMEMBERS', keys.paused],
  ],
  repair: (keys, queue, publish) => [
    ...ending(keys, queue, publish),
    ['SCAN', 0],
    ...[keys.scheduled, keys.deadlines, keys.tag(ANY), keys.tagEnded(ANY), keys.tagStates(ANY)].flatMap(
      (key) =>
        [
          ['ZSCAN', key, 0],
          ['ZSCORE', key, ANY],
          ['PERSIST', key],
          ['PTTL', key],
          ['ZREM', key, ANY],
        ] as const,
    ),
    ['HSET', keys.job(ANY), 'f', 'v'],
    ['PERSIST', keys.job(ANY)],
    ['PERSIST', keys.events(ANY)],
    ['EXISTS', keys.events(ANY)],
    ['XRANGE', keys.events(ANY), '-', '+'],
    ['XREVRANGE', keys.events(ANY), '+', '-'],
    ['GET', keys.heartbeat(ANY)],
    ['PEXPIRE', keys.heartbeat(ANY), 1],
    ['XRANGE', keys.work(queue), '-', '+'],
    ['XCLAIM', keys.work(queue), GROUP, ANY, 0, '1-1'],
    ['PERSIST', keys.work(queue)],
    ['SMISMEMBER', keys.queues, queue],
    ['XRANGE', keys.endedAs(ANY), '-', '+'],
    ['XDEL', keys.endedAs(ANY), '1-1'],
    ['ZSCORE', keys.ended, ANY],
    ['HGET', keys.sweep, 'at'],
    ...[
      keys.key(ANY),
      keys.rate(ANY),
      keys.worker(ANY),
      keys.workers,
      keys.revoked,
      keys.confirmed,
      keys.ended,
    ].flatMap(
      (key) =>
        [
          ['PTTL', key],
          ['PEXPIRE', key, 1],
        ] as const,
    ),
    ...[keys.queues, keys.paused, keys.stream, keys.sweep].flatMap(
      (key) =>
        [
          ['PTTL', key],
          ['PERSIST', key],
        ] as const,
    ),
  ],
}

/** What it does in the first partition alone. */
const FIRST: Partial<Record<Part, (first: Keys) => Command[]>> = {
  worker: ({ worker, workers }) => [
    ['SET', worker(ANY), '', 'PX', 1],
    ['DEL', worker(ANY)],
    ['ZADD', workers, 1, ANY],
    ['ZREM', workers, ANY],
    ['ZREMRANGEBYSCORE', workers, 0, 1],
    ['PTTL', workers],
    ['PEXPIRE', workers, 1],
  ],
}

/**
 * Throws RIGHTS_MISSING, and has changed nothing, when the user of the link lacks what its part needs.
 *
 * @param queue a job name that it works with
 */
export const checkRights = async (
  link: RedisLink,
  partitions: readonly Keys[],
  part: Part,
  queue: string = ANY,
): Promise<void> => {
  await Promise.all(
    partitions.map(async (keys, i) => {
      const commands = PARTS[part](keys, queue, link.publish)
      if (i === 0) commands.push(...(FIRST[part]?.(keys) ?? []))
      const argv = commands.flatMap((command) => [command.length, ...command].map(String))
      const refused = (await link.script(SCRIPTS.rights, keys.prefix, argv)) as string[]
      if (refused.length > 0)
        throw new StateError(
          'RIGHTS_MISSING',
          `This user of Redis may not do all that a ${part} does: ${refused.slice(0, 5).join(', ')}` +
            `${refused.length > 5 ? ` and ${refused.length - 5} more` : ''}. Give it every line for a ${part} in docs/redis-schema.md.`,
        )
    }),
  )
}
