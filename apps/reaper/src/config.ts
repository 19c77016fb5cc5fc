// The reaper's settings, from the environment, and its one argument.
import { parseArgs } from 'node:util'
import { ConfigError, commonConfig, portSetting } from '@jobs/service'
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

/** @throws ConfigError when there is any other argument */
export const isDryRun = (args: string[]): boolean => {
  try {
    return parseArgs({ args, options: { 'dry-run': { type: 'boolean', default: false } } }).values['dry-run']
  } catch (error) {
    throw new ConfigError(
      `${(error as Error).message} The reaper takes only --dry-run: one pass that says what it would do and writes nothing.`,
    )
  }
}
