// A real Redis for one test file: its own process, its own folder, gone at the end.
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Engine, findRedis, type RedisSource, type RunningRedis, startRedis } from '@jobs/provision'
import { Redis } from 'ioredis'

export interface TestRedis {
  readonly url: string
  readonly port: number
  readonly pid: number | undefined
  kill(signal: NodeJS.Signals): Promise<void>
  restart(): Promise<void>
  /** Stops the process from running without ending it, and lets it go on. */
  freeze(): Promise<void>
  thaw(): Promise<void>
  /** A checksum of everything in the server. */
  digest(): Promise<string>
  /** A plain client to look with; closed at `stop`. */
  client(): Redis
  stop(): Promise<void>
}

/** A server program to start many of: what is there already, or a container, is no use for that. */
export const binaryRedis = async (): Promise<Extract<RedisSource, { kind: 'binary' }>> => {
  const { JOBS_REDIS_FROM: from = 'path', ...env } = process.env
  for (const way of [from, 'debian']) {
    const source = await findRedis({ env: { ...env, JOBS_REDIS_FROM: way } }).catch(() => undefined)
    if (source?.kind === 'binary') return source
  }
  throw new Error('This test starts several Redis servers: put redis-server or valkey-server on the PATH.')
}

export const startTestRedis = async ({
  engine,
  appendonly = false,
  args = [],
}: {
  /** What Redis has answered survives a SIGKILL: with its usual `everysec` a write may wait 2 s for the disk. */
  appendonly?: boolean
  args?: string[]
  engine?: Engine | undefined
} = {}): Promise<TestRedis> => {
  const dir = await mkdtemp(join(tmpdir(), 'jobs-test-redis-'))
  const env = engine ? { ...process.env, JOBS_REDIS_ENGINE: engine } : process.env
  const server: RunningRedis = await startRedis(await findRedis({ env }), {
    dir,
    appendonly,
    args: ['--appendfsync', 'always', ...args],
  })
  let client: Redis | undefined
  const look = (): Redis => {
    if (client) return client
    client = new Redis(server.url)
    // The server is killed under it on purpose; what matters shows in the assertions.
    client.on('error', () => undefined)
    return client
  }
  return {
    url: server.url,
    port: server.port,
    get pid() {
      return server.pid
    },
    kill: server.kill,
    restart: server.restart,
    freeze: () => server.kill('SIGSTOP'),
    thaw: () => server.kill('SIGCONT'),
    digest: async () => String(await look().call('DEBUG', 'DIGEST')),
    client: look,
    stop: async () => {
      client?.disconnect()
      await server.stop()
      await rm(dir, { recursive: true, force: true })
    },
  }
}
