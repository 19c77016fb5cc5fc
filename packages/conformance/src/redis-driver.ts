// Drives jobs with @jobs/state, as a worker without heartbeats would. The namespace is best one of its own.
import { randomBytes } from 'node:crypto'
import { connectJobs, defineJob } from '@jobs/state'
import type { Driver } from './driver.ts'

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
    close: () => jobs.close(),
  }
}
