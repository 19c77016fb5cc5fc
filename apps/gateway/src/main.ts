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
import { auditTo } from './auth/audit.ts'
import { openToAll, tokenAuth } from './auth/auth.ts'
import { originJudge } from './auth/origin.ts'
import { Revocations } from './auth/revocations.ts'
import { tokenKeyOf } from './auth/token-key.ts'
import { checkArguments, GatewayConfig } from './config.ts'
import { startGateway } from './gateway.ts'
import { Admission, granted, Tally, withinDescriptors } from './limits.ts'
import { gatewayMetrics } from './metrics.ts'
import { Tailer } from './rooms/tailer.ts'
import { rounds } from './sockets/rounds.ts'

/** Milliseconds between two log lines about the same trouble, where each client may be the cause of one. */
const SELDOM_MS = 60_000

const toldAt = new Map<string, number>()
/** Whether it is to be told again. */
const isDue = (what: string): boolean => {
  const now = performance.now()
  if (now - (toldAt.get(what) ?? Number.NEGATIVE_INFINITY) < SELDOM_MS) return false
  toldAt.set(what, now)
  return true
}

await runService('gateway', async () => {
  checkArguments(process.argv.slice(2))
  const config = loadConfig(GatewayConfig, process.env)
  const log = createLogger('gateway', config.LOG_LEVEL)
  const options = {
    url: config.REDIS_URL,
    namespace: config.JOBS_NAMESPACE,
    partitions: config.JOBS_PARTITIONS,
    connectionName: 'jobs-gateway',
  }
  const key = config.GATEWAY_AUTH === 'jwt' ? await tokenKeyOf(config) : undefined
  const probe = new RedisLink(options)
  await waitForRedis(probe, log)
  const guard = await guardServer(probe, {
    allowUnsafe: config.JOBS_ALLOW_UNSAFE_REDIS,
    onFinding: tellFinding(log),
  })
  // The gateway only reads: a namespace without jobs yet has no layout, and that is fine.
  await checkLayout(probe, options.namespace, options.partitions, false)

  const onError = (error: unknown) => log.warn(describe(error), 'trouble with Redis')
  const tailer = new Tailer({
    ...options,
    onTrouble: onError,
    onError,
    onProbeRefused: () =>
      log.warn(
        {
          code: 'NO_PROBE_RIGHT',
          fix: 'give the user its lines of docs/redis-schema.md: &{…}:probe:*, +time and the selector with +publish',
        },
        'Redis refuses probes: a subscription that is silently deaf will not be noticed, only a connection that is',
      ),
  })
  await tailer.connect()
  const audit = auditTo(log)
  const judgeOrigin = originJudge({
    allowed: config.GATEWAY_ORIGINS,
    host: config.GATEWAY_HOST,
    required: config.GATEWAY_REQUIRE_ORIGIN,
    open: key === undefined,
  })
  const revocations = new Revocations(() => tailer.readRevocations())
  if (key) await tailer.follow(revocations)
  const shares = {
    connections: new Tally(config.GATEWAY_MAX_CONNECTIONS_PER_SUBJECT),
    subscriptions: new Tally(config.GATEWAY_MAX_SUBSCRIPTIONS_PER_SUBJECT),
  }
  const common = { judgeOrigin, audit, shares }
  const auth = key
    ? tokenAuth({
        ...common,
        key,
        algorithm: config.GATEWAY_JWT_ALGORITHM as string,
        audience: config.GATEWAY_JWT_AUDIENCE,
        issuer: config.GATEWAY_JWT_ISSUER,
        namespace: options.namespace,
        inQuery: config.GATEWAY_TOKEN_IN_QUERY,
        revocations,
        onFault: (error) => {
          if (isDue('tokens')) log.warn(describe(error), 'tokens cannot be checked; told once a minute')
        },
      })
    : openToAll(common)
  Object.assign(granted, {
    subscriptions: config.GATEWAY_MAX_SUBSCRIPTIONS,
    messageBytes: config.GATEWAY_MAX_MESSAGE_BYTES,
    commandsPerSecond: config.GATEWAY_COMMANDS_PER_SECOND,
    commandBurst: config.GATEWAY_COMMAND_BURST,
    replayEvents: config.GATEWAY_REPLAY_EVENTS,
    replayBytes: config.GATEWAY_REPLAY_BYTES,
  })
  rounds.maxQueuedBytes = config.GATEWAY_MAX_QUEUED_BYTES
  const { short, ...room } = withinDescriptors(config.GATEWAY_MAX_CONNECTIONS)
  if (short)
    log.warn(
      { code: 'FEW_DESCRIPTORS', fix: 'raise the limit of open files (ulimit -n, LimitNOFILE)', ...room },
      `there are not enough file descriptors for ${config.GATEWAY_MAX_CONNECTIONS} connections`,
    )
  const admission = new Admission({
    ...room,
    perAddress: config.GATEWAY_MAX_CONNECTIONS_PER_ADDRESS,
    perSecond: config.GATEWAY_ACCEPTS_PER_SECOND,
    proxies: config.GATEWAY_TRUSTED_PROXIES,
  })
  const gateway = await startGateway(tailer, {
    host: config.GATEWAY_HOST,
    port: config.GATEWAY_PORT,
    reusePort: config.GATEWAY_REUSE_PORT,
    heartbeatMs: config.GATEWAY_HEARTBEAT_MS,
    auth,
    tokenInQuery: config.GATEWAY_TOKEN_IN_QUERY,
    admission,
    maxRooms: config.GATEWAY_MAX_ROOMS,
    drainMs: config.GATEWAY_DRAIN_MS,
    onError,
    onKeptOut: (limit, address) => {
      if (!isDue(limit)) return
      const fix = limit.startsWith('address')
        ? 'if it is a proxy of yours, name it in GATEWAY_TRUSTED_PROXIES'
        : undefined
      log.warn({ limit, address, fix }, 'a limit keeps clients out; told once a minute, counted in /metrics')
    },
    onClosed: (about) => log.debug(about, 'a connection closed'),
  })
  let stopping = false
  const trouble = () => (stopping ? 'this gateway is stopping' : (tailer.unready ?? guard.trouble))
  const ops = await serveOps(
    config.GATEWAY_OPS_HOST,
    config.GATEWAY_OPS_PORT,
    trouble,
    gatewayMetrics({
      sockets: () => admission.sockets,
      handshakes: () => admission.waiting,
      rooms: () => gateway.rooms.size,
      watchers: () => gateway.rooms.watchers,
      queuedBytes: () => gateway.queuedBytes,
      probeAge: () => tailer.probed.ageMs / 1_000,
      probeRoundTrip: () => tailer.probed.roundTripMs / 1_000,
      ready: () => trouble() === null,
    }),
  )
  log.info(
    { host: config.GATEWAY_HOST, port: gateway.port, opsPort: ops.port, namespace: options.namespace },
    'listening',
  )

  return {
    log,
    service: {
      stopWithinMs: config.GATEWAY_DRAIN_MS + 500,
      stop: async () => {
        stopping = true
        await gateway.drain()
        await ops.close()
        guard.stop()
        await probe.close()
        await tailer.close()
      },
    },
  }
})
