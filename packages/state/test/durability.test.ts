// What "accepted" means at each level, measured by the failover that loses most: the replication link stands still, the
// master dies, the replica is promoted.
import { randomBytes } from 'node:crypto'
import { type Ack, defineJob, isStateError, Jobs } from '@jobs/state'
import { type CuttingProxy, startProxy, startTestRedis, type TestRedis, until } from '@jobs/testkit'
import { afterEach, expect, it } from 'vitest'

const definition = defineJob({ name: 'kept' })
const JOBS = 200

let master: TestRedis
let link: CuttingProxy
let replica: TestRedis
const open: Jobs[] = []

const connect = (redis: TestRedis, more: { ack?: Ack; ackReplicas?: number } = {}) => {
  const jobs = new Jobs({ url: redis.url, namespace: 'kept', ...more })
  open.push(jobs)
  return jobs
}

const start = async () => {
  master = await startTestRedis({ args: ['--repl-diskless-sync-delay', '0'] })
  link = await startProxy(master.port)
  replica = await startTestRedis({ args: ['--replicaof', '127.0.0.1', String(link.port)] })
  await until(async () => (await master.client().info('replication')).includes('state=online'), {
    what: 'the replica being in step',
  })
}

afterEach(async () => {
  await Promise.all(open.splice(0).map((jobs) => jobs.close()))
  await replica?.stop()
  await link?.close()
  await master?.stop()
})

/** How many were accepted, and what the others were told. */
const enqueue = async (jobs: Jobs, ack: Ack, count = JOBS) => {
  const accepted: string[] = []
  const refused = new Map<string, string>()
  await Promise.all(
    Array.from({ length: count }, async () => {
      const id = randomBytes(16).toString('base64url')
      try {
        expect((await jobs.enqueue(definition, {}, { id, ack })).ack).toBe(ack)
        accepted.push(id)
      } catch (error) {
        if (!isStateError(error)) throw error
        refused.set(id, error.code)
      }
    }),
  )
  return { accepted, refused }
}

const missing = async (jobs: Jobs, ids: Iterable<string>) => {
  const found = await Promise.all([...ids].map((id) => jobs.get(id)))
  return found.filter((job) => job === null).length
}

it('loses at a failover what was accepted in memory, and nothing that a replica had confirmed', async () => {
  await start()
  const jobs = connect(master)
  const before = await enqueue(jobs, 'replica')
  expect(before.refused.size).toBe(0)
  link.stall(true)
  const memory = await enqueue(jobs, 'memory')
  const wanted = await enqueue(jobs, 'replica')
  expect(new Set(wanted.refused.values())).toEqual(new Set(['NOT_REPLICATED']))
  // They are there all the same, and repeating is the same job.
  expect(await missing(jobs, wanted.refused.keys())).toBe(0)
  await master.kill('SIGKILL')
  await replica.client().replicaof('NO', 'ONE')
  const after = connect(replica)
  const figures = {
    memory: `${await missing(after, memory.accepted)} of ${memory.accepted.length} accepted lost`,
    replica: `${await missing(after, [...before.accepted, ...wanted.accepted])} of ${before.accepted.length + wanted.accepted.length} accepted lost`,
  }
  expect(figures).toEqual({
    memory: `${JOBS} of ${JOBS} accepted lost`,
    replica: `0 of ${JOBS} accepted lost`,
  })
})

it('is not taken in by the first wait of a connection, which answers at once', async () => {
  await start()
  link.stall(true)
  await expect(connect(master, { ack: 'replica' }).enqueue(definition, {})).rejects.toMatchObject({
    code: 'NOT_REPLICATED',
  })
})

it('asks once more when a job is enqueued again, and it stays one job', async () => {
  await start()
  const jobs = connect(master, { ack: 'replica' })
  link.stall(true)
  await expect(jobs.enqueue(definition, {}, { id: 'one' })).rejects.toThrow(/one .*same key/)
  link.stall(false)
  // What was swallowed is gone: the replica asks for the rest on a new connection.
  link.cutAll()
  const again = await until(
    () =>
      jobs.enqueue(definition, {}, { id: 'one' }).catch((error) => {
        if (isStateError(error, 'NOT_REPLICATED')) return null
        throw error
      }),
    { what: 'the replica confirming' },
  )
  expect(again).toMatchObject({ id: 'one', duplicate: true, ack: 'replica' })
})

it('wants as many replicas as it was told', async () => {
  await start()
  await expect(
    connect(master, { ack: 'replica', ackReplicas: 2 }).enqueue(definition, {}),
  ).rejects.toMatchObject({ code: 'NOT_REPLICATED' })
  await connect(master, { ack: 'replica', ackReplicas: 1 }).enqueue(definition, {})
})

it('tells of each job of a batch whether it got as far as it should', async () => {
  await start()
  const jobs = connect(master)
  const batch = () =>
    jobs.enqueueMany(definition, [{ payload: 1 }, { payload: 2, options: { ack: 'replica' } }])
  expect(await batch()).toMatchObject([
    { ok: true, ack: 'memory' },
    { ok: true, ack: 'replica' },
  ])
  link.stall(true)
  expect(await batch()).toMatchObject([
    { ok: true, ack: 'memory' },
    { ok: false, error: { code: 'NOT_REPLICATED' } },
  ])
})

it('keeps other calls going while a replica is waited for', async () => {
  await start()
  const jobs = connect(master)
  link.stall(true)
  const waiting = jobs.enqueue(definition, {}, { ack: 'replica' }).then(
    () => 'accepted',
    (error) => error.code,
  )
  const began = performance.now()
  await jobs.enqueue(definition, {})
  expect(performance.now() - began).toBeLessThan(500)
  expect(await waiting).toBe('NOT_REPLICATED')
})

it('answers for the disk where the server can tell, and refuses before anything is enqueued where it can not', async () => {
  master = await startTestRedis({ appendonly: true })
  const jobs = connect(master, { ack: 'fsync' })
  const known = (await master.client().call('COMMAND', 'INFO', 'WAITAOF')) as unknown[]
  if (known[0]) {
    expect(await jobs.enqueue(definition, {})).toMatchObject({ ack: 'fsync' })
    await master.client().config('SET', 'appendonly', 'no')
  }
  const before = await master.digest()
  await expect(connect(master, { ack: 'fsync' }).enqueue(definition, {})).rejects.toMatchObject({
    code: 'ACK_UNSUPPORTED',
  })
  expect(await master.digest()).toBe(before)
})
