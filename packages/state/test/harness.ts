// Jobs in a given state, by real moves on a real Redis.
import { randomBytes } from 'node:crypto'
import {
  cursorOf,
  defineJob,
  fold,
  type JobEvent,
  JobEventSchema,
  Jobs,
  type MoveName,
  type Outcome,
  readSince,
  type Snapshot,
  type State,
} from '@jobs/state'
import { type Engine, startCluster, startTestRedis, type TestRedis } from '@jobs/testkit'

export const anyJob = defineJob({ name: 'any' })

export interface Held {
  id: string
  fence: string
}

export interface Harness {
  redis: TestRedis
  jobs: Jobs
  enqueue(options?: Parameters<Jobs['enqueue']>[2]): Promise<string>
  claim(id: string, leaseMs?: number): Promise<Held>
  /** The job's entry in its work stream. */
  place(id: string): Promise<string>
  /** The attempt is older than its lease, now of 1 ms, and its heartbeat has run out. */
  lapse(id: string): Promise<void>
  jobIn(state: State | null): Promise<Held>
  fire(move: MoveName, job: Held): Promise<Outcome>
  /** The whole stream of a job. */
  history(id: string): Promise<JobEvent[]>
  folded(id: string): Promise<Snapshot | null>
  stop(): Promise<void>
}

let onCluster = false
/** From now on harnesses of this file start a cluster and 16 partitions: the same tests run on both. */
export const testOnCluster = () => {
  onCluster = true
}
export const isOnCluster = () => onCluster

const clusterTarget = async (): Promise<TestRedis> => {
  const { url, nodes, digest, stop } = await startCluster()
  const ofOneServer = () => {
    throw new Error('a cluster has more than one server')
  }
  const [client, kill, restart, freeze, thaw] = [
    ofOneServer,
    ofOneServer,
    ofOneServer,
    ofOneServer,
    ofOneServer,
  ]
  return { url, port: nodes[0]?.port ?? 0, pid: undefined, digest, stop, client, kill, restart, freeze, thaw }
}

export const startHarness = async (engine?: Engine): Promise<Harness> => {
  const redis = await (onCluster ? clusterTarget() : startTestRedis({ engine }))
  const namespace = `t${randomBytes(4).toString('hex')}`
  const jobs = new Jobs({ url: redis.url, namespace, partitions: onCluster ? 16 : 1 })
  const { transitions, link } = jobs

  const enqueue: Harness['enqueue'] = async (options) => (await jobs.enqueue(anyJob, { n: 1 }, options)).id

  const place: Harness['place'] = async (id) =>
    String((await link.call('HGET', transitions.keysFor(id).job(id), 'place')) ?? '1-1')

  const lapse: Harness['lapse'] = async (id) => {
    const keys = transitions.keysFor(id)
    const [startedAt, leaseMs] = String(await link.call('HGET', keys.job(id), 'run')).split(' ')
    if (leaseMs) await link.call('HSET', keys.job(id), 'run', `${startedAt} 1`)
    await link.call('DEL', keys.heartbeat(id))
  }

  const claim: Harness['claim'] = async (id, leaseMs = 60_000) => {
    const keys = transitions.keysFor(id)
    const entry = await place(id)
    // Entries are delivered before they are claimed, as by a worker.
    await link.once(
      ['XREADGROUP', 'GROUP', 'workers', 'tester', 'COUNT', 1_000, 'STREAMS', keys.work('any'), '>'],
      1_000,
    )
    const nonce = randomBytes(6).toString('hex')
    const grant = await transitions.claim(id, entry, { worker: 'tester', nonce, leaseMs })
    if (!grant.ok) throw new Error(`claim was refused: ${grant.reason}`)
    return { id, fence: grant.fence }
  }

  const jobIn: Harness['jobIn'] = async (state) => {
    if (state === null) return { id: `none${randomBytes(4).toString('hex')}`, fence: '1-none' }
    if (state === 'SCHEDULED') return { id: await enqueue({ delayMs: 3_600_000 }), fence: '1-none' }
    const id = await enqueue()
    if (state === 'QUEUED') return { id, fence: '1-none' }
    const held = await claim(id)
    if (state === 'COMPLETED') await transitions.complete(held, '{"done":true}')
    if (state === 'FAILED') await transitions.fail(held, '{"name":"Error","message":"no"}')
    if (state === 'CANCELLED') {
      await transitions.cancel(id)
      await transitions.abort(held)
    }
    return held
  }

  const fire: Harness['fire'] = async (move, { id, fence }) => {
    const attempt = { id, fence }
    switch (move) {
      case 'enqueue':
        return toldOf(
          await transitions.enqueue({
            id,
            idGiven: true,
            name: 'any',
            payload: '{"other":1}',
            delayMs: 0,
            options: { retentionMs: 60_000 },
          }),
        )
      case 'claim': {
        const entry = await place(id)
        const grant = await transitions.claim(id, entry, { worker: 'w2', nonce: 'n', leaseMs: 60_000 })
        return grant.ok ? { ok: true, cursor: grant.cursor, state: 'PROCESSING', repeat: false } : grant
      }
      case 'heartbeat':
        return transitions.heartbeat(attempt)
      case 'progress':
        return transitions.progress(attempt, 1, '{"done":1}')
      case 'log':
        return transitions.log(attempt, 1, 'a line')
      case 'checkpoint':
        return transitions.checkpoint(attempt, '{"at":7}')
      case 'complete':
        return transitions.complete(attempt, '42')
      case 'fail':
        return transitions.fail(attempt, '{"name":"Error","message":"boom"}')
      case 'retry':
        return transitions.retry(attempt, '{"name":"Error","message":"again"}', 60_000)
      case 'release':
        return transitions.release(attempt)
      case 'abort':
        return transitions.abort(attempt)
      case 'cancel':
        return transitions.cancel(id)
      case 'rerun':
        return transitions.rerun(id)
      case 'remove':
        return transitions.remove(id)
      case 'reschedule':
        return transitions.reschedule(id, 7_200_000)
      default:
        throw new Error(`${move} is made by a pass over many jobs, tested by itself`)
    }
  }

  const history: Harness['history'] = async (id) => {
    const read = await readSince(link, transitions.keysFor(id), id, '0-0', 10_000)
    return (read?.events ?? []).map(({ cursor, body }) => {
      const event = JobEventSchema.parse(JSON.parse(body))
      if (cursor !== cursorOf(event)) throw new Error(`event ${cursor} says ${cursorOf(event)}`)
      return event
    })
  }

  return {
    redis,
    jobs,
    enqueue,
    claim,
    place,
    lapse,
    jobIn,
    fire,
    history,
    folded: async (id) =>
      (await history(id)).reduce<Snapshot | null>((before, event) => fold(before, event, id), null),
    stop: async () => {
      await jobs.close()
      await redis.stop()
    },
  }
}

const toldOf = (outcome: Awaited<ReturnType<Jobs['transitions']['enqueue']>>): Outcome =>
  outcome.ok && outcome.state ? { ...outcome, state: outcome.state } : (outcome as Outcome)
