// A busy day of a namespace, each part of it done by the process whose part it is: every option, every move, every way a
// job may end. For tests of what the processes need, and of what they leave in Redis.
import {
  defineJob,
  examine,
  type Grant,
  isStateError,
  type Jobs,
  type Probe,
  type RedisLink,
  readLive,
  readRevocations,
  readWhetherLast,
  Subscriber,
  Worker,
  type WorkerAbout,
} from '@jobs/state'
import { until } from '@jobs/testkit'
import { reapOnce } from './reaper.ts'

export const ROLES = ['producer', 'worker', 'reaper', 'ops', 'gateway'] as const
export type Role = (typeof ROLES)[number]
export type Processes = Record<Role, Jobs>

type Options = NonNullable<Parameters<Jobs['enqueue']>[2]>

/** Jobs of the first name are run by a worker; those of the second are claimed by hand, move by move. */
const mail = defineJob<{ to: string }>({ name: 'mail' })
const byHand = defineJob({ name: 'by-hand' })

const HOUR = 3_600_000
const CLAIMANT = { worker: 'hand-1', nonce: 'abc', leaseMs: 60_000 }
const ERROR = '{"name":"Error","message":"no"}'

/** The jobs that are left at the end of the day. */
export interface Left {
  scheduled: string
  queued: string
  processing: string
  ended: string[]
}

/** @param admin makes time pass: lets leases and deadlines run out */
const handsOf = ({ producer, worker, reaper }: Processes, admin: RedisLink) => {
  const { transitions } = worker
  const keysOfJob = ({ id }: { id: string }) => transitions.keysFor(id)
  /** Makes the attempt half a lease older. */
  const age = async (grant: Grant, leaseMs = CLAIMANT.leaseMs) => {
    const keys = keysOfJob(grant)
    const [startedAt] = String(await admin.call('HGET', keys.job(grant.id), 'run')).split(' ')
    const aged = Number(startedAt) - CLAIMANT.leaseMs / 2
    await admin.call('HSET', keys.job(grant.id), 'run', `${aged} ${leaseMs}`)
    await admin.call('DEL', keys.heartbeat(grant.id))
  }
  const reap = (maxGapMs = 0) => reapOnce(reaper, { minIdleMs: 0, maxGapMs })
  return {
    ...transitions,
    age,
    lapse: (grant: Grant) => age(grant, 1),
    overdue: (job: { id: string }) => admin.call('ZADD', keysOfJob(job).deadlines, 1, job.id),
    reap,
    /** Without ever taking a job from a worker. */
    reapUntil: (id: string, state: string) =>
      until(async () => {
        await reap(HOUR)
        return (await producer.get(id))?.state === state
      }),
    enqueue: async (options: Options = {}) => (await producer.enqueue(byHand, { n: 1 }, options)).id,
    enqueueMany: async (options: Options = {}) => {
      const items = await producer.enqueueMany(
        byHand,
        Array.from({ length: 40 }, () => ({ payload: 1, options })),
      )
      return items.flatMap((item) => (item.ok ? [item.id] : []))
    },
    next: (rates = {}): Promise<Grant> =>
      until(async () => {
        for (const keys of transitions.keys) {
          const { grants } = await transitions.take(keys, byHand.name, 1, { ...CLAIMANT, ...rates })
          if (grants[0]) return grants[0]
        }
        return undefined
      }),
  }
}
type Hands = ReturnType<typeof handsOf>

/** A worker with every option, and jobs with every option, most of which come while it waits. */
const workADay = async ({ producer, worker }: Processes): Promise<string[]> => {
  const running = new Worker(
    worker,
    mail,
    async (job) => {
      job.log('a line')
      await job.progress({ done: 1 })
      await job.saveCheckpoint({ at: 1 })
      if (job.payload.to === 'retry' && job.attempt === 1) throw new Error('once more')
      return 'sent'
    },
    { concurrency: 4, rate: { max: 1_000 }, ratePerKey: { max: 1_000 }, progressIntervalMs: 0 },
  )
  // A worker that is refused something tells so, tries again, and would be waited for.
  const refused = new Promise<never>((_, reject) => running.on('error', reject))
  refused.catch(() => undefined)
  await running.start()
  const all = {
    ...{ key: 'one', priority: 'high', tags: ['red', 'big'], owner: 'ann', rateKey: 'host', trace: '00-abc' },
    ...{ maxAttempts: 2, maxCrashes: 1, backoff: { delayMs: 0 } },
    ...{ timeoutMs: HOUR, ttlMs: HOUR, retentionMs: HOUR },
  } as const satisfies Options | { tags: readonly string[] }
  const options: Options = { ...all, tags: [...all.tags] }
  const { id: sent } = await producer.enqueue(mail, { to: 'retry' }, options)
  await Promise.race([producer.wait(sent), refused])
  for await (const _ of producer.events(sent));
  await producer.enqueue(mail, { to: 'retry' }, options)
  for (const _ of [1, 2]) await producer.enqueue(mail, { to: 'b' }, { id: 'mine' })
  const batch = ['x', 'y', 'z'].map((to) => ({ payload: { to }, options: { priority: 'low' as const } }))
  for (const item of await producer.enqueueMany(mail, batch)) if (item.ok) await producer.wait(item.id)
  await producer.wait('mine')
  await producer.payload(sent)
  await producer.attempts(sent)
  await producer.counts({ tag: 'red' })
  await running.stop()
  return [sent, 'mine']
}

/** Move by move: more reports than are kept, a heartbeat, every end of an attempt. */
const endEachWay = async (hand: Hands, { ops }: Processes): Promise<string[]> => {
  const ended: string[] = []
  const endOf = async (end: (grant: Grant) => Promise<unknown>, options: Options = {}) => {
    await hand.enqueue(options)
    const grant = await hand.next()
    await end(grant)
    ended.push(grant.id)
  }
  await endOf(
    async (long) => {
      await Promise.all(Array.from({ length: 1_250 }, (_, i) => hand.log(long, i + 1, `line ${i}`)))
      await hand.age(long)
      await hand.heartbeat(long)
      await hand.beat(CLAIMANT.worker, byHand.name, [long])
      await hand.beat(CLAIMANT.worker, byHand.name, [{ ...long, fence: '0-of-one-that-has-lost-it' }])
      await hand.retry(long, ERROR, 0)
      await hand.complete(await hand.next(), '"done"', '{"done":9}')
    },
    { priority: 'high', timeoutMs: HOUR, tags: ['red'] },
  )
  await endOf((grant) => hand.fail(grant, ERROR))
  await endOf(async (grant) => {
    await hand.release(grant)
    await hand.retry(await hand.next(), ERROR, HOUR)
    await ops.reschedule(grant.id, { delayMs: 0 })
    await hand.fail(await hand.next(), ERROR)
  })
  await endOf(async (grant) => {
    await ops.cancel(grant.id)
    await hand.abort(grant)
  })
  await endOf(
    async (grant) => {
      await hand.checkpoint(grant, '1')
      await hand.lapse(grant)
      // The first sweep after a silence forgives; the others do not.
      await hand.reap(HOUR)
      await hand.lapse(grant)
      await hand.reap()
      await hand.lapse(await hand.next())
      await hand.reap()
    },
    { maxCrashes: 1, tags: ['red'], timeoutMs: HOUR },
  )
  await endOf(
    async (grant) => {
      await hand.overdue(grant)
      await hand.reap(HOUR)
      await hand.overdue(await hand.next())
      await hand.reap(HOUR)
    },
    { timeoutMs: HOUR, maxAttempts: 2 },
  )
  // Worth nothing any more: ended by the reaper, and by the claim.
  const late = await hand.enqueue({ ttlMs: 1, tags: ['red'] })
  await hand.reapUntil(late, 'FAILED')
  const later = await hand.enqueue({ ttlMs: HOUR })
  await hand.overdue({ id: later })
  await hand.take(hand.keysFor(later), byHand.name, 1, CLAIMANT)
  return [...ended, late, later]
}

/** Where somebody holds an entry, many that are done with are cut off in one walk, whoever ends them. */
const endMany = async (hand: Hands, { ops }: Processes): Promise<void> => {
  await hand.enqueueMany()
  const held: Grant[] = []
  for (const keys of hand.keys) held.push(...(await hand.take(keys, byHand.name, 1, CLAIMANT)).grants)
  const rest: Grant[] = []
  for (const keys of hand.keys) rest.push(...(await hand.take(keys, byHand.name, 1_000, CLAIMANT)).grants)
  await Promise.all(rest.map((grant) => hand.complete(grant, '1')))
  await hand.enqueueMany()
  await ops.drain(byHand.name)
  for (const id of await hand.enqueueMany({ ttlMs: HOUR, retentionMs: 2 * HOUR })) await hand.overdue({ id })
  await hand.reap(HOUR)
  for (const grant of held) await hand.complete(grant, '1')
}

/** A rate key that is used up in its partition; and a reader that dies before its claim. */
const holdUp = async (hand: Hands, { ops, worker }: Processes): Promise<string[]> => {
  const [first = '', ...more] = Array.from({ length: 32 }, (_, i) => `slow-${i}`)
  const keys = hand.keysFor(first)
  const second = more.find((id) => hand.keysFor(id) === keys) ?? ''
  const rates = { rate: { max: 50, perMs: HOUR }, ratePerKey: { max: 1, perMs: HOUR } }
  await hand.enqueue({ id: first, rateKey: 'slow' })
  await hand.complete(await hand.next(rates), '1')
  await hand.enqueue({ id: second, rateKey: 'slow' })
  await hand.take(keys, byHand.name, 1, { ...CLAIMANT, ...rates })
  await ops.explain(second)
  await ops.reschedule(second, { delayMs: 0 })
  const about: Omit<WorkerAbout, 'id'> = {
    ...{ host: 'here', pid: 1, node: 'v24', name: byHand.name, concurrency: 1, startedAt: 0, toldAt: 0 },
    ...{ loopLagMaxMs: 0, loopLagP99Ms: 0, running: [], runningCount: 0 },
  }
  await hand.present(CLAIMANT.worker, HOUR, JSON.stringify(about))
  const read = ['XREADGROUP', 'GROUP', 'workers', 'gone', 'STREAMS', keys.work(byHand.name), '>'] as const
  await worker.link.once(read, 5_000)
  await ops.explain(second)
  await hand.reap()
  const place = String(await worker.link.call('HMGET', keys.job(second), 'place'))
  const grant = await hand.claim(second, place, CLAIMANT)
  if (grant.ok) await hand.complete(grant, '1')
  return [first, second]
}

/** Where the server can't say so much, the job is there all the same, or was not enqueued. */
const askForMore = async ({ producer }: Processes): Promise<void> => {
  for (const ack of ['replica', 'fsync'] as const)
    try {
      await producer.enqueue(byHand, 1, { ack })
    } catch (error) {
      if (!isStateError(error, 'NOT_REPLICATED', 'ACK_UNSUPPORTED')) throw error
    }
}

/** What an operator does. */
const operate = async ({ ops }: Processes, [sent = '']: string[]): Promise<void> => {
  for (const state of ['SCHEDULED', 'QUEUED', 'COMPLETED', 'PROCESSING'] as const) await ops.list({ state })
  await ops.list({ tag: 'red' })
  await ops.list({ owner: 'ann' })
  await ops.counts()
  await ops.counts({ tag: 'red' })
  await ops.queues()
  await ops.workers()
  await ops.attempts(sent)
  await ops.pause(mail.name)
  const { id } = await ops.enqueue(mail, { to: 'c' }, { tags: ['red'], ttlMs: HOUR })
  await ops.explain(id)
  await ops.resume(mail.name)
  await ops.explain(id)
  await ops.reschedule(id, { delayMs: HOUR })
  await ops.explain(id)
  await ops.reschedule(id, { delayMs: 0 })
  await ops.cancel(id)
  await ops.rerun(id)
  await ops.drain(mail.name)
  await ops.wait(id)
  await ops.payload(id)
  await ops.explain(id)
  await ops.remove(id)
  const keyed = { key: 'two', tags: ['red'], delayMs: HOUR }
  for (const _ of [1, 2]) await ops.enqueue(mail, { to: 'd' }, keyed)
  await ops.drain()
  await ops.pause()
  await ops.resume()
  await ops.pause('nobody')
}

/** A gateway hears what is revoked, and follows one job: first the channel, then what is stored. */
const watch = async (hand: Hands, { gateway, ops }: Processes, processing: Grant): Promise<void> => {
  const { id } = processing
  const keys = hand.keysFor(id)
  const first = hand.keys[0] as typeof keys
  await readLive(gateway.link, keys, [{ id }])
  await readWhetherLast(gateway.link, keys, [{ id, cursor: '1-1' }])
  const heard: string[] = []
  const { link } = gateway
  const probed: unknown[] = []
  const probe: Probe = {
    channels: gateway.transitions.keys.map((each) => each.probe('busy')),
    publish: async (channel, text) => {
      probed.push(await link.batch([[link.publish, channel, text], ['TIME']]))
      return 0
    },
    onRefused: (error) => probed.push(error),
  }
  const hears = {
    onMessage: (_: string, message: string) => heard.push(message),
    onRecovered: () => undefined,
  }
  const subscriber = new Subscriber(gateway.options, hears, probe)
  await subscriber.subscribe(keys.events(id))
  await subscriber.subscribe(first.revoked)
  await until(() => subscriber.alive)
  await ops.revoke({ subject: 'ann' })
  await readRevocations(gateway.link, first)
  await readLive(gateway.link, keys, [{ id, after: { cursor: '0-0', count: 100 } }])
  await hand.progress(processing, 1, '1')
  await until(() => heard.length === 2, { what: 'the revocation and the event on their channels' })
  await until(() => probed.length > 0, { what: 'a probe' })
  if (probed[0] instanceof Error) throw probed[0]
  await subscriber.subscribe(keys.tagStates('red'))
  await gateway.counts({ tag: 'red' })
  subscriber.unsubscribe(keys.events(id))
  subscriber.close()
}

/** The name of a worker that has gone is forgotten at the end of one sweep in 64. */
const forgetWorker = async ({ reaper }: Processes, admin: RedisLink): Promise<void> => {
  const keys = reaper.transitions.keysFor('mine')
  const work = keys.work('mail')
  await admin.call('XGROUP', 'CREATECONSUMER', work, 'workers', 'left-long-ago')
  const step = { cursor: '0-0', count: 100, minIdleMs: 0, maxGapMs: HOUR, amnesty: false }
  await until(
    async () => {
      for (let n = 0; n < 50; n++) await reaper.transitions.reap(keys, 'mail', step)
      const names = (await admin.call('XINFO', 'CONSUMERS', work, 'workers')) as string[][]
      return names.every(([, name]) => name !== 'left-long-ago')
    },
    { what: 'the end of a name' },
  )
}

/** A running job loses its work entry and is to vanish, a waiting one loses its hash: once for each who may mend that. */
const repair = async (hand: Hands, { reaper, ops }: Processes, admin: RedisLink): Promise<void> => {
  for (const mender of [reaper, ops]) {
    await hand.enqueue()
    const { id } = await hand.next()
    const keys = hand.keysFor(id)
    const place = String(await admin.call('HGET', keys.job(id), 'place'))
    await admin.call('XACK', keys.work(byHand.name), 'workers', place)
    await admin.call('PEXPIRE', keys.job(id), HOUR)
    const lost = await hand.enqueue()
    await admin.call('DEL', hand.keysFor(lost).job(lost))
    const { damages } = await examine(mender, { fix: true })
    for (const code of ['not_held', 'would_vanish', 'stream_without_hash'])
      if (!damages.some((damage) => damage.code === code && damage.outcome === 'mended'))
        throw new Error(`${code} was not mended: ${JSON.stringify(damages)}`)
    await ops.drain(byHand.name)
  }
}

export const busyDay = async (as: Processes, admin: RedisLink): Promise<Left> => {
  const hand = handsOf(as, admin)
  const ended = await workADay(as)
  ended.push(...(await endEachWay(hand, as)))
  await endMany(hand, as)
  ended.push(...(await holdUp(hand, as)))
  // Each who puts a job into a queue may be the first to do so.
  await as.producer.enqueue(defineJob({ name: 'begun-by-reaper' }), 1, { id: 'promoted', delayMs: 1 })
  await hand.reapUntil('promoted', 'QUEUED')
  await forgetWorker(as, admin)
  await as.ops.enqueue(defineJob({ name: 'begun-by-ops' }), 1)
  await askForMore(as)
  await operate(as, ended)
  await as.reaper.counts()
  await as.reaper.queues()
  await repair(hand, as, admin)
  const scheduled = await hand.enqueue({ delayMs: HOUR, tags: ['red'] })
  await hand.enqueue({ timeoutMs: HOUR })
  const processing = await hand.next()
  await hand.age(processing)
  await hand.heartbeat(processing)
  await hand.checkpoint(processing, '1')
  await as.ops.explain(processing.id)
  await hand.reap()
  await watch(hand, as, processing)
  const queued = await hand.enqueue({ ttlMs: HOUR, tags: ['red'] })
  return { scheduled, queued, processing: processing.id, ended }
}
