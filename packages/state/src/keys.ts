// Every key name of the system. All keys of a partition share one hash tag, since one transition touches several.

import { StateError } from './errors.ts'
import { Namespace } from './schema/limits.ts'

/** Consumer group of every work stream. */
export const GROUP = 'workers'

/** The consumer that reapers take entries as: no worker's name. */
export const REAPER = 'reaper'

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
    /** A channel on which a listener hears itself: whether what is published still arrives. */
    probe: (listener: string) => `${prefix}probe:${listener}`,
    /** STREAM: what every job's stream starts as. */
    stream: `${prefix}stream`,
    /** STRING PX: fence and worker of the live attempt. */
    heartbeat: (id: string) => `${prefix}heartbeat:${id}`,
    /** STREAM + group: ids that wait or are being processed, of one queue: a job name, or `name:priority`. */
    work: (queue: string) => `${prefix}work:${queue}`,
    /** SET: the queues that have a work stream. */
    queues: `${prefix}queues`,
    /** ZSET: delayed jobs by due time. */
    scheduled: `${prefix}scheduled`,
    /** ZSET: jobs whose time in the queue or in their attempt is limited, by the end of that time. */
    deadlines: `${prefix}deadlines`,
    /** ZSET: `STATE:retentionMs` of the lists below, by the time the youngest of their jobs expires. */
    ended: `${prefix}ended`,
    /** STREAM: ids of ended jobs of one state and retention, in the order they ended and will expire. */
    endedAs: (stateAndRetention: string) => `${prefix}ended:${stateAndRetention}`,
    /** ZSET: ids of jobs that carry the tag, or have the owner (`@owner`), by creation. */
    tag: (tag: string) => `${prefix}tag:${tag}`,
    /** ZSET: the same for ended jobs, by the time they expire. */
    tagEnded: (tag: string) => `${prefix}tag:${tag}:ended`,
    /** ZSET: the states of all of them, for counting; also the channel that changes are published on. */
    tagStates: (tag: string) => `${prefix}tag:${tag}:states`,
    /** STRING PX: the job of an idempotency key, by the key's digest. */
    key: (digest: string) => `${prefix}key:${digest}`,
    /** LIST PX: times of the last starts of a job name. */
    rate: (name: string) => `${prefix}rate:${name}`,
    /** SET: names of jobs whose claims are stopped; `*` stands for all. */
    paused: `${prefix}paused`,
    /** STRING PX: written before each wait for replicas or the disk, to have something to wait for. */
    confirmed: `${prefix}confirmed`,
    /** STRING PX: a worker process, as JSON. Partition 0 only. */
    worker: (id: string) => `${prefix}worker:${id}`,
    /** ZSET: ids of worker processes, by the time they are taken for gone. Partition 0 only. */
    workers: `${prefix}workers`,
    /** HASH: when the last sweep ran, and until when its amnesty lasts. */
    sweep: `${prefix}sweep`,
    /** ZSET: what was revoked, by the moment; also the channel it is told on. Partition 0 only. */
    revoked: `${prefix}revoked`,
    /** HASH, partition 0 only: the number of partitions, fixed for the namespace. */
    layout: `${prefix}layout`,
  }
}
