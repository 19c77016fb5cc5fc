// The gateway process: turns job streams into WebSocket rooms. Run as many as you like; they share nothing but Redis.
import {
  createLogger,
  describe,
  loadConfig,
  runService,
  serveOps,
  tellFinding,
  waitForRedis,
} from '@jobs/service'
import { checkLayout, guardServer, RedisLink } from '@jobs/state'
import { GatewayConfig } from './config.ts'
import { startGateway } from './gateway.ts'
import { Tailer } from './tailer.ts'

await runService('gateway', async () => {
  const config = loadConfig(GatewayConfig, process.env)
  const log = createLogger('gateway', config.LOG_LEVEL)
  const options = {
    url: config.REDIS_URL,
    namespace: config.JOBS_NAMESPACE,
    partitions: config.JOBS_PARTITIONS,
    connectionName: 'jobs-gateway',
  }
  const probe = new RedisLink(options)
  await waitForRedis(probe, log)
  const guard = await guardServer(probe, {
    allowUnsafe: config.JOBS_ALLOW_UNSAFE_REDIS,
    onFinding: tellFinding(log),
  })
  // The gateway only reads: a namespace without jobs yet has no layout, and that is fine.
  await checkLayout(probe, options.namespace, options.partitions, false)

  const onError = (error: unknown) => log.warn(describe(error), 'trouble with Redis')
  const tailer = new Tailer({ ...options, onTrouble: onError, onError })
  await tailer.connect()
  const gateway = await startGateway(tailer, {
    host: config.GATEWAY_HOST,
    port: config.GATEWAY_PORT,
    heartbeatMs: config.GATEWAY_HEARTBEAT_MS,
    onError,
  })
  const ops = await serveOps(
    config.GATEWAY_OPS_HOST,
    config.GATEWAY_OPS_PORT,
    () => tailer.trouble ?? guard.trouble,
  )
  log.info(
    { host: config.GATEWAY_HOST, port: gateway.port, opsPort: ops.port, namespace: options.namespace },
    'listening',
  )

  return {
    log,
    service: {
      stop: async () => {
        await gateway.drain()
        await ops.close()
        guard.stop()
        await probe.close()
        await tailer.close()
      },
    },
  }
})
