// What grows from window to window though nothing is under way: judged on looks alone, so that each rule can be shown to
// find what it is for.

export interface ProcessLook {
  mb: number
  /** Files and sockets. */
  handles: number
}

/** What there was at the end of a window. */
export interface Look {
  /** By incarnation: one that was started again is another. */
  processes: ReadonlyMap<string, ProcessLook>
  redis: {
    bytes: number
    connections: number
    /** Names of workers in a queue's group, in the partition that has the most. */
    consumers: number
  }
}

/** Windows that a process, or Redis, must have lived through to be judged. */
export const ENOUGH = 9
const GROWTH = 1.2
const GROWTH_MB = 30
const GROWTH_HANDLES = 6
/** Of each server. */
const GROWTH_CONNECTIONS = 10
const GROWTH_BYTES = 2_000_000
/** Each start of a worker is a new name, and those that are gone are forgotten in a minute or two. */
const NAMES = 100

/**
 * What has grown, in words; nothing when all is well.
 *
 * @param servers of Redis that are looked at
 */
export const growthOf = (looks: readonly Look[], servers = 1): string[] => {
  const wrong: string[] = []
  for (const who of new Set(looks.flatMap(({ processes }) => [...processes.keys()]))) {
    const all = looks.flatMap(({ processes }) => processes.get(who) ?? [])
    if (all.length < ENOUGH) continue
    const [mb, mbLater] = thirds(all.map((look) => look.mb))
    if (mbLater > mb * GROWTH && mbLater > mb + GROWTH_MB)
      wrong.push(`${who} grew from ${mb.toFixed()} to ${mbLater.toFixed()} MB in ${all.length} windows`)
    const [held, heldLater] = thirds(all.map((look) => look.handles))
    if (heldLater > held + GROWTH_HANDLES)
      wrong.push(`${who} held ${held} files and sockets, then ${heldLater}`)
  }

  const redis = looks.map((look) => look.redis)
  const names = Math.max(0, ...redis.map(({ consumers }) => consumers))
  if (names > NAMES) wrong.push(`the group of a queue has ${names} consumers`)
  if (redis.length < ENOUGH) return wrong
  const [open, openLater] = thirds(redis.map(({ connections }) => connections))
  if (openLater > open + GROWTH_CONNECTIONS * servers)
    wrong.push(`Redis had ${open} connections when all was quiet, then ${openLater}`)
  const [bytes, bytesLater] = thirds(redis.map((look) => look.bytes))
  if (bytesLater > bytes * GROWTH + GROWTH_BYTES * servers)
    wrong.push(`Redis used ${bytes} bytes without jobs, then ${bytesLater}`)
  return wrong
}

/** The middle of the second third and of the last one: the first is warming up, and one look alone says nothing. */
const thirds = (of: number[]): [before: number, after: number] => {
  const third = Math.floor(of.length / 3)
  return [median(of.slice(third, 2 * third)), median(of.slice(-third))]
}

const median = (of: number[]): number => of.toSorted((a, b) => a - b)[Math.floor(of.length / 2)] ?? 0
