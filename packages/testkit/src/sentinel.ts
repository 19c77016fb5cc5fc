// A master with two replicas and three sentinels on loopback, for one test file.
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { freePort, type RunningRedis, startRedis } from '@jobs/provision'
import { Redis } from 'ioredis'
import { startProcess, type TestProcess } from './process.ts'
import { binaryRedis } from './redis.ts'
import { until } from './until.ts'

const NAME = 'jobs'
const SENTINELS = 3
/** Milliseconds after which a master that does not answer counts as down. */
const DOWN_MS = 1_000

export interface SentinelServer {
  readonly server: RunningRedis
  readonly port: number
  /** To look with. */
  readonly client: Redis
}

export interface TestSentinel {
  readonly url: string
  readonly servers: readonly SentinelServer[]
  /** The server that the sentinels name, once all of them name the same. */
  master(): Promise<SentinelServer>
  /** Asks for a failover in order, and waits until another is the master. */
  failover(): Promise<SentinelServer>
  /** Waits until the sentinels name another master than this one. */
  replaced(old: SentinelServer): Promise<SentinelServer>
  /** Resolves once the master has both replicas. */
  settled(): Promise<void>
  stop(): Promise<void>
}

export const startSentinel = async (): Promise<TestSentinel> => {
  const dir = await mkdtemp(join(tmpdir(), 'jobs-test-sentinel-'))
  const source = await binaryRedis()
  const start = async (masterPort?: number): Promise<SentinelServer> => {
    const server = await startRedis(source, {
      dir: await mkdtemp(join(dir, 'server-')),
      appendonly: true,
      args: [
        ...['--appendfsync', 'no', '--repl-diskless-sync-delay', '0', '--repl-ping-replica-period', '1'],
        ...(masterPort === undefined ? [] : ['--replicaof', '127.0.0.1', String(masterPort)]),
      ],
    })
    const client = new Redis(server.url, { maxRetriesPerRequest: 0, retryStrategy: () => 100 })
    // Servers are killed under it on purpose; what matters shows in the assertions.
    client.on('error', () => undefined)
    return { server, port: server.port, client }
  }
  const first = await start()
  const servers = [first, await start(first.port), await start(first.port)]
  const sentinels: { port: number; process: TestProcess; client: Redis }[] = []
  for (let i = 0; i < SENTINELS; i++) {
    const port = await freePort()
    const conf = join(dir, `sentinel-${i}.conf`)
    await writeFile(
      conf,
      [
        `port ${port}`,
        'bind 127.0.0.1',
        `dir ${dir}`,
        `sentinel monitor ${NAME} 127.0.0.1 ${first.port} 2`,
        `sentinel down-after-milliseconds ${NAME} ${DOWN_MS}`,
        `sentinel failover-timeout ${NAME} 3000`,
        `sentinel parallel-syncs ${NAME} 2`,
      ].join('\n'),
    )
    const process = startProcess(source.path, [...(source.before ?? []), conf, '--sentinel'], {
      env: source.env,
    })
    const client = new Redis({ port, host: '127.0.0.1' })
    client.on('error', () => undefined)
    sentinels.push({ port, process, client })
  }

  const named = async (): Promise<SentinelServer | undefined> => {
    const told = await Promise.all(
      sentinels.map(({ client }) => client.call('SENTINEL', 'GET-MASTER-ADDR-BY-NAME', NAME)),
    )
    const ports = told.map((address) => Number((address as string[] | null)?.[1]))
    return ports.every((port) => port === ports[0])
      ? servers.find(({ port }) => port === ports[0])
      : undefined
  }
  const replaced = (old: SentinelServer) =>
    until(
      async () => {
        const now = await named()
        return now && now !== old ? now : undefined
      },
      { what: 'another master', timeoutMs: 30_000 },
    )
  const master = () => until(named, { what: 'the sentinels naming one master' })
  const settled = async () => {
    await until(
      async () => {
        const { client } = await master()
        const [role, , replicas] = (await client.role().catch(() => [])) as [string?, number?, unknown[]?]
        if (role !== 'master' || replicas?.length !== servers.length - 1) return false
        // A failover needs sentinels that know each other and the replicas.
        const told = await Promise.all(
          sentinels.map((sentinel) => sentinel.client.call('SENTINEL', 'CKQUORUM', NAME).catch(() => '')),
        )
        const known = await Promise.all(
          sentinels.map(
            (sentinel) => sentinel.client.call('SENTINEL', 'REPLICAS', NAME) as Promise<string[][]>,
          ),
        )
        return (
          told.every((text) => String(text).startsWith(`OK ${SENTINELS}`)) &&
          known.every(
            (replicas) =>
              replicas.length === servers.length - 1 &&
              replicas.every(
                (fields) => !/down|disconnected/.test(String(new Map(pairs(fields)).get('flags'))),
              ),
          )
        )
      },
      { what: 'a master with its replicas, known to the sentinels', timeoutMs: 40_000 },
    )
  }
  await settled()
  return {
    url: `redis+sentinel://${sentinels.map(({ port }) => `127.0.0.1:${port}`).join(',')}/${NAME}`,
    servers,
    master,
    replaced,
    settled,
    failover: async () => {
      const old = await master()
      await until(
        () =>
          sentinels[0]?.client.call('SENTINEL', 'FAILOVER', NAME).catch((error: Error) => {
            // Another failover is being finished.
            if (/INPROG|NOGOODSLAVE/.test(error.message)) return undefined
            throw error
          }),
        { what: 'the sentinel taking the order' },
      )
      return replaced(old)
    },
    stop: async () => {
      for (const { client, process } of sentinels) {
        client.disconnect()
        await process.kill('SIGKILL')
      }
      for (const { client } of servers) client.disconnect()
      // Asked to end, a master waits for its replicas, and one that is demoted meanwhile goes on.
      await Promise.all(servers.map(({ server }) => server.kill('SIGKILL').then(server.stop)))
      await rm(dir, { recursive: true, force: true })
    },
  }
}

const pairs = (flat: string[]): [string, string][] =>
  flat.flatMap((name, i) => (i % 2 === 0 ? [[name, flat[i + 1] ?? ''] as [string, string]] : []))
