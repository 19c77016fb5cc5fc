// What the namespace says of itself: the number of its partitions and the layout it is written in.
import { StateError } from './errors.ts'
import { keysOf } from './keys.ts'
import type { RedisLink } from './redis.ts'

/** The layout of keys and fields that this release reads and writes; the namespace says which it has. */
const SCHEMA = 1

/** The number of partitions is part of where a job's keys are: a process that counts otherwise would not find them. */
export const checkLayout = async (
  link: RedisLink,
  namespace: string,
  partitions: number,
  create: boolean,
) => {
  const { layout } = keysOf(namespace, 0)
  const read = async () => (await link.call('HMGET', layout, 'partitions', 'schema')) as (string | null)[]
  let [stored = null, schema = null] = await read()
  if (create && (stored === null || schema === null)) {
    await link.call('HSETNX', layout, 'partitions', partitions)
    await link.call('HSETNX', layout, 'schema', SCHEMA)
    // Another may have been faster.
    ;[stored = null, schema = null] = await read()
  }
  if (schema !== null && Number(schema) !== SCHEMA)
    throw new StateError(
      'LAYOUT_MISMATCH',
      `The namespace ${namespace} is written in layout ${schema}, this release reads layout ${SCHEMA}: use the release ` +
        'that wrote it, or another namespace.',
    )
  if (stored !== null && Number(stored) !== partitions)
    throw new StateError(
      'LAYOUT_MISMATCH',
      `The namespace ${namespace} has ${stored} partition(s) in Redis, this process is configured for ${partitions}: ` +
        `set JOBS_PARTITIONS=${stored}, or use another namespace.`,
    )
}
