// Every fault: what it strikes, for how long, and how it is done and undone. A fault leaves things well when it is over.
import { type ClusterNode, type TestCluster, type TestRedis, until } from '@jobs/testkit'
import type { Redis } from 'ioredis'
import { clientsOf, ENQUEUERS, type Fleet, GATEWAYS, REAPERS, SPARED, WATCHERS, WORKERS } from './fleet.ts'
import { LEASE_MS, RECOVERY_MS } from './job.ts'
import type { Mode } from './store.ts'

const pause = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms))

export interface Fault {
  says: string
  /** What it strikes, by the mode: two faults never strike the same at once. */
  targets: Record<Mode, readonly string[]>
  /** Milliseconds that it lasts, at least and at most. */
  ms: readonly [number, number]
  /** How often it comes, beside the others. */
  weight: number
  /** The dead may be found later for it: it strikes Redis or reapers. */
  delaysRecovery?: true
  /**
   * A worker may be robbed for it though neither it nor its link is the target. A Redis that was away is no reason: after a
   * silence of it heartbeats are armed anew. Nor is a lost host, whose workers are dead.
   */
  mayRob?: true
  strike(fleet: Fleet, target: string, forMs: number): Promise<void>
}

const always = (targets: readonly string[]): Fault['targets'] => ({ single: targets, cluster: targets })
const PROCESSES = [...WORKERS, ...REAPERS, ...GATEWAYS, ...ENQUEUERS]
const ENDED = PROCESSES.filter((name) => !SPARED.includes(name))
const EVERY_REDIS = always(['redis'])
const ONE_REDIS = { single: ['redis'], cluster: [] } as const
/** Whichever node is the master of that partition by then. */
const A_MASTER = { single: [], cluster: Array.from({ length: 16 }, (_, n) => `partition-${n}`) } as const
/** In a cluster processes go straight to its nodes. */
const CLIENT_LINKS = GATEWAYS.map(clientsOf)
const LINKS = { single: [...PROCESSES, 'keeper', ...CLIENT_LINKS], cluster: CLIENT_LINKS } as const

/** What runs on one machine. */
const HOST = [...WORKERS, 'reaper-1', 'gateway-1'] as const

const freeze = async (fleet: Fleet, target: string, forMs: number): Promise<void> => {
  fleet.member(target).freeze()
  await pause(forMs)
  fleet.member(target).thaw()
}

const redisOf = ({ store: { redis } }: Fleet): TestRedis => {
  if (!redis) throw new Error('This fault strikes one Redis, and there is a cluster.')
  return redis
}

/** One after another: a master whose replica is not there yet is left alone. */
let repaired: Promise<void> = Promise.resolve()
const alone = (fleet: Fleet, strike: (cluster: TestCluster) => Promise<unknown>): Promise<void> => {
  const { cluster } = fleet.store
  if (!cluster) throw new Error('This fault strikes a cluster, and there is one Redis.')
  const mine = repaired.then(async () => {
    await strike(cluster)
    await cluster.settled()
  })
  repaired = mine.catch(() => undefined)
  return mine
}
/** What the master of the target has told last may be gone when `strike` is over. */
const bereaving = async (
  fleet: Fleet,
  target: string,
  strike: (master: ClusterNode) => Promise<unknown>,
): Promise<void> => {
  const bereft: number[] = []
  await alone(fleet, async (cluster) => {
    const { master } = await cluster.holders(prefixOf(fleet, target))
    for (const [partition, { prefix }] of fleet.jobs.transitions.keys.entries())
      if ((await cluster.holders(prefix)).master === master) bereft.push(partition)
    await strike(master)
  })
  for (const partition of bereft) fleet.bereftUntil.set(partition, Date.now())
}
const prefixOf = ({ jobs }: Fleet, target: string): string =>
  jobs.transitions.keys[Number(target.slice('partition-'.length))]?.prefix ?? ''

/** Of a cluster a node may just be gone: it has no connections and no scripts. */
const everyRedis = async ({ store }: Fleet, does: (client: Redis) => Promise<unknown>): Promise<void> => {
  const all = await Promise.allSettled(store.servers().map(does))
  for (const each of all) if (each.status === 'rejected' && store.redis) throw each.reason
}

export const FAULTS = {
  'process-killed': {
    says: 'SIGKILL; started again after a while',
    targets: always([...WORKERS, ...ENDED]),
    ms: [0, 3_000],
    weight: 6,
    strike: async (fleet, target, forMs) => {
      await fleet.member(target).kill()
      await pause(forMs)
      await fleet.member(target).start()
    },
  },
  'process-frozen': {
    says: 'SIGSTOP, SIGCONT after up to one and a half leases',
    targets: always([...PROCESSES, ...WATCHERS]),
    ms: [300, 3_000],
    weight: 4,
    strike: freeze,
  },
  zombie: {
    says: 'SIGSTOP of a worker, SIGCONT when its jobs have been given to others',
    targets: always(WORKERS),
    ms: [RECOVERY_MS + 200, RECOVERY_MS + 2_500],
    weight: 7,
    strike: freeze,
  },
  'host-killed': {
    says: 'SIGKILL of all workers, a reaper and a gateway at once; started again after a while',
    targets: always(['host']),
    ms: [0, 3_000],
    weight: 1,
    delaysRecovery: true,
    strike: async (fleet, _, forMs) => {
      const all = HOST.map((name) => fleet.member(name))
      await Promise.all(all.map((each) => each.kill()))
      await pause(forMs)
      await Promise.all(all.map((each) => each.start()))
    },
  },
  deploy: {
    says: 'SIGTERM, then the next release is started',
    targets: always(ENDED),
    ms: [0, 200],
    weight: 3,
    strike: async (fleet, target, forMs) => {
      await fleet.member(target).stop()
      await pause(forMs)
      await fleet.member(target).start()
    },
  },
  'poison-job': {
    says: 'a job that kills each process that runs it',
    targets: always(['workers']),
    ms: [0, 0],
    weight: 1,
    strike: (fleet) => fleet.poison(),
  },
  'redis-killed': {
    says: 'kill -9 of Redis with its file written at each command; restarted after up to two leases',
    targets: ONE_REDIS,
    // Half of them longer than a lease: heartbeats are gone then, and only the amnesty keeps jobs where they are.
    ms: [100, 2 * LEASE_MS],
    weight: 4,
    delaysRecovery: true,
    strike: async (fleet, _, forMs) => {
      const redis = redisOf(fleet)
      await redis.kill('SIGKILL')
      await pause(forMs)
      await redis.restart()
    },
  },
  'redis-restarted': {
    says: 'Redis stopped in order, and started again',
    targets: ONE_REDIS,
    ms: [0, 1_000],
    weight: 1,
    delaysRecovery: true,
    strike: async (fleet, _, forMs) => {
      const redis = redisOf(fleet)
      await redis.kill('SIGTERM')
      await pause(forMs)
      await redis.restart()
    },
  },
  'redis-frozen': {
    says: 'SIGSTOP of Redis, for up to two leases',
    targets: ONE_REDIS,
    ms: [300, 4_000],
    weight: 2,
    delaysRecovery: true,
    strike: async (fleet, _, forMs) => {
      const redis = redisOf(fleet)
      await redis.freeze()
      await pause(forMs)
      await redis.thaw()
    },
  },
  'clients-paused': {
    says: 'CLIENT PAUSE ALL',
    targets: ONE_REDIS,
    ms: [200, 3_000],
    weight: 2,
    delaysRecovery: true,
    strike: async (fleet, _, forMs) => {
      const redis = redisOf(fleet)
      await redis.client().call('CLIENT', 'PAUSE', forMs, 'ALL')
      await pause(forMs)
    },
  },
  'clients-killed': {
    says: 'CLIENT KILL of every connection of one type, every 100 ms',
    targets: EVERY_REDIS,
    ms: [200, 1_000],
    weight: 3,
    delaysRecovery: true,
    // It cuts the links of all workers again and again, and sweeps may get through where beats do not: no silence of Redis.
    mayRob: true,
    strike: async (fleet, _, forMs) => {
      for (let left = forMs; left > 0; left -= 100) {
        for (const type of ['normal', 'pubsub'])
          await everyRedis(fleet, (client) => client.call('CLIENT', 'KILL', 'TYPE', type, 'SKIPME', 'yes'))
        await pause(100)
      }
    },
  },
  'scripts-flushed': {
    says: 'SCRIPT FLUSH, every 50 ms',
    targets: EVERY_REDIS,
    ms: [200, 1_000],
    weight: 2,
    strike: async (fleet, _, forMs) => {
      for (let left = forMs; left > 0; left -= 50) {
        await everyRedis(fleet, (client) => client.script('FLUSH'))
        await pause(50)
      }
    },
  },
  'memory-full': {
    says: 'maxmemory below what is used',
    targets: ONE_REDIS,
    ms: [300, 3_000],
    weight: 2,
    delaysRecovery: true,
    strike: async (fleet, _, forMs) => {
      const redis = redisOf(fleet)
      await redis.client().config('SET', 'maxmemory', '1mb')
      await pause(forMs)
      await redis.client().config('SET', 'maxmemory', '0')
    },
  },
  'link-cut': {
    says: 'every connection of a process cut at once',
    targets: LINKS,
    ms: [0, 0],
    weight: 5,
    strike: async ({ network }, target) => network.of(target).cutAll(),
  },
  'link-refused': {
    says: 'cut, and new connections refused for a while',
    targets: LINKS,
    ms: [200, 3_000],
    weight: 3,
    strike: async ({ network }, target, forMs) => {
      network.of(target).refuse(true)
      network.of(target).cutAll()
      await pause(forMs)
      network.of(target).refuse(false)
    },
  },
  'link-stalled': {
    says: 'a half-open link: bytes vanish in both directions; then it is cut',
    targets: LINKS,
    ms: [300, 4_000],
    weight: 4,
    strike: async ({ network }, target, forMs) => {
      network.of(target).stall(true)
      await pause(forMs)
      // What was swallowed will never come: TCP would have ended such a connection.
      network.of(target).cutAll()
      network.of(target).stall(false)
    },
  },
  'link-half-closed': {
    says: 'the server’s side ends, and still takes what is sent',
    targets: LINKS,
    ms: [0, 0],
    weight: 2,
    strike: async ({ network }, target) => network.of(target).halfClose(),
  },
  'link-slow': {
    says: 'every byte up to 300 ms later',
    targets: LINKS,
    ms: [500, 4_000],
    weight: 3,
    strike: async ({ network }, target, forMs) => {
      network.of(target).slow(20 + (forMs % 280))
      await pause(forMs)
      network.of(target).slow(0)
    },
  },
  'master-killed': {
    says: 'kill -9 of a master of the cluster; it comes back later, as the replica of its replica',
    targets: A_MASTER,
    ms: [300, 5_000],
    weight: 4,
    delaysRecovery: true,
    mayRob: true,
    strike: (fleet, target, forMs) =>
      bereaving(fleet, target, async ({ server }) => {
        await server.kill('SIGKILL')
        await pause(forMs)
        await server.restart()
      }),
  },
  'master-frozen': {
    says: 'SIGSTOP of a master of the cluster until its replica has taken over; back, it takes writes for a moment',
    targets: A_MASTER,
    ms: [1_500, 5_000],
    weight: 4,
    delaysRecovery: true,
    mayRob: true,
    strike: (fleet, target, forMs) =>
      bereaving(fleet, target, async ({ server }) => {
        await server.kill('SIGSTOP')
        await pause(forMs)
        await server.kill('SIGCONT')
      }),
  },
  failover: {
    says: 'CLUSTER FAILOVER: the replica of a master takes over in order',
    targets: A_MASTER,
    ms: [500, 1_000],
    weight: 3,
    delaysRecovery: true,
    mayRob: true,
    strike: (fleet, target, forMs) =>
      alone(fleet, async (cluster) => {
        const { replicas } = await cluster.holders(prefixOf(fleet, target))
        const client = replicas[0]?.client
        if (!client) throw new Error('there is no replica')
        await until(
          async () => {
            if ((await client.role())[0] === 'master') return true
            await client.call('CLUSTER', 'FAILOVER')
            // It is given up by itself after a while where the master did not wait.
            await pause(forMs)
            return false
          },
          { what: 'the replica being the master' },
        )
      }),
  },
  'slots-moved': {
    says: 'the slot of a partition moved to another master key by key, and then to the next',
    targets: A_MASTER,
    ms: [200, 1_500],
    weight: 4,
    delaysRecovery: true,
    mayRob: true,
    strike: (fleet, target, forMs) =>
      alone(fleet, async (cluster) => {
        await cluster.moveSlotOf(prefixOf(fleet, target))
        await pause(forMs)
        await cluster.moveSlotOf(prefixOf(fleet, target))
      }),
  },
} as const satisfies Record<string, Fault>
export type FaultName = keyof typeof FAULTS
export const FAULT_NAMES = Object.keys(FAULTS) as FaultName[]
export const faultOf = (name: FaultName): Fault => FAULTS[name]
