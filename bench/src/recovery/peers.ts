// What a trial needs of each library beside its workers: to add jobs, to see how they stand, and what recovers them.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { workspaceRoot } from '@jobs/provision'
import { defineJob, Jobs } from '@jobs/state'
import { Queue } from 'bullmq'
import { Redis } from 'ioredis'
import { OURS, type PeerName, type Setting } from './setting.ts'

export interface Peer {
  add(count: number): Promise<void>
  ended(): Promise<{ completed: number; failed: number }>
  /** The processes whose report each job shows. */
  reportedBy(ids: readonly string[]): Promise<number[]>
  close(): Promise<void>
}

/** Processes to end with this one. */
const started = new Set<{ kill(signal: 'SIGKILL'): unknown }>()
process.on('exit', () => {
  for (const child of started) child.kill('SIGKILL')
})
export const endWithUs = <
  T extends { kill(signal: 'SIGKILL'): unknown; once(event: 'exit', f: () => void): unknown },
>(
  child: T,
): T => {
  started.add(child)
  child.once('exit', () => started.delete(child))
  return child
}

/** The reaper process, as it is run. */
export const startReaper = async (url: string, setting: Setting) => {
  const main = join(workspaceRoot(), 'apps/reaper/src/main.ts')
  const child = endWithUs(
    spawn(process.execPath, ['--conditions=@jobs/source', main], {
      env: {
        ...process.env,
        ...{ REDIS_URL: url, JOBS_NAMESPACE: 'bench', REAPER_OPS_PORT: '0', LOG_LEVEL: 'info' },
        REAPER_INTERVAL_MS: String(OURS[setting].intervalMs),
      },
      stdio: ['ignore', 'pipe', 'inherit'],
    }),
  )
  for await (const line of createInterface({ input: child.stdout })) if (line.includes('"listening"')) break
  child.stdout.resume()
  return async () => {
    child.kill('SIGKILL')
    if (child.exitCode === null && child.signalCode === null) await once(child, 'exit')
  }
}

const byOf = (progress: unknown): number => (progress as { by?: number } | null)?.by ?? 0

const openOurs = async (url: string, setting: Setting): Promise<Peer> => {
  const jobs = new Jobs({ url, namespace: 'bench' })
  const work = defineJob<object>({ name: 'work' })
  const stopReaper = await startReaper(url, setting)
  return {
    add: async (count) => {
      for (let left = count; left > 0; left -= 1_000)
        await jobs.enqueueMany(
          work,
          Array.from({ length: Math.min(left, 1_000) }, () => ({ payload: {} })),
        )
    },
    ended: async () => {
      const { COMPLETED, FAILED } = await jobs.counts()
      return { completed: COMPLETED, failed: FAILED }
    },
    reportedBy: async (ids) =>
      (await Promise.all(ids.map((id) => jobs.get(id)))).map((job) => byOf(job?.progress)),
    close: async () => {
      await stopReaper()
      await jobs.close()
    },
  }
}

const openBullMq = async (url: string): Promise<Peer> => {
  const connection = new Redis(url, { maxRetriesPerRequest: null })
  const queue = new Queue('work', { connection })
  return {
    add: async (count) => {
      await queue.addBulk(Array.from({ length: count }, () => ({ name: 'work', data: {} })))
    },
    ended: async () => {
      const { completed = 0, failed = 0 } = await queue.getJobCounts('completed', 'failed')
      return { completed, failed }
    },
    reportedBy: async (ids) =>
      (await Promise.all(ids.map((id) => queue.getJob(id)))).map((job) => byOf(job?.progress)),
    close: async () => {
      await queue.close()
      connection.disconnect()
    },
  }
}

export const openPeer = (peer: PeerName, url: string, setting: Setting): Promise<Peer> =>
  peer === 'ours' ? openOurs(url, setting) : openBullMq(url)
