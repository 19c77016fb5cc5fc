// The reaper's settings, from the environment.
import { commonConfig, portSetting } from '@jobs/service'
import { z } from 'zod'

export const ReaperConfig = z.object({
  ...commonConfig,
  /** Address of the ops port, which tells only whether the process is well. */
  REAPER_OPS_HOST: z.string().default('127.0.0.1'),
  REAPER_OPS_PORT: portSetting.default(9_102),
  /** Milliseconds between sweeps. Detection takes a lease plus at most one interval. */
  REAPER_INTERVAL_MS: z.coerce.number().int().min(50).max(60_000).default(1_000),
})
export type ReaperConfig = z.infer<typeof ReaperConfig>
