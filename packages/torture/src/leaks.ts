// What the processes and Redis hold, looked at when nothing is under way: it must not grow from window to window.
import { readdirSync, readFileSync } from 'node:fs'
import { type Fleet, GATEWAYS, REAPERS, WATCHERS, WORKERS } from './fleet.ts'
import { tortureJob } from './job.ts'

interface Sample {
  rssMb: number
  handles: number
}

/** Windows that a process must have lived through to be judged. */
const ENOUGH = 9
const GROWTH = 1.3
const GROWTH_MB = 30
const GROWTH_HANDLES = 6
/** Names of workers in the group of a queue. Each start is a new one, and those that are gone are forgotten in a minute or two. */
const NAMES = 100

const sampleOf = (pid: number): Sample | undefined => {
  try {
    const kb = /VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]
    return { rssMb: Number(kb) / 1_024, handles: readdirSync(`/proc/${pid}/fd`).length }
  } catch {
    return undefined
  }
}

const median = (of: number[]): number => of.toSorted((a, b) => a - b)[Math.floor(of.length / 2)] ?? 0

export interface Leaks {
  look(): Promise<void>
  violations(): string[]
  /** For the history: the newest look. */
  readonly latest: Record<string, number>
}

export const watchLeaks = (fleet: Fleet): Leaks => {
  const samples = new Map<string, Sample[]>()
  const server: number[] = []
  const clients: number[] = []
  const latest: Record<string, number> = {}
  let names = 0
  return {
    latest,
    look: async () => {
      for (const name of [...WORKERS, 'keeper', ...REAPERS, ...GATEWAYS, ...WATCHERS]) {
        const { pid, incarnation } = fleet.member(name)
        const sample = pid === undefined ? undefined : sampleOf(pid)
        if (!sample) continue
        const known = samples.get(incarnation)
        if (known) known.push(sample)
        else samples.set(incarnation, [sample])
        latest[`${name} MB`] = Math.round(sample.rssMb)
        latest[`${name} handles`] = sample.handles
      }
      const info = await fleet.redis.client().info()
      const figure = (name: string) => Number(new RegExp(`${name}:(\\d+)`).exec(info)?.[1])
      server.push(figure('used_memory'))
      clients.push(figure('connected_clients'))
      latest.redisBytes = figure('used_memory')
      latest.redisClients = figure('connected_clients')
      for (const keys of fleet.jobs.transitions.keys) {
        const told = (await fleet.redis
          .client()
          .xinfo('CONSUMERS', keys.work(tortureJob.name), 'workers')) as unknown[]
        names = Math.max(names, told.length)
      }
      latest.consumers = names
    },
    violations: () => {
      const wrong: string[] = []
      for (const [who, all] of samples) {
        if (all.length < ENOUGH) continue
        // The first third is warming up.
        const third = Math.floor(all.length / 3)
        const grew = (of: (sample: Sample) => number): [number, number] => [
          median(all.slice(third, 2 * third).map(of)),
          median(all.slice(-third).map(of)),
        ]
        const [mb, mbLater] = grew(({ rssMb }) => rssMb)
        if (mbLater > mb * GROWTH && mbLater > mb + GROWTH_MB)
          wrong.push(`${who} grew from ${mb.toFixed()} to ${mbLater.toFixed()} MB in ${all.length} windows`)
        const [held, heldLater] = grew(({ handles }) => handles)
        if (heldLater > held + GROWTH_HANDLES)
          wrong.push(`${who} held ${held} files and sockets, then ${heldLater}`)
      }
      const [first = 0, last = 0] = [clients[0], clients.at(-1)]
      if (last > first + 10)
        wrong.push(`Redis had ${first} connections when all was quiet, and ${last} at the end`)
      if (names > NAMES) wrong.push(`the group of a queue has ${names} consumers`)
      if (names > NAMES) wrong.push(`the group of a queue has ${names} consumers`)
      const third = Math.floor(server.length / 3)
      const [before, after] = [median(server.slice(0, third)), median(server.slice(-third))]
      if (server.length >= ENOUGH && after > before * GROWTH + 2_000_000)
        wrong.push(`Redis used ${before} bytes without jobs, and ${after} at the end`)
      return wrong
    },
  }
}
