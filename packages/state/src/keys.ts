// Every key name of the system. All keys of a partition share one hash tag, since one transition touches several.

import { StateError } from './errors.ts'
import { Namespace } from './schema/limits.ts'
import type { State } from './schema/machine.ts'

/** Consumer group of every work stream. */
export const GROUP = 'workers'

/** The partition of a job, from its id alone (FNV-1a, 32 bits). */
export const partitionOf = (id: string, partitions: number): number => {
  if (partitions === 1) return 0
  let hash = 0x811c9dc5
  for (let i = 0; i < id.length; i++) hash = Math.imul(hash ^ id.charCodeAt(i), 0x01000193)
  return (hash >>> 0) % partitions
}

export type Keys = ReturnType<typeof keysOf>

export const keysOf = (namespace: string, partition: number) => {
  if (!Namespace.safeParse(namespace).success)
    throw new StateError(
      'INVALID_NAMESPACE',
      `The namespace ${JSON.stringify(namespace)} is not 1 to 64 of A-Z a-z 0-9 . _ ~ -`,
    )
  const prefix = `{${namespace}:${partition}}:`
  return {
    /** What the Lua scripts derive their keys from. */
    prefix,
    /** HASH: the job. */
    job: (id: string) => `${prefix}job:${id}`,
    /** STREAM: the job's events; also the channel they are published on. */
    events: (id: string) => `${prefix}jobs:${id}`,
    /** STRING PX: fence and worker of the live attempt. */
    heartbeat: (id: string) => `${prefix}heartbeat:${id}`,
    /** STREAM + group: ids of one job name that wait or are being processed. */
    work: (name: string) => `${prefix}work:${name}`,
    /** SET: the job names that have a work stream. */
    names: `${prefix}names`,
    /** ZSET: delayed jobs by due time. */
    scheduled: `${prefix}scheduled`,
    /** ZSET: ended jobs of one state, by the time their retention ends. */
    state: (state: State) => `${prefix}state:${state}`,
    /** HASH: when the last sweep ran, and until when its amnesty lasts. */
    sweep: `${prefix}sweep`,
    /** HASH, partition 0 only: the number of partitions, fixed for the namespace. */
    layout: `${prefix}layout`,
  }
}
