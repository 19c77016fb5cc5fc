// The gateway's settings, from the environment.
import { LIMITS_V1, TIMES_V1 } from '@jobs/protocol'
import { commonConfig, flagSetting, portSetting } from '@jobs/service'
import { z } from 'zod'
import { proxyList } from './address.ts'

const count = (least: number, most: number) => z.coerce.number().int().min(least).max(most)

const LOOPBACK = /^(127(\.\d{1,3}){3}|::1|localhost)$/

export const GatewayConfig = z
  .object({
    ...commonConfig,
    GATEWAY_HOST: z.string().default('127.0.0.1'),
    GATEWAY_PORT: portSetting.default(8_080),
    /** For /livez and /readyz; on the host of GATEWAY_OPS_HOST. */
    GATEWAY_OPS_PORT: portSetting.default(9_101),
    GATEWAY_OPS_HOST: z.string().default('127.0.0.1'),
    /**
     * Milliseconds between two signs of life to every client, told in `welcome`: below the time after which whatever
     * stands between (proxies, load balancers) cuts a silent connection.
     */
    GATEWAY_HEARTBEAT_MS: z.coerce.number().int().min(1_000).max(300_000).default(TIMES_V1.heartbeat),
    GATEWAY_AUTH: z.enum(['none', 'jwt']).default('none'),
    /** Lets GATEWAY_AUTH=none listen beyond loopback: everybody who reaches the port may then watch every job. */
    GATEWAY_ALLOW_INSECURE: flagSetting,
    /** Sockets in all; fewer where the file descriptors do not suffice. */
    GATEWAY_MAX_CONNECTIONS: count(1, 1_000_000).default(10_000),
    /** Sockets of one client address: a quarter, so that one office fits and one host can't fill the gateway. */
    GATEWAY_MAX_CONNECTIONS_PER_ADDRESS: count(1, 1_000_000).default(2_500),
    /** New sockets a second, twice as many at once: an upgrade costs a tenth of a millisecond, a reconnect a read. */
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
    /** Jobs watched at the same time. */
    GATEWAY_MAX_ROOMS: count(1, 10_000_000).default(100_000),
    /** What each connection is granted, as `welcome` tells it. */
    GATEWAY_MAX_SUBSCRIPTIONS: count(1, 10_000).default(LIMITS_V1.subscriptions),
    GATEWAY_MAX_MESSAGE_BYTES: count(1_024, 1_048_576).default(LIMITS_V1.messageBytes),
    GATEWAY_COMMANDS_PER_SECOND: count(1, 10_000).default(LIMITS_V1.commandsPerSecond),
    GATEWAY_COMMAND_BURST: count(1, 100_000).default(LIMITS_V1.commandBurst),
    GATEWAY_REPLAY_EVENTS: count(1, 1_000).default(LIMITS_V1.replayEvents),
    GATEWAY_REPLAY_BYTES: count(1_024, 16_777_216).default(LIMITS_V1.replayBytes),
    /** Milliseconds that a stop takes at most, from the signal to the exit. */
    GATEWAY_DRAIN_MS: count(0, 600_000).default(20_000),
  })
  .superRefine((config, context) => {
    if (config.GATEWAY_AUTH === 'jwt')
      context.addIssue({
        code: 'custom',
        path: ['GATEWAY_AUTH'],
        message: 'tokens (jwt) are not offered by this release; use none behind a proxy that authenticates',
      })
    if (
      config.GATEWAY_AUTH === 'none' &&
      !LOOPBACK.test(config.GATEWAY_HOST) &&
      !config.GATEWAY_ALLOW_INSECURE
    )
      context.addIssue({
        code: 'custom',
        path: ['GATEWAY_HOST'],
        message:
          'with GATEWAY_AUTH=none the gateway binds to loopback only; set GATEWAY_ALLOW_INSECURE=true to let ' +
          'everybody who reaches it watch every job',
      })
  })
