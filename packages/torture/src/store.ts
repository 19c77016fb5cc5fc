// Redis under torture: one server, or a cluster of three masters with a replica each.
import { startCluster, startTestRedis, type TestCluster, type TestRedis } from '@jobs/testkit'
import type { Redis } from 'ioredis'

export const MODES = ['single', 'cluster'] as const
export type Mode = (typeof MODES)[number]

export interface Store {
  readonly url: string
  readonly partitions: number
  /** One of the two is there, by the mode. */
  readonly redis?: TestRedis
  readonly cluster?: TestCluster
  /** A client of each server that runs. */
  servers(): Redis[]
  /** Clients of the servers that have keys, each its own. */
  masters(): Promise<Redis[]>
  /** All is well, and every server runs. */
  heal(): Promise<void>
  stop(): Promise<void>
}

export const startStore = (mode: Mode): Promise<Store> => (mode === 'single' ? oneServer() : aCluster())

const oneServer = async (): Promise<Store> => {
  const redis = await startTestRedis({ appendonly: true })
  return {
    url: redis.url,
    partitions: 1,
    redis,
    servers: () => [redis.client()],
    masters: async () => [redis.client()],
    heal: async () => {
      await redis.thaw().catch(() => undefined)
      if (!runs(redis.pid)) await redis.restart()
      await redis.client().config('SET', 'maxmemory', '0')
      await redis.client().call('CLIENT', 'UNPAUSE')
    },
    stop: redis.stop,
  }
}

const aCluster = async (): Promise<Store> => {
  const cluster = await startCluster()
  return {
    url: cluster.url,
    partitions: 16,
    cluster,
    servers: () => cluster.nodes.filter(({ server }) => server.running).map(({ client }) => client),
    masters: async () => (await cluster.masters()).map(({ client }) => client),
    heal: async () => {
      for (const { server } of cluster.nodes) if (!server.running) await server.restart()
      await cluster.settled()
    },
    stop: cluster.stop,
  }
}

const runs = (pid: number | undefined): boolean => {
  if (pid === undefined) return false
  try {
    process.kill(pid, 0)
    return true
  } catch {
    return false
  }
}
