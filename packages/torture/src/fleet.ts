// The fleet: Redis, and processes of every kind around it, each behind a link of its own.
import { randomBytes } from 'node:crypto'
import { appendFileSync } from 'node:fs'
import { join } from 'node:path'
import { freePort } from '@jobs/provision'
import { isStateError, Jobs } from '@jobs/state'
import { until } from '@jobs/testkit'
import { INTERVAL_MS, KEEPER_LEASE_MS, LEASE_MS, type Payload, RETENTION_MS, tortureJob } from './job.ts'
import { type Death, Member, type MemberOptions } from './member.ts'
import { type Network, startNetwork } from './network.ts'
import type { Plan } from './plan.ts'
import type { Store } from './store.ts'

export const WORKERS = ['worker-1', 'worker-2', 'worker-3'] as const
export const REAPERS = ['reaper-1', 'reaper-2'] as const
export const GATEWAYS = ['gateway-1', 'gateway-2'] as const
export const ENQUEUERS = ['enqueuer-1', 'enqueuer-2'] as const
export const WATCHERS = ['watcher-1', 'watcher-2'] as const
/** Never ended, so that what they hold can be judged over the whole run; frozen and cut off they are. */
export const SPARED: readonly string[] = ['gateway-2', 'reaper-2']

/** Jobs that last as long as the run, at the head of the list that sweeps go through. */
const SLEEPERS = 30
const NAMESPACE = 'torture'

const MAINS = {
  worker: 'packages/torture/src/member/worker.ts',
  keeper: 'packages/torture/src/member/worker.ts',
  enqueuer: 'packages/torture/src/member/enqueuer.ts',
  watcher: 'packages/torture/src/member/watcher.ts',
  reaper: 'apps/reaper/src/main.ts',
  gateway: 'apps/gateway/src/main.ts',
} as const

export interface Fleet {
  readonly store: Store
  /** Straight to Redis, past every link. */
  readonly jobs: Jobs
  readonly network: Network
  readonly members: ReadonlyMap<string, Member>
  /** Jobs whose enqueue was confirmed, since the window began. */
  readonly accepted: Set<string>
  readonly sleepers: ReadonlySet<string>
  /** Of partitions whose master was killed since the window began, when its replica stood in: what it lacks is gone. */
  readonly bereftUntil: Map<number, number>
  readonly deaths: Death[]
  member(name: string): Member
  /** Backends enqueue. */
  go(): void
  /** Enqueues a job that kills whoever runs it. */
  poison(): Promise<void>
  /** Every fault is undone, and every process runs. */
  heal(): Promise<void>
  /** No backend enqueues any more. */
  rest(): Promise<void>
  /** Whoever sleeps ends. */
  wake(): void
  stop(): Promise<void>
}

export const startFleet = async (
  plan: Plan,
  store: Store,
  folder: string,
  violation: (check: number, says: string) => void,
): Promise<Fleet> => {
  const network = startNetwork()
  const { redis, partitions } = store
  // What a master alone has accepted may go with it.
  const ack = redis ? 'memory' : 'replica'
  const jobs = new Jobs({ url: store.url, namespace: NAMESPACE, partitions, ack, deadlineMs: 20_000 })
  const accepted = new Set<string>()
  const deaths: Death[] = []
  const members = new Map<string, Member>()
  let going = false
  let poisoned = false

  const accept = (id: string) => {
    accepted.add(id)
    // Each is followed by one process, now and then by both.
    const n = accepted.size
    for (const [i, name] of WATCHERS.entries())
      if (n % WATCHERS.length === i || n % 7 === 0) members.get(name)?.say(`watch ${id}`)
  }
  const gatewayPorts = new Map<string, number>()
  const linked = async (name: string) =>
    redis ? `redis://127.0.0.1:${await network.link(name, redis.port)}` : store.url
  const common = async (name: string) => ({
    REDIS_URL: await linked(name),
    JOBS_NAMESPACE: NAMESPACE,
    JOBS_PARTITIONS: String(partitions),
    TORTURE_MUTANT: plan.mutant ?? '',
  })
  const add = (options: Pick<MemberOptions, 'name' | 'kind' | 'env' | 'ready'> & Partial<MemberOptions>) => {
    members.set(
      options.name,
      new Member({
        main: MAINS[options.kind],
        folder,
        onDeath: (death) => {
          deaths.push(death)
          appendFileSync(join(folder, 'deaths.jsonl'), `${JSON.stringify(death)}\n`)
        },
        poisoned: () => poisoned,
        violation: (says) => violation(4, says),
        ...options,
      }),
    )
  }
  const notes = (name: string) => join(folder, `${name}.jsonl`)

  for (const name of [...WORKERS, 'keeper'] as const) {
    const kind = name === 'keeper' ? 'keeper' : 'worker'
    const env = await common(name)
    add({
      name,
      kind,
      ready: 'ready',
      env: (incarnation, n) => ({
        ...env,
        NAME: incarnation,
        NOTES: notes(name),
        CONCURRENCY: kind === 'keeper' ? String(SLEEPERS) : '8',
        LEASE_MS: String(kind === 'keeper' ? KEEPER_LEASE_MS : LEASE_MS),
        // Every other incarnation is of the release that is deployed next.
        TORTURE_LATER: kind === 'worker' && n % 2 === 0 ? 'yes' : '',
      }),
    })
  }
  for (const name of REAPERS) {
    const env = await common(name)
    add({
      name,
      kind: 'reaper',
      ready: '"msg":"listening"',
      env: (_, n) => ({
        ...env,
        REAPER_OPS_PORT: '0',
        REAPER_INTERVAL_MS: String(INTERVAL_MS),
        TORTURE_LATER: n % 2 === 0 ? 'yes' : '',
      }),
      onLine: (line) => {
        const damage = damageIn(line)
        if (damage) violation(4, `${name} had to mend: ${damage}`)
      },
    })
  }
  for (const name of GATEWAYS) {
    const env = await common(name)
    // The same at each start, since clients come back to it.
    const port = await freePort()
    gatewayPorts.set(name, await network.link(clientsOf(name), port))
    add({
      name,
      kind: 'gateway',
      ready: '"msg":"listening"',
      env: () => ({ ...env, GATEWAY_PORT: String(port), GATEWAY_OPS_PORT: '0' }),
    })
  }
  for (const [i, name] of ENQUEUERS.entries()) {
    const env = await common(name)
    add({
      name,
      kind: 'enqueuer',
      ready: 'ready',
      env: (incarnation, n) => ({
        ...env,
        NAME: incarnation,
        NOTES: notes(name),
        SEED: String(plan.seed * 1_000 + i * 100 + n),
        ACK: ack,
        GOING: going ? 'yes' : '',
      }),
      onLine: (line) => {
        if (line.startsWith('accepted ')) accept(line.slice('accepted '.length))
      },
    })
  }
  for (const [i, name] of WATCHERS.entries())
    add({
      name,
      kind: 'watcher',
      ready: 'ready',
      env: (incarnation) => ({
        NAME: incarnation,
        NOTES: notes(name),
        SEED: String(plan.seed * 1_000 + 500 + i),
        GATEWAYS: JSON.stringify([...gatewayPorts.values()]),
      }),
      onLine: (line) => {
        if (line.startsWith('violation ')) violation(3, `${name}: ${line.slice('violation '.length)}`)
      },
    })

  const member = (name: string): Member => {
    const known = members.get(name)
    if (!known) throw new Error(`There is no process ${name}.`)
    return known
  }
  const enqueue = async (payload: Payload, options: object): Promise<string> =>
    (await jobs.enqueue(tortureJob, payload, { retentionMs: RETENTION_MS, ...options })).id

  // The sleepers are taken before anybody else is there.
  const payload: Payload = { deed: 'sleep', steps: 0, stepMs: 0, deaf: false, logs: false }
  await member('keeper').start()
  const sleepers = new Set<string>()
  for (let n = 0; n < SLEEPERS; n++) sleepers.add(await enqueue(payload, { maxCrashes: 1_000 }))
  await until(async () => (await jobs.counts()).PROCESSING === SLEEPERS, { what: 'the sleepers being held' })
  // A few at a time: each start takes a core for a while.
  for (const names of [GATEWAYS, REAPERS, WATCHERS, WORKERS, ENQUEUERS])
    await Promise.all(names.map((name) => member(name).start()))

  return {
    store,
    jobs,
    network,
    members,
    accepted,
    sleepers,
    bereftUntil: new Map(),
    deaths,
    member,
    go: () => {
      going = true
      poisoned = false
      for (const name of ENQUEUERS) member(name).say('go')
    },
    poison: async () => {
      poisoned = true
      const id = `poison-${randomBytes(6).toString('hex')}`
      const options = { id, maxCrashes: 1 }
      // Another fault may refuse it: memory that is full.
      await until(
        () =>
          enqueue({ ...payload, deed: 'poison' }, options).catch((error) => {
            if (isStateError(error)) return undefined
            throw error
          }),
        { what: 'a poison job being accepted' },
      )
      accept(id)
    },
    heal: async () => {
      network.heal()
      for (const each of members.values()) each.thaw()
      await store.heal()
      await until(
        async () => {
          const down = [...members.values()].filter(({ upSince }) => upSince === undefined)
          await Promise.all(down.map((each) => each.start().catch(() => undefined)))
          return down.length === 0
        },
        { what: 'every process being up', timeoutMs: 60_000 },
      )
    },
    rest: async () => {
      going = false
      await Promise.all(
        ENQUEUERS.map((name) => {
          const token = `rest${accepted.size}-${deaths.length}`
          return member(name).ask(token, (line) => line === `resting ${token}`, 30_000)
        }),
      )
    },
    wake: () => {
      for (const name of ['keeper', ...WORKERS]) member(name).say('wake')
    },
    stop: async () => {
      for (const names of [ENQUEUERS, [...WORKERS, 'keeper'], REAPERS, WATCHERS, GATEWAYS])
        await Promise.all(names.map((name) => member(name).stop()))
      await jobs.close()
      await network.close()
    },
  }
}

/**
 * What a reaper's line tells of damage that it has found, or undefined. No fault corrupts a key, and what a master that was
 * lost lacks is whole moves, since a script is replicated as one: damage is a bug, which its repair would hide.
 */
export const damageIn = (line: string): string | undefined => {
  if (!line.includes('"found damage"')) return undefined
  const { code, partition, about, says, outcome, msg } = JSON.parse(line) as Record<string, unknown>
  return msg === 'found damage'
    ? `${code} of ${about} in partition ${partition}, ${outcome}: ${says}`
    : undefined
}

/** The name of the link between a gateway and its clients. */
export const clientsOf = (gateway: string): string => `${gateway}-clients`
