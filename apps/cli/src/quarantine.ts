// `jobs quarantine`: poison jobs with their crash trails, and what to do with them.
import type { Jobs, QuarantineOutcome, QuarantineWhich } from '@jobs/state'
import { EXIT, print, printJson, Refused } from './output.ts'
import { ago } from './render.ts'

export interface Chosen {
  all?: boolean
  name?: string
}

export const listQuarantine = async (
  jobs: Jobs,
  options: { name?: string; limit: number; cursor?: string },
  json: boolean,
): Promise<number> => {
  const page = await jobs.quarantine.list(options)
  for (const { job, crashes } of page.jobs) {
    if (json) {
      printJson({ ...job, crashTrail: crashes })
      continue
    }
    print(`${job.id.padEnd(32)} ${job.name.padEnd(16)} ${job.crashes} crashes  ${ago(job.updatedAt)}`)
    for (const { attempt, worker, host, startedAt, foundAt } of crashes)
      print(
        `  attempt ${String(attempt).padEnd(4)} ${worker.padEnd(32)} ${host ?? '?'}  ` +
          `${new Date(startedAt).toISOString()}, lost after ${Math.round((foundAt - startedAt) / 1_000)} s`,
      )
  }
  if (page.cursor !== null) {
    if (json) printJson({ cursor: page.cursor })
    else print(`More: --cursor ${page.cursor}`)
  } else if (page.jobs.length === 0 && !json) print('No jobs are in quarantine.')
  return EXIT.ok
}

/** Those named, or with --all every one: never all by leaving something out. */
export const chosen = (ids: string[], { all = false, name }: Chosen): QuarantineWhich => {
  const { stderr } = process
  const onProgress = (done: number) => {
    if (stderr.isTTY) stderr.write(`\r\x1b[K${done} done`)
  }
  if (all === ids.length > 0)
    throw new Refused('INVALID_OPTIONS', 'Give the ids of jobs, or --all, not both.', EXIT.usage)
  if (!all && name !== undefined)
    throw new Refused('INVALID_OPTIONS', '--name goes with --all only.', EXIT.usage)
  return all ? { onProgress, ...(name === undefined ? {} : { name }) } : { onProgress, ids }
}

export const told = ({ done, refused }: QuarantineOutcome, did: string, json: boolean): number => {
  if (process.stderr.isTTY) process.stderr.write('\r\x1b[K')
  if (json) printJson({ done, refused })
  else {
    print(`${done} ${did}`)
    for (const id of refused) print(`${id} is not in quarantine`)
  }
  return refused.length > 0 ? EXIT.failed : EXIT.ok
}
