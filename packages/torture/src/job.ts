// The one kind of job there is under torture: what its attempts do, and what they leave in it, by which an effect of
// another attempt can be told.
import { defineJob } from '@jobs/state'

/** What an attempt does after its steps. `sleep`: waits until it is told to end; `poison`: kills its process. */
export const DEEDS = ['complete', 'throw', 'final', 'checkpoint', 'sleep', 'poison'] as const
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
/** Of the process that holds the sleepers: no fault is longer. */
export const KEEPER_LEASE_MS = 10_000
/** Milliseconds between sweeps. */
export const INTERVAL_MS = 300
/** Kept until the end of the window, when they are removed by hand. */
export const RETENTION_MS = 600_000
