// The gateway's settings, from the environment.

import { parseArgs } from 'node:util'
import { LIMITS_V1, TIMES_V1 } from '@jobs/protocol'
import { ConfigError, commonConfig, flagSetting, HelpAsked, portSetting, settingsOf } from '@jobs/service'
import { TOKEN_ALGORITHMS, TOKEN_AUDIENCE, type TokenAlgorithm } from '@jobs/state'
import { z } from 'zod'
import { isLoopback, originOf } from './auth/origin.ts'
import { proxyList } from './http/address.ts'

const count = (least: number, most: number) => z.coerce.number().int().min(least).max(most)

const tokenSettings = {
  /** The only algorithm that is accepted, whatever a token says. */
  GATEWAY_JWT_ALGORITHM: z.enum(TOKEN_ALGORITHMS).optional(),
  GATEWAY_JWT_SECRET: z.string().optional(),
  GATEWAY_JWT_SECRET_FILE: z.string().optional(),
  /** PEM, a JWK, or a JWK set. */
  GATEWAY_JWT_PUBLIC_KEY_FILE: z.string().optional(),
  GATEWAY_JWT_JWKS_URL: z
    .url({ protocol: /^https?$/ })
    .refine((url) => url.startsWith('https:') || isLoopback(new URL(url).hostname), 'use https')
    .optional(),
  GATEWAY_JWT_AUDIENCE: z.string().default(TOKEN_AUDIENCE),
  GATEWAY_JWT_ISSUER: z.string().optional(),
  /** Lets a token stand in the URL, as `token=…`, for clients that can send it no other way: logs on its way keep it. */
  GATEWAY_TOKEN_IN_QUERY: flagSetting,
}

const originList = z
  .string()
  .default('')
  .transform((text, context) => {
    const given = text.split(',').flatMap((each) => each.trim() || [])
    return given.flatMap((each) => {
      const origin = originOf(each)
      if (origin) return [origin]
      context.addIssue({
        code: 'custom',
        message: 'give origins like https://app.example, http://localhost:8000',
      })
      return []
    })
  })

/** Where the key comes from, by algorithm. */
const SECRETS = ['GATEWAY_JWT_SECRET', 'GATEWAY_JWT_SECRET_FILE'] as const
const PUBLIC_KEYS = ['GATEWAY_JWT_PUBLIC_KEY_FILE', 'GATEWAY_JWT_JWKS_URL'] as const

interface TokenSettings {
  GATEWAY_AUTH: 'none' | 'jwt'
  GATEWAY_JWT_ALGORITHM?: TokenAlgorithm | undefined
  GATEWAY_JWT_SECRET?: string | undefined
  GATEWAY_JWT_SECRET_FILE?: string | undefined
  GATEWAY_JWT_PUBLIC_KEY_FILE?: string | undefined
  GATEWAY_JWT_JWKS_URL?: string | undefined
}

/** What is missing, or too much, for tokens to be checked. */
const faultsOf = (config: TokenSettings): [name: string, fault: string][] => {
  const given = [...SECRETS, ...PUBLIC_KEYS].filter((name) => config[name] !== undefined)
  if (config.GATEWAY_AUTH === 'none') {
    const name = config.GATEWAY_JWT_ALGORITHM ? 'GATEWAY_JWT_ALGORITHM' : given[0]
    return name ? [['GATEWAY_AUTH', `${name} is set, and nobody is asked for a token: say jwt`]] : []
  }
  const algorithm = config.GATEWAY_JWT_ALGORITHM
  if (!algorithm)
    return [['GATEWAY_JWT_ALGORITHM', `say which one is accepted: ${TOKEN_ALGORITHMS.join(', ')}`]]
  const fitting: readonly string[] = algorithm === 'HS256' ? SECRETS : PUBLIC_KEYS
  const faults = given
    .filter((name) => !fitting.includes(name))
    .map((name): [string, string] => [name, `is no key for ${algorithm}; set ${fitting.join(' or ')}`])
  if (faults.length > 0) return faults
  if (given.length !== 1)
    return [[fitting[0] as string, `for ${algorithm} set ${fitting.join(' or ')}, one of them`]]
  return []
}

export const GatewayConfig = z
  .object({
    ...commonConfig,
    GATEWAY_HOST: z.string().default('127.0.0.1'),
    GATEWAY_PORT: portSetting.default(8_080),
    /** Several gateways of one host listen to the same port; the system spreads connections over them (Linux). */
    GATEWAY_REUSE_PORT: flagSetting,
    /** For /livez, /readyz and /metrics; on the host of GATEWAY_OPS_HOST. */
    GATEWAY_OPS_PORT: portSetting.default(9_101),
    GATEWAY_OPS_HOST: z.string().default('127.0.0.1'),
    /**
     * Milliseconds between two signs of life to every client, told in `welcome`: below the time after which whatever
     * stands between (proxies, load balancers) cuts a silent connection.
     */
    GATEWAY_HEARTBEAT_MS: z.coerce.number().int().min(1_000).max(300_000).default(TIMES_V1.heartbeat),
    GATEWAY_AUTH: z.enum(['none', 'jwt']).default('none'),
    ...tokenSettings,
    /** Pages that may connect, by origin. Empty: those of this machine, where it listens to this machine only. */
    GATEWAY_ORIGINS: originList,
    /** Takes pages only: what sends no Origin, which is every client but a browser, is refused. */
    GATEWAY_REQUIRE_ORIGIN: flagSetting,
    /** Lets GATEWAY_AUTH=none listen beyond loopback: everybody who reaches the port may then watch every job. */
    GATEWAY_ALLOW_INSECURE: flagSetting,
    /** Sockets in all; fewer where the file descriptors do not suffice. */
    GATEWAY_MAX_CONNECTIONS: count(1, 1_000_000).default(10_000),
    /** Sockets of one client address: a quarter, so that one office fits and one host can't fill the gateway. */
    GATEWAY_MAX_CONNECTIONS_PER_ADDRESS: count(1, 1_000_000).default(2_500),
    /** Sockets and event streams of one token's subject: a user with some tabs, not a user who opens them in a loop. */
    GATEWAY_MAX_CONNECTIONS_PER_SUBJECT: count(1, 1_000_000).default(100),
    /** Jobs and tags that all sockets of one subject watch. */
    GATEWAY_MAX_SUBSCRIPTIONS_PER_SUBJECT: count(1, 10_000_000).default(2_000),
    /** New sockets a second, twice as many at once: a socket that comes and goes takes up to a millisecond of CPU. */
    GATEWAY_ACCEPTS_PER_SECOND: count(1, 100_000).default(1_000),
    /** Addresses and networks whose X-Forwarded-For is believed. */
    GATEWAY_TRUSTED_PROXIES: z
      .string()
      .default('')
      .transform((text, context) => {
        try {
          return proxyList(text)
        } catch (error) {
          context.addIssue({ code: 'custom', message: (error as Error).message })
          return z.NEVER
        }
      }),
    /** Jobs and tags watched at the same time. */
    GATEWAY_MAX_ROOMS: count(1, 10_000_000).default(100_000),
    /** What each connection is granted, as `welcome` tells it. */
    GATEWAY_MAX_SUBSCRIPTIONS: count(1, 10_000).default(LIMITS_V1.subscriptions),
    GATEWAY_MAX_MESSAGE_BYTES: count(1_024, 1_048_576).default(LIMITS_V1.messageBytes),
    GATEWAY_COMMANDS_PER_SECOND: count(1, 10_000).default(LIMITS_V1.commandsPerSecond),
    GATEWAY_COMMAND_BURST: count(1, 100_000).default(LIMITS_V1.commandBurst),
    GATEWAY_REPLAY_EVENTS: count(1, 1_000).default(LIMITS_V1.replayEvents),
    GATEWAY_REPLAY_BYTES: count(1_024, 16_777_216).default(LIMITS_V1.replayBytes),
    /** Bytes that all sockets together may leave untaken: beyond it those with the most are cut (4203). */
    GATEWAY_MAX_QUEUED_BYTES: count(1_048_576, 1_099_511_627_776).default(268_435_456),
    /** Milliseconds that a stop takes at most, from the signal to the exit. */
    GATEWAY_DRAIN_MS: count(0, 600_000).default(20_000),
  })
  .superRefine((config, context) => {
    for (const [path, message] of faultsOf(config))
      context.addIssue({ code: 'custom', path: [path], message })
    if (config.GATEWAY_AUTH === 'none' && !isLoopback(config.GATEWAY_HOST) && !config.GATEWAY_ALLOW_INSECURE)
      context.addIssue({
        code: 'custom',
        path: ['GATEWAY_HOST'],
        message:
          'with GATEWAY_AUTH=none the gateway binds to loopback only; set GATEWAY_ALLOW_INSECURE=true to let ' +
          'everybody who reaches it watch every job',
      })
  })

/** @throws HelpAsked for --help; ConfigError for any other argument */
export const checkArguments = (args: string[]): void => {
  let help: boolean
  try {
    help = parseArgs({ args, options: { help: { type: 'boolean', default: false } } }).values.help
  } catch (error) {
    throw new ConfigError(`${(error as Error).message} The gateway is set by its environment: see --help.`)
  }
  if (help)
    throw new HelpAsked(
      'The gateway of @jobs: tells browsers and other clients what happens to their jobs.\n' +
        `It is set by its environment, here with what holds unless set:\n${settingsOf(GatewayConfig)}`,
    )
}
