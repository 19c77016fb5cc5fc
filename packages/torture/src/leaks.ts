// Looks at what the processes and Redis hold when nothing is under way.
import { readdirSync, readFileSync } from 'node:fs'
import { type Fleet, GATEWAYS, REAPERS, WATCHERS, WORKERS } from './fleet.ts'
import { growthOf, type Look, type ProcessLook } from './growth.ts'
import { tortureJob } from './job.ts'

export interface Leaks {
  look(): Promise<void>
  violations(): string[]
  /** For the history: the newest look. */
  readonly latest: Record<string, number>
}

export const watchLeaks = (fleet: Fleet): Leaks => {
  const looks: Look[] = []
  const latest: Record<string, number> = {}
  const { store } = fleet
  return {
    latest,
    look: async () => {
      const processes = new Map<string, ProcessLook>()
      for (const name of [...WORKERS, 'keeper', ...REAPERS, ...GATEWAYS, ...WATCHERS]) {
        const { pid, incarnation } = fleet.member(name)
        const look = pid === undefined ? undefined : lookAt(pid)
        if (!look) continue
        processes.set(incarnation, look)
        latest[`${name} MB`] = Math.round(look.mb)
        latest[`${name} handles`] = look.handles
      }
      const redis = { bytes: 0, connections: 0, consumers: await mostConsumers(fleet) }
      for (const client of store.servers()) {
        const info = await client.info()
        const figure = (name: string) => Number(new RegExp(`${name}:(\\d+)`).exec(info)?.[1])
        redis.bytes += figure('used_memory')
        redis.connections += figure('connected_clients')
      }
      looks.push({ processes, redis })
      latest.redisBytes = redis.bytes
      latest.redisClients = redis.connections
      latest.consumers = redis.consumers
    },
    violations: () => growthOf(looks, store.servers().length),
  }
}

const lookAt = (pid: number): ProcessLook | undefined => {
  try {
    const kb = /VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]
    return { mb: Number(kb) / 1_024, handles: readdirSync(`/proc/${pid}/fd`).length }
  } catch {
    return undefined
  }
}

const mostConsumers = async ({ jobs }: Fleet): Promise<number> => {
  const { link, transitions } = jobs
  const told = await Promise.all(
    transitions.keys.map((each) => link.call('XINFO', 'CONSUMERS', each.work(tortureJob.name), 'workers')),
  )
  return Math.max(...told.map((each) => (each as unknown[]).length))
}
