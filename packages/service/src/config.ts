// Configuration by environment: one zod schema per process, every mistake told at once.
import { z } from 'zod'

/** Port 0 lets the system choose. */
export const portSetting = z.coerce.number().int().min(0).max(65_535)

/** `true` or `false`; false when unset. */
export const flagSetting = z
  .enum(['true', 'false'])
  .default('false')
  .transform((value) => value === 'true')

/** What every process takes. Durations are milliseconds. */
export const commonConfig = {
  REDIS_URL: z
    .string()
    .regex(
      /^rediss?(\+cluster|\+sentinel)?:\/\/\S+$/,
      'give a URL like redis://127.0.0.1:6379, redis+cluster://h1:p1,h2:p2 or redis+sentinel://h1:p1,h2:p2/name',
    )
    .default('redis://127.0.0.1:6379'),
  /** The application whose jobs these are: the first part of every key. */
  JOBS_NAMESPACE: z
    .string()
    .regex(/^[A-Za-z0-9._~-]{1,64}$/, 'use 1 to 64 of A-Z a-z 0-9 . _ ~ -')
    .default('jobs'),
  /** Slices of the namespace; fixed once it has jobs. */
  JOBS_PARTITIONS: z.coerce.number().int().min(1).max(1_024).default(1),
  /** Starts although Redis may lose jobs: it evicts keys, is a replica, is too old. */
  JOBS_ALLOW_UNSAFE_REDIS: flagSetting,
  LOG_LEVEL: z.enum(['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent']).default('info'),
}

export class ConfigError extends Error {
  override name = 'ConfigError'
  readonly code = 'INVALID_CONFIG'
}

/** The settings' names with what they are unless they are set, one a line: for `--help`. */
export const settingsOf = ({ shape }: z.ZodObject): string =>
  Object.entries(shape)
    .map(([name, setting]) => {
      const unset = (setting as z.ZodType).safeParse(undefined)
      const value = unset.success && typeof unset.data !== 'object' ? unset.data : undefined
      return `  ${name}${value === undefined || value === '' ? '' : `=${value}`}\n`
    })
    .join('')

/** Whether DEBUG has ioredis print what it sends: passwords and payloads. */
const printsCommands = (debug = ''): boolean =>
  debug.split(/[\s,]+/).some((pattern) => {
    const fixed = pattern.split('*')[0] as string
    return pattern.includes('*')
      ? 'ioredis:'.startsWith(fixed) || fixed.startsWith('ioredis')
      : fixed.startsWith('ioredis')
  })

/**
 * Reads the settings that `schema` names from the environment; an empty variable counts as unset.
 *
 * @throws ConfigError with one line per wrong variable
 */
export const loadConfig = <T extends z.ZodType>(schema: T, env: NodeJS.ProcessEnv): z.output<T> => {
  const given = Object.fromEntries(Object.entries(env).filter(([, value]) => value !== ''))
  if (given.NODE_ENV === 'production' && printsCommands(given.DEBUG))
    throw new ConfigError(
      'The configuration is wrong:\n  DEBUG: prints what is sent to Redis, passwords too; leave ioredis out in production',
    )
  const parsed = schema.safeParse(given)
  if (parsed.success) return parsed.data
  // The values stay out of the message: a URL may hold a password.
  const lines = parsed.error.issues.map(
    (issue) => `  ${issue.path.join('.') || 'environment'}: ${issue.message}`,
  )
  throw new ConfigError(`The configuration is wrong:\n${lines.join('\n')}`)
}
