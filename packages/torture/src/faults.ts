// Every fault: what it strikes, for how long, and how it is done and undone. A fault leaves things well when it is over.
import { clientsOf, ENQUEUERS, type Fleet, GATEWAYS, REAPERS, WATCHERS, WORKERS } from './fleet.ts'

const pause = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms))

export interface Fault {
  says: string
  /** What it strikes: two faults never strike the same at once. */
  targets: readonly string[]
  /** Milliseconds that it lasts, at least and at most. */
  ms: readonly [number, number]
  /** How often it comes, beside the others. */
  weight: number
  /** The dead may be found later for it: it strikes Redis or reapers. */
  delaysRecovery?: true
  strike(fleet: Fleet, target: string, forMs: number): Promise<void>
}

const REDIS = ['redis'] as const
const PROCESSES = [...WORKERS, ...REAPERS, ...GATEWAYS, ...ENQUEUERS] as const
const LINKS = [...PROCESSES, 'keeper', ...GATEWAYS.map(clientsOf)] as const

export const FAULTS = {
  'process-killed': {
    says: 'SIGKILL; started again after a while',
    targets: [...WORKERS, ...WORKERS, ...REAPERS, ...GATEWAYS, ...ENQUEUERS],
    ms: [0, 3_000],
    weight: 6,
    strike: async (fleet, target, forMs) => {
      await fleet.member(target).kill()
      await pause(forMs)
      await fleet.member(target).start()
    },
  },
  'process-frozen': {
    says: 'SIGSTOP, SIGCONT after up to two leases',
    targets: [...WORKERS, ...PROCESSES, ...WATCHERS],
    ms: [300, 4_000],
    weight: 5,
    strike: async (fleet, target, forMs) => {
      fleet.member(target).freeze()
      await pause(forMs)
      fleet.member(target).thaw()
    },
  },
  deploy: {
    says: 'SIGTERM, then the next release is started',
    targets: PROCESSES,
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
    targets: ['workers'],
    ms: [0, 0],
    weight: 1,
    strike: (fleet) => fleet.poison(),
  },
  'redis-killed': {
    says: 'kill -9 of Redis with its file written at each command; restarted after a while',
    targets: REDIS,
    ms: [100, 2_500],
    weight: 2,
    delaysRecovery: true,
    strike: async ({ redis }, _, forMs) => {
      await redis.kill('SIGKILL')
      await pause(forMs)
      await redis.restart()
    },
  },
  'redis-restarted': {
    says: 'Redis stopped in order, and started again',
    targets: REDIS,
    ms: [0, 1_000],
    weight: 1,
    delaysRecovery: true,
    strike: async ({ redis }, _, forMs) => {
      await redis.kill('SIGTERM')
      await pause(forMs)
      await redis.restart()
    },
  },
  'redis-frozen': {
    says: 'SIGSTOP of Redis, for up to two leases',
    targets: REDIS,
    ms: [300, 4_000],
    weight: 2,
    delaysRecovery: true,
    strike: async ({ redis }, _, forMs) => {
      await redis.freeze()
      await pause(forMs)
      await redis.thaw()
    },
  },
  'clients-paused': {
    says: 'CLIENT PAUSE ALL',
    targets: REDIS,
    ms: [200, 3_000],
    weight: 2,
    delaysRecovery: true,
    strike: async ({ redis }, _, forMs) => {
      await redis.client().call('CLIENT', 'PAUSE', forMs, 'ALL')
      await pause(forMs)
    },
  },
  'clients-killed': {
    says: 'CLIENT KILL of every connection of one type, every 100 ms',
    targets: REDIS,
    ms: [200, 1_000],
    weight: 3,
    delaysRecovery: true,
    strike: async ({ redis }, _, forMs) => {
      for (let left = forMs; left > 0; left -= 100) {
        for (const type of ['normal', 'pubsub'])
          await redis.client().call('CLIENT', 'KILL', 'TYPE', type, 'SKIPME', 'yes')
        await pause(100)
      }
    },
  },
  'scripts-flushed': {
    says: 'SCRIPT FLUSH, every 50 ms',
    targets: REDIS,
    ms: [200, 1_000],
    weight: 2,
    strike: async ({ redis }, _, forMs) => {
      for (let left = forMs; left > 0; left -= 50) {
        await redis.client().script('FLUSH')
        await pause(50)
      }
    },
  },
  'memory-full': {
    says: 'maxmemory below what is used',
    targets: REDIS,
    ms: [300, 3_000],
    weight: 2,
    delaysRecovery: true,
    strike: async ({ redis }, _, forMs) => {
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
} as const satisfies Record<string, Fault>
export type FaultName = keyof typeof FAULTS
export const FAULT_NAMES = Object.keys(FAULTS) as FaultName[]
export const faultOf = (name: FaultName): Fault => FAULTS[name]
