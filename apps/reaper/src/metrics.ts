// What the reaper tells Prometheus. No label has a value of a job: names of queues, states and causes only.
import { readFileSync } from 'node:fs'
import type { Damage, Expired, Jobs, Promoted, Reaped } from '@jobs/state'
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client'

/** Milliseconds that a scrape waits for Redis; then it tells what needs none. */
const LOOK_MS = 1_000

const { version } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8'))

/** Outcomes that mended what Redis held rather than recovering a job. */
const REPAIRS: ReadonlySet<string> = new Set(['rearmed', 'leftover', 'redelivered'])

export const reaperMetrics = (jobs: Jobs, ready: () => boolean) => {
  const registry = new Registry()
  const registers = [registry]
  collectDefaultMetrics({ register: registry })
  const named = (name: string, help: string) => ({ name: `jobs_reaper_${name}`, help, registers })

  new Gauge({
    ...named('build_info', 'Always 1; its labels tell what runs.'),
    labelNames: ['version', 'node'],
  }).set({ version, node: process.version }, 1)
  new Gauge({
    ...named('ready', '1 while /readyz is green.'),
    collect() {
      this.set(Number(ready()))
    },
  })
  const reaped = new Counter({
    ...named(
      'reaped_total',
      'Jobs taken from a worker or out of the queue, by cause and the state they came to.',
    ),
    labelNames: ['cause', 'state'],
  })
  const repairs = new Counter({
    ...named(
      'repairs_total',
      'Heartbeats armed anew, entries delivered again, leftovers swept away, and damage that was mended, by its code.',
    ),
    labelNames: ['kind'],
  })
  const errors = new Counter(
    named(
      'errors_total',
      'Jobs that could not be recovered, damage that can not be mended, and passes and repairs that failed.',
    ),
  )
  const promoted = new Counter(named('promoted_total', 'Scheduled jobs that were due and are queued.'))
  const detection = new Histogram({
    ...named(
      'detection_seconds',
      'From the last that was heard of a worker to the recovery of each of its jobs.',
    ),
    buckets: [0.25, 0.5, 1, 2, 3, 4, 5, 6, 7, 8, 10, 15, 30, 60, 300],
  })
  const late = new Histogram({
    ...named('promotion_late_seconds', 'By how much scheduled jobs were queued after their time.'),
    buckets: [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 30],
  })
  const sweeps = new Histogram({
    ...named('sweep_seconds', 'Duration of a sweep over all queues.'),
    buckets: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5],
  })

  // Both gauges of a scrape come from one look at Redis.
  let looking: ReturnType<typeof look> | undefined
  const look = async () => {
    const [counts, queues] = await Promise.all([jobs.counts(), jobs.queues()])
    const oldest = new Map<string, number>()
    for (const { name, oldestMs } of queues) oldest.set(name, Math.max(oldest.get(name) ?? 0, oldestMs ?? 0))
    return { counts, oldest }
  }
  const looked = () => {
    looking ??= within(LOOK_MS, look()).finally(() => {
      looking = undefined
    })
    return looking.catch(() => undefined)
  }
  new Gauge({
    ...named('jobs', 'Jobs that are kept, by state; missing while Redis can not be asked.'),
    labelNames: ['state'],
    async collect() {
      const seen = await looked()
      this.reset()
      for (const [state, count] of Object.entries(seen?.counts ?? {})) this.set({ state }, count)
    },
  })
  new Gauge({
    ...named(
      'oldest_queued_seconds',
      'How long the job that waits the longest has been waiting, by job name.',
    ),
    labelNames: ['name'],
    async collect() {
      const seen = await looked()
      this.reset()
      for (const [name, ms] of seen?.oldest ?? []) this.set({ name }, ms / 1_000)
    },
  })

  return {
    swept: (results: readonly Reaped[], tookMs: number) => {
      sweeps.observe(tookMs / 1_000)
      for (const { outcome, silentMs } of results) {
        if (outcome === 'error') errors.inc()
        else if (REPAIRS.has(outcome)) repairs.inc({ kind: outcome })
        else reaped.inc({ cause: silentMs === null ? 'forgotten' : 'worker_lost', state: outcome })
        if (silentMs !== null) detection.observe(silentMs / 1_000)
      }
    },
    expired: (results: readonly Expired[]) => {
      for (const { outcome, cause } of results)
        if (outcome === 'error') errors.inc()
        else reaped.inc({ cause, state: outcome })
    },
    promoted: (results: readonly Promoted[]) => {
      promoted.inc(results.length)
      for (const { lateMs } of results) late.observe(lateMs / 1_000)
    },
    mended: (damages: readonly Damage[]) => {
      for (const { outcome, code } of damages)
        if (outcome === 'mended') repairs.inc({ kind: code })
        else errors.inc()
    },
    failed: () => errors.inc(),
    contentType: registry.contentType,
    text: () => registry.metrics(),
  }
}

const within = async <T>(ms: number, answer: Promise<T>): Promise<T> => {
  let timer: NodeJS.Timeout | undefined
  const timeout = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error('too late')), ms)
  })
  try {
    return await Promise.race([answer, timeout])
  } finally {
    clearTimeout(timer)
  }
}
