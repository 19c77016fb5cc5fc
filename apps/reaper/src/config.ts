// The reaper's settings, from the environment, and its one argument.
import { parseArgs } from 'node:util'
import { ConfigError, commonConfig, HelpAsked, portSetting, settingsOf } from '@jobs/service'
import { z } from 'zod'

export const ReaperConfig = z.object({
  ...commonConfig,
  /** Address of the ops port: whether the process is well, and its metrics. */
  REAPER_OPS_HOST: z.string().default('127.0.0.1'),
  REAPER_OPS_PORT: portSetting.default(9_102),
  /** Milliseconds between sweeps. Detection takes a lease plus at most one interval. */
  REAPER_INTERVAL_MS: z.coerce.number().int().min(50).max(60_000).default(1_000),
})
export type ReaperConfig = z.infer<typeof ReaperConfig>

const DRY_RUN = '--dry-run: one pass that says what it would do and writes nothing'

/** @throws HelpAsked for --help; ConfigError when there is any other argument */
export const isDryRun = (args: string[]): boolean => {
  const flag = { type: 'boolean', default: false } as const
  let given: { 'dry-run': boolean; help: boolean }
  try {
    given = parseArgs({ args, options: { 'dry-run': flag, help: flag } }).values
  } catch (error) {
    throw new ConfigError(`${(error as Error).message} The reaper takes only ${DRY_RUN}.`)
  }
  if (given.help)
    throw new HelpAsked(
      'The reaper of @jobs: finds dead workers and gives their jobs to others.\n' +
        `  ${DRY_RUN}\n` +
        `It is set by its environment, here with what holds unless set:\n${settingsOf(ReaperConfig)}`,
    )
  return given['dry-run']
}
