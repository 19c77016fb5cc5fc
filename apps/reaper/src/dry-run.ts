// `--dry-run`: one pass that says, a line for each job, what a reaper would do, and writes nothing.
import type { createLogger } from '@jobs/service'
import { type Jobs, reaperOf } from '@jobs/state'

export const dryRun = async (
  jobs: Jobs,
  intervalMs: number,
  log: ReturnType<typeof createLogger>,
): Promise<void> => {
  const reaper = reaperOf(jobs, { intervalMs, dry: true })
  const { promoted } = await reaper.promote()
  for (const { id, lateMs } of promoted)
    log.info({ job: id, move: 'promote', lateMs }, 'would queue a job that is due')
  const { expired } = await reaper.expire()
  for (const { id, outcome, says } of expired) log.info({ job: id, outcome }, `would end: ${says}`)
  const { reaped, amnesty } = await reaper.sweep()
  for (const { id, outcome, detail, says } of reaped)
    log.info(
      { job: id, outcome, ...(detail ? { worker: detail } : {}) },
      says ? `would recover: ${says}` : 'would repair',
    )
  if (amnesty && reaped.length > 0)
    log.info(
      'no reaper has swept lately: the first sweeps would only give these workers a lease to be heard in',
    )
  log.info(
    { promote: promoted.length, expire: expired.length, sweep: reaped.length },
    'dry run: nothing was written',
  )
}
