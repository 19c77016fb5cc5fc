// Judges the server that jobs are to live on, at the start and every hour: what would lose them is an error, what may is
// a warning. Reads INFO and, where the user may, CONFIG; changes nothing.
import { isStateError, StateError } from './errors.ts'
import { fieldsOf } from './record.ts'
import type { RedisLink } from './redis.ts'

export interface Finding {
  /**
   * Errors: `version_too_old`, `evicts_keys`, `is_replica`, `cluster_as_single`. Warnings: `no_persistence`,
   * `persistence_unknown`, `small_stream_nodes`, `small_output_limit`, `info_forbidden`.
   */
  code:
    | 'version_too_old'
    | 'evicts_keys'
    | 'is_replica'
    | 'cluster_as_single'
    | 'no_persistence'
    | 'persistence_unknown'
    | 'small_stream_nodes'
    | 'small_output_limit'
    | 'info_forbidden'
  severity: 'error' | 'warning'
  /** What is so, and what it does to jobs; one sentence for people. */
  says: string
  fix: string
}

/** Before it XAUTOCLAIM may overflow the heap (CVE-2022-31144); it also lacks what sweeps need. */
const OLDEST = [7, 0, 4]

const isOlder = (version: string): boolean => {
  const parts = version.split('.').map(Number)
  for (const [i, oldest] of OLDEST.entries()) {
    const part = parts[i] ?? 0
    if (part !== oldest) return part < oldest
  }
  return false
}

/** Bytes of a stream's node below which jobs take more memory: 1.0 times at 1,024, 2.2 times at 256. */
const SMALL_NODE = 1_024

/** Bytes that a burst of events may wait for a listener at least: below it every burst cuts gateways off. */
const SMALL_OUTPUT = 4 * 1_048_576

/** The hard limit for listeners; 0 for none. */
const outputLimitOf = (config: string | undefined) => Number(/pubsub (\d+)/.exec(config ?? '')?.[1] ?? 0)

/**
 * What INFO and CONFIG GET say against the server; null stands for what the user may not read.
 *
 * @param clustered whether the connection knows of the other nodes
 */
export const findingsOf = (
  info: Record<string, string> | null,
  config: Record<string, string> | null,
  clustered: boolean,
): Finding[] => {
  if (!info)
    return [
      {
        code: 'info_forbidden',
        severity: 'warning',
        says: 'This user may not read INFO, so nothing is known of version, eviction, persistence and role.',
        fix: 'Grant +info.',
      },
    ]
  const findings: Finding[] = []
  const find = (severity: Finding['severity'], code: Finding['code'], says: string, fix: string) =>
    findings.push({ code, severity, says, fix })
  // Valkey tells the version of Redis that it stands for.
  const version = info.redis_version ?? ''
  if (isOlder(version))
    find(
      'error',
      'version_too_old',
      `Redis ${version} is older than ${OLDEST.join('.')}: its streams lack what sweeps need, and XAUTOCLAIM may crash it.`,
      'Use Redis 7.0.4 or later, or Valkey.',
    )
  if (info.role === 'slave')
    find(
      'error',
      'is_replica',
      'This is a replica: it refuses every change, and what it tells may be late.',
      'Connect to the master.',
    )
  if (info.cluster_enabled === '1' && !clustered)
    find(
      'error',
      'cluster_as_single',
      'This is a node of a Redis Cluster, and the connection knows no other: most partitions are elsewhere.',
      'Connect to it as a cluster.',
    )
  const policy = info.maxmemory_policy ?? ''
  if (policy && policy !== 'noeviction')
    find(
      'error',
      'evicts_keys',
      `maxmemory-policy is ${policy}: when memory is full Redis deletes heartbeats, ended jobs or any job, without a word.`,
      'Set maxmemory-policy noeviction; enqueue is then refused when memory is full, and running jobs still end.',
    )
  if (info.aof_enabled !== '1') {
    if (config === null)
      find(
        'warning',
        'persistence_unknown',
        'There is no append-only file, and this user may not read CONFIG: whether snapshots are kept is unknown.',
        'Set appendonly yes.',
      )
    else if (config.save === '')
      find(
        'warning',
        'no_persistence',
        'Neither an append-only file nor snapshots are kept: a restart of Redis loses every job.',
        'Set appendonly yes.',
      )
  }
  const node = Number(config?.['stream-node-max-bytes'] ?? 0)
  if (node > 0 && node < SMALL_NODE)
    find(
      'warning',
      'small_stream_nodes',
      `stream-node-max-bytes is ${node}: each job takes up to twice the memory.`,
      `Leave it at 4096, or set at least ${SMALL_NODE}.`,
    )
  const output = outputLimitOf(config?.['client-output-buffer-limit'])
  if (output > 0 && output < SMALL_OUTPUT)
    find(
      'warning',
      'small_output_limit',
      `client-output-buffer-limit for pubsub is ${output} bytes: a burst of events cuts gateways off, and each reads every stream anew.`,
      'Leave it at 32mb 8mb 60.',
    )
  return findings
}

/** Null where the user may not ask. */
const allowed = async <T>(ask: Promise<T>): Promise<T | null> => {
  try {
    return await ask
  } catch (error) {
    if (isStateError(error, 'REDIS_REFUSED')) return null
    throw error
  }
}

/** What speaks against the server that the link is connected to. @throws StateError REDIS_UNAVAILABLE, REDIS_TIMEOUT */
export const inspectServer = async (link: RedisLink): Promise<Finding[]> => {
  const info = await allowed(link.call('INFO'))
  const config = await allowed(
    link.call('CONFIG', 'GET', 'save', 'stream-node-max-bytes', 'client-output-buffer-limit'),
  )
  return findingsOf(
    info === null ? null : Object.fromEntries([...String(info).matchAll(/^(\w+):(.*?)\r?$/gm)].map(pair)),
    config === null ? null : fieldsOf(config),
    link.publish === 'SPUBLISH',
  )
}

const pair = ([, name = '', value = '']: RegExpExecArray): [string, string] => [name, value]

export interface ServerCheckOptions {
  /** Goes on although there are errors; they are told all the same. */
  allowUnsafe?: boolean | undefined
  /** Told of each finding once. */
  onFinding: (finding: Finding) => void
}

/** Tells what is new, and answers what forbids to go on. */
const judge = async (link: RedisLink, told: Set<string>, options: ServerCheckOptions) => {
  const findings = await inspectServer(link)
  for (const finding of findings)
    if (!told.has(finding.code)) {
      told.add(finding.code)
      options.onFinding(finding)
    }
  const errors = findings.filter(({ severity }) => severity === 'error')
  if (options.allowUnsafe || errors.length === 0) return null
  return errors.map(({ says, fix }) => `${says} ${fix}`).join(' ')
}

const refusal = (link: RedisLink, unsafe: string) =>
  new StateError(
    'UNSAFE_REDIS',
    `The Redis at ${link.address} is not fit for jobs. ${unsafe} (allowUnsafeRedis, or JOBS_ALLOW_UNSAFE_REDIS=true, goes on regardless.)`,
  )

/** Judges the server once. @throws StateError UNSAFE_REDIS */
export const checkServer = async (link: RedisLink, options: ServerCheckOptions): Promise<void> => {
  const unsafe = await judge(link, new Set(), options)
  if (unsafe !== null) throw refusal(link, unsafe)
}

export interface ServerGuard {
  /** Why the server is not fit for jobs (any more), or null. */
  readonly trouble: string | null
  stop(): void
}

/**
 * Judges the server now, and again every `everyMs` (default: an hour): settings change while processes run.
 *
 * @throws StateError UNSAFE_REDIS, at the first time only
 */
export const guardServer = async (
  link: RedisLink,
  { everyMs = 3_600_000, ...options }: ServerCheckOptions & { everyMs?: number },
): Promise<ServerGuard> => {
  const told = new Set<string>()
  let trouble = await judge(link, told, options)
  if (trouble !== null) throw refusal(link, trouble)
  const timer = setInterval(async () => {
    try {
      trouble = await judge(link, told, options)
    } catch (error) {
      // Whether Redis can be reached is another's to tell; the last judgement stands.
      if (!isStateError(error)) throw error
    }
  }, everyMs)
  return {
    get trouble() {
      return trouble
    },
    stop: () => clearInterval(timer),
  }
}
