// Where Redis is, from one URL: a single server, a Redis Cluster, or a master that sentinels know.
import type { RedisOptions } from 'ioredis'
import { StateError } from './errors.ts'

export interface Address {
  kind: 'single' | 'cluster' | 'sentinel'
  /** Host and port of the server, of nodes of the cluster, or of sentinels. */
  nodes: { host: string; port: number }[]
  /** The same as text, without user and password: for messages. */
  shown: string
  /** What a connection needs beside host and port. */
  options: RedisOptions
}

const URL_PARTS =
  /^redis(?<tls>s)?(?:\+(?<kind>cluster|sentinel))?:\/\/(?:(?<user>[^:@/]*)(?::(?<password>[^@/]*))?@)?(?<hosts>[^@/?]+)(?:\/(?<path>[^?]*))?(?:\?(?<query>.*))?$/
const HOST = /^(?<host>\[[0-9a-fA-F:.]+\]|[^:[\]\s]+)(?::(?<port>\d{1,5}))?$/

const PORTS = { single: 6_379, cluster: 6_379, sentinel: 26_379 }

const refuse = (why: string): never => {
  throw new StateError(
    'INVALID_OPTIONS',
    `The Redis URL is wrong: ${why}. Give redis://host:port[/db], redis+cluster://host:port,host:port or ` +
      'redis+sentinel://host:port,host:port/master-name[/db]; rediss… for TLS; user:password@ before the hosts.',
  )
}

/**
 * `redis://[user:password@]host:port[/db]` is one server; `redis+cluster://[user:password@]h1:p1,h2:p2` some nodes of a
 * cluster, which name the others; `redis+sentinel://[user:password@]h1:p1,h2:p2/master-name[/db]` sentinels and the name
 * they know the master by, with the sentinels' own password as `?sentinelPassword=…` (and `sentinelUsername`). With
 * `rediss` for `redis` all of these connections are by TLS.
 *
 * @throws StateError INVALID_OPTIONS; what the URL holds is not repeated in it
 */
export const parseAddress = (url: string): Address => {
  const parts = URL_PARTS.exec(url)?.groups ?? refuse('it does not look like one of these')
  const kind = (parts.kind ?? 'single') as Address['kind']
  const nodes = (parts.hosts ?? '').split(',').map((text) => {
    const { host = '', port } = HOST.exec(text)?.groups ?? refuse('a host is not host:port')
    const number = Number(port ?? PORTS[kind])
    if (number < 1 || number > 65_535) refuse('a port is not between 1 and 65535')
    return { host: host.replace(/^\[|\]$/g, ''), port: number }
  })
  const query = new URLSearchParams(parts.query)
  const path = (parts.path ?? '').split('/').filter((part) => part !== '')
  const options: RedisOptions = {
    ...(parts.user ? { username: decoded(parts.user) } : {}),
    ...(parts.password ? { password: decoded(parts.password) } : {}),
    ...(parts.tls ? { tls: {} } : {}),
  }
  const allowed = kind === 'sentinel' ? ['sentinelUsername', 'sentinelPassword'] : []
  for (const name of query.keys()) if (!allowed.includes(name)) refuse(`it has the unknown setting ${name}`)
  if (kind === 'sentinel') {
    const name = path.shift()
    if (name === undefined) return refuse("the master's name is missing")
    options.name = decoded(name)
    options.sentinels = nodes
    if (parts.tls) Object.assign(options, { sentinelTLS: {}, enableTLSForSentinelMode: true })
    for (const setting of ['sentinelUsername', 'sentinelPassword'] as const) {
      const given = query.get(setting)
      if (given) options[setting] = given
    }
  } else if (kind === 'single') {
    const [only, ...more] = nodes
    if (!only || more.length > 0) return refuse('a single server has one host')
    Object.assign(options, only)
  }
  const [db, ...rest] = path
  if (db !== undefined && (!/^\d{1,5}$/.test(db) || rest.length > 0)) refuse('the database is not a number')
  if (db !== undefined && kind === 'cluster' && db !== '0') refuse('a cluster has only database 0')
  if (db !== undefined) options.db = Number(db)
  const shown = nodes.map(({ host, port }) => `${host.includes(':') ? `[${host}]` : host}:${port}`).join(',')
  return { kind, nodes, shown, options }
}

/** Hosts and ports of the URL, without user and password. Throws as `parseAddress`. */
export const addressOf = (url: string): string => parseAddress(url).shown

const decoded = (text: string): string => {
  try {
    return decodeURIComponent(text)
  } catch {
    return refuse('user or password are not percent-encoded')
  }
}
