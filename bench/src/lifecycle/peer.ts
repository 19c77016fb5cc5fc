// What a job library has to offer to be measured, and the load that all of them carry.

/** Text of 200 bytes as JSON. */
export const PAYLOAD = { text: 'x'.repeat(189) }

/** How a handler reports its two updates: each awaited, or as the library does by default when nobody waits. */
export type Progress = 'awaited' | 'coalesced'

export interface Peer {
  add(payload: object): Promise<unknown>
  addMany(payloads: object[]): Promise<unknown>
  /** To be queued at a time far away. */
  addLater(payloads: object[]): Promise<unknown>
  /** Starts a worker whose handler reports twice and returns; `started` and `ended` are called for every job. */
  work(options: {
    concurrency: number
    progress: Progress | 'none'
    started?: () => void
    ended: () => void
  }): Promise<unknown>
  /** Connects a worker process' worth of an idle worker. */
  idle(): Promise<unknown>
  close(): Promise<void>
}

export const PEERS = ['ours', 'bullmq'] as const
export type PeerName = (typeof PEERS)[number]
