// A Redis of its own for every measurement, and what it tells of itself.
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { findRedis, type RunningRedis, startRedis } from '@jobs/provision'
import { Redis } from 'ioredis'

/** Runs `use` with an empty Redis, which is gone afterwards. Without `appendonly` nothing of it outlives the process. */
export const withRedis = async <T>(
  use: (url: string, server: RunningRedis) => Promise<T>,
  { appendonly = false } = {},
): Promise<T> => {
  const dir = await mkdtemp(join(tmpdir(), 'jobs-bench-'))
  const server = await startRedis(await findRedis(), { dir, appendonly })
  try {
    return await use(server.url, server)
  } finally {
    await server.stop()
    await rm(dir, { recursive: true, force: true })
  }
}

export const serverVersion = async (): Promise<string> =>
  withRedis(async (url) => {
    const probe = new Probe(url)
    const version = await probe.text('server', 'redis_version')
    probe.close()
    return version
  })

/** Looks at the server from a connection that does nothing else. */
export class Probe {
  private readonly client: Redis
  constructor(url: string) {
    this.client = new Redis(url)
    // A bench may restart the server: the client connects again by itself.
    this.client.on('error', () => undefined)
  }

  /** CPU of the server so far, in microseconds. */
  async cpuMicros(): Promise<number> {
    const info = await this.client.info('cpu')
    const seconds = (name: string) => Number(new RegExp(`${name}:([\\d.]+)`).exec(info)?.[1])
    return (seconds('used_cpu_user') + seconds('used_cpu_sys')) * 1e6
  }

  /** Commands executed so far, those inside scripts too. */
  async commands(): Promise<number> {
    const info = await this.client.info('commandstats')
    return [...info.matchAll(/calls=(\d+)/g)].reduce((sum, match) => sum + Number(match[1]), 0)
  }

  /** Calls of one command so far. */
  async calls(command: string): Promise<number> {
    const info = await this.client.info('commandstats')
    return Number(new RegExp(`cmdstat_${command}:calls=(\\d+)`).exec(info)?.[1] ?? 0)
  }

  async usedMemory(): Promise<number> {
    return Number(await this.text('memory', 'used_memory'))
  }

  async text(section: string, name: string): Promise<string> {
    return new RegExp(`${name}:(\\S+)`).exec(await this.client.info(section))?.[1] ?? ''
  }

  close(): void {
    this.client.disconnect()
  }
}
