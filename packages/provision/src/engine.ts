// Newer engines than the machine may have, for tests of compatibility: from the PATH when it has that very one, else
// from Debian 13's packages, run by Debian 13's own loader.
import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { commandOf, type OnProgress, unpackDebianPackages } from './debian.ts'
import { cacheFolder, findProgram } from './path.ts'
import type { RedisSource } from './redis.ts'

/** What JOBS_REDIS_ENGINE may name. */
export const ENGINES = ['redis-8', 'valkey-8'] as const
export type Engine = (typeof ENGINES)[number]

const RELEASE = 'trixie'
const PROGRAMS = { 'redis-8': 'redis-server', 'valkey-8': 'valkey-server' } satisfies Record<Engine, string>

/** `Redis 8.0.2`, `Valkey 8.1.1`: what the server says of itself. */
export const versionOf = async (
  [program, ...args]: [string, ...string[]],
  env: Record<string, string>,
): Promise<string> => {
  const { stdout } = await promisify(execFile)(program, [...args, '--version'], {
    env: { ...process.env, ...env },
  })
  const match = /^(\S+) server v=(\S+)/i.exec(stdout)
  return match ? `${match[1]} ${match[2]}` : stdout.trim().slice(0, 60)
}

/** @throws Error with code DEBIAN_UNAVAILABLE */
export const findEngine = async (
  engine: Engine,
  env: NodeJS.ProcessEnv,
  onProgress?: OnProgress,
): Promise<RedisSource> => {
  const [name = '', major = ''] = engine.split('-')
  const installed = findProgram(PROGRAMS[engine], env.PATH)
  const version = installed ? await versionOf([installed], {}) : ''
  if (installed && version.toLowerCase().startsWith(`${name} ${major}.`))
    return { kind: 'binary', path: installed, env: {}, described: `${version} from the PATH` }
  // Both come together: they share nearly all of what they need.
  const root = await unpackDebianPackages(Object.values(PROGRAMS), {
    cacheDir: cacheFolder(env),
    release: RELEASE,
    ...(onProgress ? { onProgress } : {}),
  })
  const [path, ...before] = await commandOf(root, `usr/bin/${PROGRAMS[engine]}`)
  return {
    kind: 'binary',
    path,
    before,
    env: {},
    described: `${await versionOf([path, ...before], {})} from packages of Debian ${RELEASE} in the cache folder`,
  }
}

/** Why an engine can't be had here, for a test to skip by and to tell; undefined when it can. */
export const engineMissing = (engine: Engine, env = process.env): Promise<string | undefined> =>
  findEngine(engine, env).then(
    () => undefined,
    (error: Error) => error.message,
  )
