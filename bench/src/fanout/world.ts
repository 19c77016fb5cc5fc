// One measurement's processes: a Redis, the peer's server, a publisher, a load client, each by itself; and the rooms.
import { type ChildProcess, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as pause } from 'node:timers/promises'
import { workspaceRoot } from '@jobs/provision'
import { defineJob, Jobs } from '@jobs/state'
import { Probe, withRedis } from '../server.ts'
import type { Dial, Dialled, Kind, PeerName, Published, Room, Seen } from './load.ts'
import { cpuMicros, type Remote, startRemote } from './rpc.ts'

const NAMESPACE = 'bench'

const gateways = new Set<ChildProcess>()
// Whoever ends a bench ends what it started.
process.on('exit', () => {
  for (const gateway of gateways) gateway.kill('SIGKILL')
})
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(1))

export interface Load extends Seen {
  /** Messages a second that were published, and what the publisher managed. */
  rate: number
  published: number
  deliveredPerSecond: number
  /** Of those published, times watchers. */
  lost: number
  serverMicros: number
  /** Percent of a core: server, Redis, publisher, load client. */
  cpu: [number, number, number, number]
}

interface LoadOptions {
  /** Publishes to the first so many rooms only. */
  first?: number
  /** Happens meanwhile. */
  during?: () => Promise<unknown>
}

export interface World {
  readonly rooms: Room[]
  readonly serverPid: number
  readonly probe: Probe
  dial(connections: number, options?: Partial<Dial>): Promise<Dialled>
  hangUp(): Promise<unknown>
  /** For so long each connection is dropped at random, again and again, and comes back after two seconds. */
  dropAtRandom(seconds: number): Promise<unknown>
  /** Kills the server and starts another in its place. */
  replaceServer(): Promise<unknown>
  /** Another gateway on the same port. */
  addServer(): Promise<unknown>
  /** Restarts Redis with what it had. Answers how many seconds after it answers all rooms have caught up. */
  restartRedis(): Promise<number>
  /** Publishes at a rate and waits until all has arrived, or nothing more comes. */
  load(rate: number, seconds: number, kind: Kind, options?: LoadOptions): Promise<Load>
}

interface Server {
  pid: number
  url: string
  /** Of ours: whether all rooms have caught up. */
  ready(): Promise<boolean>
  /** Takes it from its clients without a word. */
  kill(): Promise<unknown>
  stop(): Promise<unknown>
}

/** The gateway process, as it is run. */
const startOurs = async (redis: string, port: number, shared: boolean): Promise<Server> => {
  const profile = process.env.BENCH_PROFILE ? ['--cpu-prof'] : []
  const child = spawn(
    process.execPath,
    // The heap as the Dockerfile has it.
    [
      ...profile,
      '--max-semi-space-size=16',
      '--conditions=@jobs/source',
      join(workspaceRoot(), 'apps/gateway/src/main.ts'),
    ],
    {
      env: {
        ...process.env,
        REDIS_URL: redis,
        JOBS_NAMESPACE: NAMESPACE,
        GATEWAY_PORT: String(port),
        GATEWAY_REUSE_PORT: String(shared),
        GATEWAY_OPS_PORT: '0',
        // One load client stands for thousands.
        GATEWAY_MAX_CONNECTIONS: '20000',
        GATEWAY_MAX_CONNECTIONS_PER_ADDRESS: '20000',
        GATEWAY_ACCEPTS_PER_SECOND: '100000',
        LOG_LEVEL: 'info',
      },
      stdio: ['ignore', 'pipe', 'inherit'],
    },
  )
  gateways.add(child)
  const gone = new Promise<void>((resolve) => child.once('exit', () => resolve()))
  const listening = await new Promise<{ port: number; opsPort: number }>((resolve, reject) => {
    child.once('exit', () => reject(new Error('the gateway ended at its start')))
    createInterface({ input: child.stdout }).on('line', (line) => {
      const { msg, port, opsPort } = JSON.parse(line) as { msg: string; port: number; opsPort: number }
      if (msg === 'listening') resolve({ port, opsPort })
    })
  })
  return {
    pid: child.pid as number,
    url: `http://127.0.0.1:${listening.port}`,
    ready: async () => (await fetch(`http://127.0.0.1:${listening.opsPort}/readyz`)).status === 200,
    kill: () => {
      child.kill('SIGKILL')
      return gone
    },
    stop: () => {
      child.kill(profile.length > 0 ? 'SIGTERM' : 'SIGKILL')
      return gone
    },
  }
}

interface ServerOptions {
  port?: number
  /** Others listen to its port too. */
  shared?: boolean
  /** Clients are to get what they missed while they were away. */
  recovery?: boolean
}

const startServer = async (
  peer: PeerName,
  redis: string,
  { port = 0, shared = false, recovery = false }: ServerOptions,
): Promise<Server> => {
  if (peer === 'ours') return startOurs(redis, port, shared)
  const args = [redis, String(port), recovery ? 'recovery' : '']
  const remote = startRemote(new URL(`./${peer}-server.ts`, import.meta.url), args)
  const listening = await remote.call<{ port: number }>('port')
  return {
    pid: remote.pid,
    url: `http://127.0.0.1:${listening.port}`,
    ready: async () => true,
    kill: () => remote.kill(),
    stop: () => remote.stop(),
  }
}

/** Jobs whose attempt runs, made by the library; the peers need names only. */
const makeRooms = async (peer: PeerName, redis: string, count: number): Promise<Room[]> => {
  if (peer !== 'ours')
    return Array.from({ length: count }, () => ({ name: randomBytes(16).toString('hex'), seq: 0, fence: '' }))
  const jobs = new Jobs({ url: redis, namespace: NAMESPACE })
  const { transitions, link } = jobs
  const job = defineJob<object>({ name: 'work' })
  const rooms: Room[] = []
  for (let made = 0; made < count; ) {
    const size = Math.min(500, count - made)
    const items = await jobs.enqueueMany(
      job,
      Array.from({ length: size }, () => ({ payload: {} })),
    )
    await Promise.all(
      items.map(async (item) => {
        if (!item.ok) throw item.error
        const { id } = item
        const entry = String(await link.call('HGET', transitions.keysFor(id).job(id), 'place'))
        const nonce = randomBytes(6).toString('hex')
        const grant = await transitions.claim(id, entry, { worker: 'bench', nonce, leaseMs: 600_000 })
        if (!grant.ok) throw new Error(grant.reason)
        rooms.push({ name: id, seq: 2, fence: grant.fence })
      }),
    )
    made += size
  }
  await jobs.close()
  return rooms
}

export interface WorldOptions extends ServerOptions {
  /** Redis keeps what it has. */
  appendonly?: boolean
}

export const withWorld = <T>(
  peer: PeerName,
  count: number,
  use: (world: World) => Promise<T>,
  { appendonly = false, ...options }: WorldOptions = {},
): Promise<T> =>
  withRedis(
    async (redis, redisServer) => {
      const rooms = await makeRooms(peer, redis, count)
      const started: { stop(): Promise<unknown> }[] = []
      const keep = <S extends { stop(): Promise<unknown> }>(each: S): S => {
        started.push(each)
        return each
      }
      const remote = (file: string, args: string[]): Remote =>
        keep(startRemote(new URL(`./${file}.ts`, import.meta.url), args))
      try {
        let server = keep(await startServer(peer, redis, options))
        const startPublisher = () => remote('publisher', [redis, peer, `{${NAMESPACE}:0}:`])
        let publisher = startPublisher()
        const watchers = remote('watchers', [peer])
        const probe = new Probe(redis)
        const others: Server[] = []
        let watching = 0
        const names = rooms.map(({ name }) => name)
        // As the publisher leaves them: it counts on from load to load.
        let current = rooms
        return await use({
          rooms,
          get serverPid() {
            return server.pid
          },
          probe,
          dial: async (connections, { atOnce = 64, resume = false, roomsEach = 1 } = {}) => {
            const dialled = await watchers.call<Dialled>('dial', {
              url: server.url,
              rooms: names,
              connections,
              roomsEach,
              atOnce,
              resume,
            })
            if (!resume) watching += connections
            return dialled
          },
          hangUp: () => watchers.call('hangUp'),
          dropAtRandom: async (seconds) => {
            await watchers.call('returnAfter', { url: server.url, afterMs: DOWN_MS })
            await watchers.call('dropAtRandom', { seconds, downMs: DOWN_MS })
          },
          replaceServer: async () => {
            await watchers.call('returnAfter', { url: server.url, afterMs: 0 })
            await server.kill()
            server = keep(
              await startServer(peer, redis, { ...options, port: Number(new URL(server.url).port) }),
            )
          },
          addServer: async () => {
            others.push(
              keep(await startServer(peer, redis, { ...options, port: Number(new URL(server.url).port) })),
            )
          },
          restartRedis: async () => {
            await publisher.stop()
            await redisServer.kill('SIGKILL')
            await redisServer.restart()
            const from = performance.now()
            while (!(await server.ready())) await pause(10)
            publisher = startPublisher()
            return (performance.now() - from) / 1e3
          },
          load: async (rate, seconds, kind, { first = current.length, during } = {}) => {
            await watchers.call('reset')
            const cpu = async () => [
              [server, ...others].reduce((sum, { pid }) => sum + cpuMicros(pid), 0),
              await probe.cpuMicros(),
              cpuMicros(publisher.pid),
              cpuMicros(watchers.pid),
            ]
            const [before, from] = [await cpu(), performance.now()]
            const publication = { rooms: current.slice(0, first), rate, seconds, kind }
            const [published] = await Promise.all([
              publisher.call<Published>('publish', publication),
              during?.(),
            ])
            current = [...published.rooms, ...current.slice(first)]
            const expected = published.messages * Math.ceil(watching / rooms.length)
            await arrival(watchers, expected)
            const [after, wallMicros] = [await cpu(), (performance.now() - from) * 1e3]
            const seen = await watchers.call<Seen>('report')
            const used = after.map((each, i) => each - (before[i] as number))
            return {
              ...seen,
              rate,
              published: published.rate,
              deliveredPerSecond: seen.delivered / ((seen.to - seen.from) / 1e6),
              lost: expected - seen.delivered + seen.twice,
              serverMicros: (used[0] as number) / seen.delivered,
              cpu: used.map((each) => (100 * each) / wallMicros) as Load['cpu'],
            }
          },
        }).finally(() => probe.close())
      } finally {
        await Promise.all(started.map((each) => each.stop()))
      }
    },
    { appendonly },
  )

/** Milliseconds that a dropped connection stays away. */
const DOWN_MS = 2_000
/** Milliseconds without an arrival after which what is missing counts as lost. */
const LOST_MS = 2_000

const arrival = async (watchers: Remote, expected: number): Promise<void> => {
  let last = 0
  for (let quietMs = 0; last < expected && quietMs < LOST_MS; ) {
    await pause(25)
    const { delivered } = await watchers.call<{ delivered: number }>('count')
    quietMs = delivered === last ? quietMs + 25 : 0
    last = delivered
  }
}
