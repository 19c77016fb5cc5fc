// The one kind of job there is under torture: what its attempts do, and what they leave in it, by which an effect of
// another attempt can be told.
import { defineJob } from '@jobs/state'

/**
 * What an attempt does after its steps. `sleep`: waits until it is told to end; `poison`: kills its process; `block`: keeps
 * the event loop busy for more than a lease; `hang`: the first attempt never ends.
 */
export const DEEDS = ['complete', 'throw', 'final', 'checkpoint', 'sleep', 'poison', 'block', 'hang'] as const
export type Deed = (typeof DEEDS)[number]

export interface Payload {
  deed: Deed
  steps: number
  stepMs: number
  /** Goes on when its signal fires, as a careless handler does. */
  deaf: boolean
  /** Writes a line at each step, too. */
  logs: boolean
}

/** Who did it: in each progress, each line and the result. */
export interface Mark {
  attempt: number
  worker: string
  n: number
}

export const tortureJob = defineJob<Payload>({ name: 'torture' })

/** Milliseconds without a heartbeat after which a worker's job is taken from it. */
export const LEASE_MS = 2_000
/** A handler's loop is blocked for longer than that, and it keeps its jobs. */
export const BLOCK_MS = LEASE_MS + 500
/** Milliseconds without a report after which an attempt of a job that hangs is over. */
export const STALL_MS = 700
/** Of the process that holds the sleepers: no fault is longer. */
export const KEEPER_LEASE_MS = 10_000
/** Milliseconds between sweeps. */
export const INTERVAL_MS = 300
/** Milliseconds in which a dead worker is found: a lease, idle time of two intervals, a sweep. */
export const RECOVERY_MS = LEASE_MS + 4 * INTERVAL_MS
/** Kept until the end of the window, when they are removed by hand. */
export const RETENTION_MS = 600_000
