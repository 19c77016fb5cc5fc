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
import { ReaperConfig } from './config.ts'
import { startLoop } from './loop.ts'

/** Milliseconds between looks for due jobs; a scheduled job starts at most this late. */
const PROMOTE_MS = 100
/** Milliseconds between two steps of repair, each of 1 to 2 ms of Redis: a round of a million jobs takes some hours. */
const REPAIR_MS = 200
/** Until what could not be repaired is tried again. */
const REPAIR_AGAIN_MS = 60_000

await runService('reaper', async () => {
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
  await checkLayout(probe, options.namespace, options.partitions, true)

  const jobs = new Jobs({ ...options, onTrouble: (error) => log.warn(describe(error), 'trouble with Redis') })
  const intervalMs = config.REAPER_INTERVAL_MS
  const reaper = reaperOf(jobs, { intervalMs })
  await checkRights(jobs.link, jobs.transitions.keys, 'reaper')
  let inAmnesty = false

  const sweeps = startLoop(
    async () => {
      const { reaped, amnesty } = await reaper.sweep()
      if (amnesty && !inAmnesty)
        log.info('Redis had been silent: heartbeats get a lease before anyone counts as dead')
      inAmnesty = amnesty
      for (const { id, outcome, detail } of reaped) {
        if (outcome === 'error') log.error({ job: id, err: detail }, 'could not recover a job')
        else if (outcome === 'rearmed') log.debug({ job: id, worker: detail }, 'armed a heartbeat anew')
        else log.info({ job: id, outcome, ...(detail ? { worker: detail } : {}) }, 'recovered')
      }
      for (const { id, outcome } of await reaper.expire()) log.info({ job: id, outcome }, 'was over its time')
      return intervalMs
    },
    (error) => {
      log.warn(describe(error), 'a sweep failed; the next one tries again')
      return intervalMs
    },
  )
  const promotions = startLoop(
    async () => {
      const { promoted, nextInMs } = await reaper.promote()
      if (promoted > 0) log.debug({ promoted }, 'queued scheduled jobs that were due')
      return Math.min(nextInMs ?? PROMOTE_MS, PROMOTE_MS)
    },
    (error) => {
      log.warn(describe(error), 'a promotion failed; the next one tries again')
      return intervalMs
    },
  )

  const caretaker = caretakerOf(jobs)
  const repairs = startLoop(
    async () => {
      for (const { severity: _, ...damage } of await caretaker.step()) log.warn(damage, 'found damage')
      return REPAIR_MS
    },
    (error) => {
      if (isStateError(error, 'RIGHTS_MISSING'))
        log.warn({ ...describe(error), code: 'NO_REPAIR_RIGHTS' }, 'nothing broken is mended')
      else log.warn(describe(error), 'a repair failed; a later one tries again')
      return REPAIR_AGAIN_MS
    },
  )

  const ops = await serveOps(config.REAPER_OPS_HOST, config.REAPER_OPS_PORT, () => {
    const age = performance.now() - (sweeps.succeededAt ?? Number.NEGATIVE_INFINITY)
    return age < 3 * intervalMs + 1_000 ? guard.trouble : 'no sweep has succeeded lately: is Redis reachable?'
  })
  log.info(
    { opsPort: ops.port, redis: jobs.link.address, namespace: jobs.namespace, intervalMs },
    'listening',
  )

  return {
    log,
    service: {
      stop: async () => {
        await Promise.all([sweeps.stop(), promotions.stop(), repairs.stop()])
        await ops.close()
        guard.stop()
        await probe.close()
        await jobs.close()
      },
    },
  }
})
