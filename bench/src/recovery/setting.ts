// What is compared: each library as it comes, and set to notice a dead worker as soon as it can.

export type PeerName = 'ours' | 'bullmq'
export const PEERS = ['ours', 'bullmq'] as const

export type Setting = 'default' | 'tight'

/** Milliseconds. Ours: see "How soon" in docs/operations.md; BullMQ: the shortest that a busy event loop survives. */
export const OURS: Record<Setting, { leaseMs: number; intervalMs: number }> = {
  default: { leaseMs: 5_000, intervalMs: 1_000 },
  tight: { leaseMs: 600, intervalMs: 100 },
}
export const BULLMQ: Record<Setting, { lockDuration: number; stalledInterval: number }> = {
  default: { lockDuration: 30_000, stalledInterval: 30_000 },
  tight: { lockDuration: 1_000, stalledInterval: 500 },
}

export interface HolderArgs {
  peer: PeerName
  url: string
  setting: Setting
  concurrency: number
  /** Looks whether it was frozen; thousands of timers would cost more than what is measured. */
  watchful: boolean
}

/** What a holder tells of a job. */
export interface Told {
  /**
   * `start`: its handler began. After the process was frozen: `ran` its handler went on to its end, `stopped` it was told
   * not to.
   */
  kind: 'ready' | 'start' | 'ran' | 'stopped'
  id: string
}
