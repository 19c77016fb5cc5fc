// What a process says once, when it connects.
import type { LinkOptions } from './connection.ts'
import type { Ack } from './durability.ts'
import type { Finding } from './server-check.ts'
import type { TokenOptions } from './tokens.ts'

export interface ConnectOptions extends LinkOptions {
  namespace: string
  /** Fixed for a namespace once it has jobs; default: 1. */
  partitions?: number
  /** How far a job must have got before its enqueue counts as accepted, unless the enqueue says; default: memory. */
  ack?: Ack
  /**
   * Replicas that must confirm for `ack: 'replica'`; default 1. With as many as the master has, no failover loses the job;
   * with fewer one may, which promotes another replica than those that confirmed.
   */
  ackReplicas?: number
  /** Signs tokens for watchers: `token`, and `enqueue` with `token`. Only backends that hand out tokens need it. */
  tokens?: TokenOptions | undefined
  /** Connects to a Redis that may lose jobs, too: one that evicts keys, a replica, one too old. */
  allowUnsafeRedis?: boolean | undefined
  /** Told at the start of each thing that speaks against the server; default: a warning of the process. */
  onFinding?: (finding: Finding) => void
}
