// The reaper process: finds dead workers and gives their jobs to others. Run as many as you like.
import {
  createLogger,
  describe,
  loadConfig,
  runService,
  serveOps,
  tellFinding,
  waitForRedis,
} from '@jobs/service'
import {
  caretakerOf,
  checkLayout,
  checkRights,
  guardServer,
  isStateError,
  Jobs,
  RedisLink,
  reaperOf,
} from '@jobs/state'
import { isDryRun, ReaperConfig } from './config.ts'
import { dryRun } from './dry-run.ts'
import { startLoop } from './loop.ts'
import { reaperMetrics } from './metrics.ts'

/** Milliseconds between looks for jobs that are due; a time that is known is slept to. */
const PROMOTE_MS = 50
/** Milliseconds between two steps of repair, each of 1 to 2 ms of Redis: a round of a million jobs takes some hours. */
const REPAIR_MS = 200
/** Milliseconds, beside three intervals, without a sweep of one partition, or an end of what is over its time: a failover takes some. */
const UNSWEPT_MS = 5_000
/** After a repair that failed; it is tried again in the next round. */
const REPAIR_AGAIN_MS = 60_000

await runService('reaper', async () => {
  const dry = isDryRun(process.argv.slice(2))
  const config = loadConfig(ReaperConfig, process.env)
  const log = createLogger('reaper', config.LOG_LEVEL)
  const options = {
    url: config.REDIS_URL,
    namespace: config.JOBS_NAMESPACE,
    partitions: config.JOBS_PARTITIONS,
    connectionName: 'jobs-reaper',
  }
  const probe = new RedisLink(options)
  await waitForRedis(probe, log)
  const guard = await guardServer(probe, {
    allowUnsafe: config.JOBS_ALLOW_UNSAFE_REDIS,
    onFinding: tellFinding(log),
  })
  await checkLayout(probe, options.namespace, options.partitions, !dry)

  const jobs = new Jobs({ ...options, onTrouble: (error) => log.warn(describe(error), 'trouble with Redis') })
  const intervalMs = config.REAPER_INTERVAL_MS
  await checkRights(jobs.link, jobs.transitions.keys, 'reaper')
  if (dry) {
    await dryRun(jobs, intervalMs, log)
    process.exit(0)
  }
  const metrics = reaperMetrics(jobs, () => trouble() === null)
  const reaper = reaperOf(jobs, {
    intervalMs,
    onTrouble: (error) => {
      metrics.failed()
      log.warn(describe(error), 'a pass failed in a partition; the next one tries again')
    },
  })
  let inAmnesty = false

  const sweeps = startLoop(
    async () => {
      const from = performance.now()
      const { reaped, amnesty } = await reaper.sweep()
      metrics.swept(reaped, performance.now() - from)
      if (amnesty && !inAmnesty)
        log.info('Redis had been silent: heartbeats get a lease before anyone counts as dead')
      inAmnesty = amnesty
      for (const { id, outcome, detail, says } of reaped) {
        if (outcome === 'error') log.error({ job: id, err: detail }, 'could not recover a job')
        else if (outcome === 'rearmed') log.debug({ job: id, worker: detail }, 'armed a heartbeat anew')
        else log.info({ job: id, outcome, ...(detail ? { worker: detail } : {}) }, says || 'repaired')
      }
      return intervalMs
    },
    (error) => {
      metrics.failed()
      log.warn(describe(error), 'a sweep failed; the next one tries again')
      return intervalMs
    },
  )
  // Beside the sweeps: however many are over their time, the dead are found.
  const expirations = startLoop(
    async () => {
      const { expired, more } = await reaper.expire()
      metrics.expired(expired)
      for (const { id, outcome, says } of expired) {
        if (outcome === 'error') log.error({ job: id, err: says }, 'could not end a job')
        else log.info({ job: id, outcome }, says)
      }
      return more ? 0 : intervalMs
    },
    (error) => {
      metrics.failed()
      log.warn(describe(error), 'ending what is over its time failed; the next pass tries again')
      return intervalMs
    },
  )
  const promotions = startLoop(
    async () => {
      const { promoted, nextInMs } = await reaper.promote()
      metrics.promoted(promoted)
      if (promoted.length > 0) log.debug({ promoted: promoted.length }, 'queued scheduled jobs that were due')
      return Math.min(nextInMs ?? PROMOTE_MS, PROMOTE_MS)
    },
    (error) => {
      metrics.failed()
      log.warn(describe(error), 'a promotion failed; the next one tries again')
      return Math.min(intervalMs, 1_000)
    },
  )
  /** What it is for has been done lately, or why not. */
  const trouble = (): string | null => {
    const ageOf = (succeededAt = Number.NEGATIVE_INFINITY) => performance.now() - succeededAt
    if (ageOf(sweeps.succeededAt) > 3 * intervalMs + 1_000)
      return 'no sweep has succeeded lately: is Redis reachable?'
    const unswept = reaper.unswept(3 * intervalMs + UNSWEPT_MS)
    if (unswept.length > 0)
      return `no sweep has got through the partitions ${unswept.join(', ')} lately: is their server reachable?`
    if (ageOf(expirations.succeededAt) > 3 * intervalMs + UNSWEPT_MS)
      return 'no pass that ends what is over its time has succeeded lately: the log says why'
    if (ageOf(promotions.succeededAt) > 5_000)
      return 'no promotion has succeeded lately: is the memory of Redis full?'
    return guard.trouble
  }

  const caretaker = caretakerOf(jobs)
  const repairs = startLoop(
    async () => {
      const found = await caretaker.step()
      metrics.mended(found)
      for (const { severity: _, ...damage } of found) log.warn(damage, 'found damage')
      return REPAIR_MS
    },
    (error) => {
      if (isStateError(error, 'RIGHTS_MISSING'))
        log.warn({ ...describe(error), code: 'NO_REPAIR_RIGHTS' }, 'nothing broken is mended')
      else {
        metrics.failed()
        log.warn(describe(error), 'a repair failed; the next one goes on behind it')
      }
      return REPAIR_AGAIN_MS
    },
  )

  const ops = await serveOps(config.REAPER_OPS_HOST, config.REAPER_OPS_PORT, trouble, metrics)
  log.info(
    { opsPort: ops.port, redis: jobs.link.address, namespace: jobs.namespace, intervalMs },
    'listening',
  )

  return {
    log,
    service: {
      stop: async () => {
        await Promise.all([sweeps, expirations, promotions, repairs].map((loop) => loop.stop()))
        await ops.close()
        guard.stop()
        await probe.close()
        await jobs.close()
      },
    },
  }
})
