// The gateway's settings, from the environment.
import { TIMES_V1 } from '@jobs/protocol'
import { commonConfig, flagSetting, portSetting } from '@jobs/service'
import { z } from 'zod'

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
