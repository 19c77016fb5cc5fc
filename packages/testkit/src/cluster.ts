// A Redis Cluster for one test file: three masters with a replica each on loopback, to be killed and to move slots in.
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { freePort, type RunningRedis, startRedis } from '@jobs/provision'
import { Redis } from 'ioredis'
import { binaryRedis } from './redis.ts'
import { until } from './until.ts'

const MASTERS = 3
const SLOTS = 16_384
/** Milliseconds after which a node that does not answer counts as gone. */
const NODE_TIMEOUT_MS = 1_000

export interface ClusterNode {
  readonly server: RunningRedis
  readonly port: number
  readonly id: string
  /** To look with and to steer. */
  readonly client: Redis
}

export interface TestCluster {
  /** Names all nodes. */
  readonly url: string
  readonly nodes: readonly ClusterNode[]
  slotOf(key: string): Promise<number>
  /** The master that has the key's slot, and its replica. */
  holders(key: string): Promise<{ master: ClusterNode; replicas: ClusterNode[] }>
  masters(): Promise<ClusterNode[]>
  /** Resolves once every node that runs says that all is well, and each master has a replica if `whole`. */
  settled(whole?: boolean): Promise<void>
  /** Moves the slot of a key, key by key, to another master; `midway` is called when about half of the keys have moved. */
  moveSlotOf(key: string, midway?: () => Promise<void>): Promise<ClusterNode>
  /** A checksum of everything in the masters. */
  digest(): Promise<string>
  stop(): Promise<void>
}

export const startCluster = async (): Promise<TestCluster> => {
  const dir = await mkdtemp(join(tmpdir(), 'jobs-test-cluster-'))
  const source = await binaryRedis()
  const start = async (): Promise<ClusterNode & { busPort: number }> => {
    const busPort = await freePort()
    const server = await startRedis(source, {
      dir: await mkdtemp(join(dir, 'node-')),
      appendonly: true,
      args: [
        ...['--cluster-enabled', 'yes', '--cluster-port', String(busPort)],
        // Else the loss of one master stops the others.
        ...['--cluster-require-full-coverage', 'no'],
        ...['--cluster-node-timeout', String(NODE_TIMEOUT_MS), '--cluster-replica-validity-factor', '0'],
        ...[
          '--appendfsync',
          'no',
          '--repl-diskless-sync-delay',
          '0',
          '--cluster-allow-replica-migration',
          'no',
        ],
      ],
    })
    const client = new Redis(server.url, { maxRetriesPerRequest: 0, retryStrategy: () => 100 })
    // Servers are killed under it on purpose; what matters shows in the assertions.
    client.on('error', () => undefined)
    const id = String(await client.cluster('MYID'))
    return { server, port: server.port, id, client, busPort }
  }
  const nodes = await Promise.all(Array.from({ length: 2 * MASTERS }, start))
  const first = nodes[0] as ClusterNode
  await Promise.all(
    nodes.slice(0, MASTERS).map(({ client }, i) => {
      const from = Math.ceil((i * SLOTS) / MASTERS)
      const to = Math.ceil(((i + 1) * SLOTS) / MASTERS) - 1
      return client.call('CLUSTER', 'ADDSLOTSRANGE', from, to)
    }),
  )
  await until(
    async () => {
      // A handshake that a busy machine does not get through in a second is given up, and nobody begins another.
      const known = String(await first.client.cluster('NODES'))
      for (const { port, busPort } of nodes.slice(1))
        if (!known.includes(`:${port}@`))
          await first.client.call('CLUSTER', 'MEET', '127.0.0.1', port, busPort)
      const told = await Promise.all(nodes.map(({ client }) => client.cluster('NODES')))
      return told.every(
        (text) =>
          String(text)
            .split('\n')
            .filter((line) => /connected/.test(line)).length === 6,
      )
    },
    { what: 'every node knowing every other', timeoutMs: 60_000 },
  ).catch(async (error) => {
    // Nobody else knows of them.
    for (const { client } of nodes) client.disconnect()
    await Promise.all(nodes.map(({ server }) => server.kill('SIGKILL')))
    throw error
  })
  for (const [i, { client }] of nodes.slice(MASTERS).entries())
    await client.call('CLUSTER', 'REPLICATE', (nodes[i] as ClusterNode).id)

  const up = () => nodes.filter(({ server }) => server.running)
  /** The cluster as the first node that answers sees it. */
  const view = async () => {
    for (const { client } of up())
      try {
        return String(await client.cluster('NODES'))
          .trim()
          .split('\n')
          .map((line) => line.split(' '))
      } catch {
        // Just killed or just started: another one tells.
      }
    throw new Error('no node of the cluster answers')
  }
  const byId = (id: string | undefined) => nodes.find((node) => node.id === id) as ClusterNode

  const masters = async () =>
    (await view())
      .filter(([, , flags = '', , , , , , ...slots]) => flags.includes('master') && slots.length > 0)
      .map(([id]) => byId(id))

  const settled = async (whole = true) => {
    await until(
      async () => {
        try {
          const told = await Promise.all(up().map(({ client }) => client.cluster('INFO')))
          if (!told.every((text) => String(text).includes('cluster_state:ok'))) return false
          const roles = await Promise.all(up().map(({ client }) => client.role() as Promise<unknown[]>))
          const linked = roles.filter(([role, , , state]) => role === 'slave' && state === 'connected').length
          return !whole || linked === MASTERS
        } catch {
          return false
        }
      },
      { what: 'the cluster being well', timeoutMs: 30_000 },
    )
  }

  const slotOf = async (key: string) => Number(await up()[0]?.client.cluster('KEYSLOT', key))

  const holders = async (key: string) => {
    const slot = await slotOf(key)
    const lines = await view()
    const holds = (ranges: string[]) =>
      ranges.some((range) => {
        if (range.startsWith('[')) return false
        const [from = 0, to = from] = range.split('-').map(Number)
        return from <= slot && slot <= to
      })
    const owner = lines.find(([, , , , , , , , ...ranges]) => holds(ranges))?.[0]
    return {
      master: byId(owner),
      replicas: lines.filter(([, , , master]) => master === owner).map(([id]) => byId(id)),
    }
  }

  await settled()
  return {
    url: `redis+cluster://${nodes.map(({ port }) => `127.0.0.1:${port}`).join(',')}`,
    nodes,
    slotOf,
    holders,
    masters,
    settled,
    moveSlotOf: async (key, midway) => {
      const slot = await slotOf(key)
      const { master: from } = await holders(key)
      const all = await masters()
      const to = all[(all.indexOf(from) + 1) % all.length] as ClusterNode
      await to.client.call('CLUSTER', 'SETSLOT', slot, 'IMPORTING', from.id)
      await from.client.call('CLUSTER', 'SETSLOT', slot, 'MIGRATING', to.id)
      const half = Number(await from.client.cluster('COUNTKEYSINSLOT', slot)) / 2
      for (let moved = 0, told = false; ; ) {
        const keys = (await from.client.cluster('GETKEYSINSLOT', slot, 20)) as string[]
        if (keys.length === 0) break
        await from.client.call('MIGRATE', '127.0.0.1', to.port, '', 0, 5_000, 'KEYS', ...keys)
        moved += keys.length
        if (told || moved < half) continue
        told = true
        await midway?.()
      }
      await to.client.call('CLUSTER', 'SETSLOT', slot, 'NODE', to.id)
      for (const { client } of all) await client.call('CLUSTER', 'SETSLOT', slot, 'NODE', to.id)
      return to
    },
    digest: async () =>
      (await Promise.all((await masters()).map(({ client }) => client.call('DEBUG', 'DIGEST')))).join(' '),
    stop: async () => {
      for (const { client } of nodes) client.disconnect()
      // Asked to end, a master waits for its replicas, and one that is demoted meanwhile goes on.
      await Promise.all(nodes.map(({ server }) => server.kill('SIGKILL').then(server.stop)))
      await rm(dir, { recursive: true, force: true })
    },
  }
}
