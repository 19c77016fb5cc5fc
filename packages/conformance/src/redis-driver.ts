// Drives jobs with @jobs/state, as a worker without heartbeats would. The namespace is best one of its own.
import { randomBytes } from 'node:crypto'
import { connectJobs, defineJob } from '@jobs/state'
import type { Driver } from './driver.ts'
import { skip } from './outcome.ts'

/** No worker takes jobs of this name. */
const watchedJob = defineJob({ name: 'conformance' })
/** Milliseconds that an attempt is left alone; a reaper may be running. */
const LEASE_MS = 600_000

interface Held {
  id: string
  fence: string
  op: number
}

export const redisDriver = async (options: {
  url: string
  namespace: string
  partitions: number
}): Promise<Driver> => {
  // Whether Redis keeps jobs is not what is held against the protocol.
  const jobs = await connectJobs({ ...options, onFinding: () => undefined })
  const { link, transitions } = jobs
  const held = new Map<string, Held>()
  const attemptOf = (id: string): Held => {
    const attempt = held.get(id)
    if (!attempt) throw new Error(`${id} was not claimed`)
    return attempt
  }
  const keysOf = (id: string): string[] => {
    const { job, events } = transitions.keysFor(id)
    return [job(id), events(id)]
  }
  /** No job's key: an id has no colon. */
  const kept = (key: string) => `${key}:kept`
  const report = async (moved: Promise<{ ok: boolean }>) => {
    const outcome = await moved
    if (!outcome.ok) throw new Error(`refused: ${JSON.stringify(outcome)}`)
  }
  return {
    create: async ({ tags } = {}) => (await jobs.enqueue(watchedJob, {}, tags ? { tags } : {})).id,
    claim: async (id) => {
      const entry = String(await link.call('HGET', transitions.keysFor(id).job(id), 'place'))
      const nonce = randomBytes(6).toString('hex')
      const grant = await transitions.claim(id, entry, { worker: 'conformance', nonce, leaseMs: LEASE_MS })
      if (!grant.ok) throw new Error(`not claimed: ${grant.reason}`)
      held.set(id, { id, fence: grant.fence, op: 0 })
    },
    progress: (id, value) => {
      const attempt = attemptOf(id)
      return report(transitions.progress(attempt, ++attempt.op, JSON.stringify(value)))
    },
    log: (id, line) => {
      const attempt = attemptOf(id)
      return report(transitions.log(attempt, ++attempt.op, line))
    },
    complete: (id, result) => report(transitions.complete(attemptOf(id), JSON.stringify(result))),
    trim: async (id) => {
      await link.call('XTRIM', transitions.keysFor(id).events(id), 'MAXLEN', '1')
    },
    keep: async (id) => {
      for (const key of keysOf(id)) await link.call('COPY', key, kept(key), 'REPLACE')
    },
    lose: async (id) => {
      for (const key of keysOf(id)) {
        await link.call('COPY', kept(key), key, 'REPLACE')
        await link.call('DEL', kept(key))
      }
      await link.call('CLIENT', 'KILL', 'TYPE', 'pubsub')
    },
    outage: async (ms) => {
      await link.call('CLIENT', 'PAUSE', String(ms), 'ALL')
    },
    revoke: (token) => jobs.revoke({ jti: token }),
    drain: async () => skip('needs a hand on the gateway (give --drain-command)'),
    close: () => jobs.close(),
  }
}
