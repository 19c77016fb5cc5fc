// Where Redis comes from, in this order: REDIS_URL, the PATH, Docker, Debian packages; or the engine that
// JOBS_REDIS_ENGINE names. And starting one of one's own.
import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { request } from 'node:http'
import type { AddressInfo } from 'node:net'
import { connect, createServer } from 'node:net'
import { join } from 'node:path'
import { environmentOf, hasApt, type OnProgress, unpackDebianPackages } from './debian.ts'
import { ENGINES, type Engine, findEngine, versionOf } from './engine.ts'
import { cacheFolder, findProgram } from './path.ts'

export type RedisSource =
  | { kind: 'url'; url: string; described: string }
  | {
      kind: 'binary'
      path: string
      /** Arguments before those of the server: a loader takes the server itself as one. */
      before?: string[]
      env: Record<string, string>
      described: string
    }
  | { kind: 'docker'; image: string; described: string }

export interface FindOptions {
  env?: NodeJS.ProcessEnv
  onProgress?: OnProgress
}

const WAYS = ['url', 'path', 'docker', 'debian'] as const
type Way = (typeof WAYS)[number]

/**
 * Finds or fetches a Redis. `JOBS_REDIS_ENGINE=redis-8|valkey-8` asks for that engine, and for nothing else; without it
 * `JOBS_REDIS_FROM=url|path|docker|debian` allows one way only.
 *
 * @throws Error with code REDIS_NOT_FOUND that names every choice
 */
export const findRedis = async ({
  env = process.env,
  onProgress,
}: FindOptions = {}): Promise<RedisSource> => {
  const engine = env.JOBS_REDIS_ENGINE
  if (engine) {
    if (!ENGINES.includes(engine as Engine))
      throw notFound(`JOBS_REDIS_ENGINE=${engine} is none of ${ENGINES.join(', ')}`)
    return findEngine(engine as Engine, env, onProgress).catch((error: Error) => {
      throw notFound(`JOBS_REDIS_ENGINE=${engine}: ${error.message}`)
    })
  }
  const only = env.JOBS_REDIS_FROM
  if (only && !WAYS.includes(only as Way))
    throw notFound(`JOBS_REDIS_FROM=${only} is none of ${WAYS.join(', ')}`)
  const tried: string[] = []
  for (const way of WAYS) {
    if (only && way !== only) continue
    try {
      const found = await finders[way](env, onProgress)
      if (found) return found
    } catch (error) {
      tried.push((error as Error).message)
    }
  }
  throw notFound(tried.join('; '))
}

const finders: Record<
  Way,
  (env: NodeJS.ProcessEnv, onProgress?: OnProgress) => Promise<RedisSource | undefined>
> = {
  url: async (env) =>
    env.REDIS_URL
      ? {
          kind: 'url',
          url: env.REDIS_URL,
          described: `the Redis at ${hostsOf(env.REDIS_URL)} (REDIS_URL)`,
        }
      : undefined,

  path: async (env) => {
    const path = findProgram('redis-server', env.PATH) ?? findProgram('valkey-server', env.PATH)
    if (!path) return undefined
    return { kind: 'binary', path, env: {}, described: `${await versionOf([path], {})} from the PATH` }
  },

  docker: async (env, onProgress) => {
    if (!(await dockerAnswers(env))) return undefined
    const image = env.JOBS_REDIS_IMAGE || 'redis:8'
    // An engine that can't get the image (no way to a registry) is no way to Redis: the next one is tried.
    const { getContainerRuntimeClient, ImageName } = await import('testcontainers')
    const { image: images } = await getContainerRuntimeClient()
    const name = ImageName.fromString(image)
    if (!(await images.exists(name))) {
      onProgress?.(`pulling the image ${image}`)
      await images.pull(name)
    }
    return { kind: 'docker', image, described: `a container of ${image} (Docker through testcontainers)` }
  },

  debian: async (env, onProgress) => {
    if (!hasApt()) return undefined
    const root = await unpackDebianPackages(['redis-server'], {
      cacheDir: cacheFolder(env),
      ...(onProgress ? { onProgress } : {}),
    })
    const path = join(root, 'usr/bin/redis-server')
    const programEnv = environmentOf(root)
    return {
      kind: 'binary',
      path,
      env: programEnv,
      described: `${await versionOf([path], programEnv)} from Debian packages unpacked into the cache folder`,
    }
  },
}

/** Hosts and ports of the URL, of which a cluster's has several, without user and password. */
const hostsOf = (url: string): string => /^[^/]*\/\/(?:[^@/]*@)?([^/?]*)/.exec(url)?.[1] ?? ''

const notFound = (detail: string) =>
  Object.assign(
    new Error(
      `No Redis was found${detail ? ` (${detail})` : ''}. Choose one: set REDIS_URL to a running one; install ` +
        'redis-server or valkey-server so that it is on the PATH; start Docker; or, on Debian and Ubuntu, let apt-get ' +
        'reach its mirror, and the package is unpacked into the cache folder by itself.',
    ),
    { code: 'REDIS_NOT_FOUND' },
  )

const dockerAnswers = (env: NodeJS.ProcessEnv): Promise<boolean> => {
  const host = env.DOCKER_HOST ?? 'unix:///var/run/docker.sock'
  const socketPath = host.startsWith('unix://') ? host.slice('unix://'.length) : undefined
  if (socketPath && !existsSync(socketPath)) return Promise.resolve(false)
  const target = socketPath
    ? { socketPath }
    : { host: new URL(host).hostname, port: Number(new URL(host).port) }
  return new Promise((resolve) => {
    const ping = request({ ...target, path: '/_ping', timeout: 1_000 }, (response) => {
      response.resume()
      resolve(response.statusCode === 200)
    })
    ping.on('timeout', () => ping.destroy())
    ping.on('error', () => resolve(false))
    ping.end()
  })
}

export interface RunningRedis {
  readonly url: string
  readonly port: number
  readonly source: RedisSource
  /** Only for a child of our own. */
  readonly pid: number | undefined
  /** Whether the process runs; of a Redis that is not a child of ours nothing is known, and it is taken to. */
  readonly running: boolean
  /** Stops in order. For a Redis given by URL: does nothing, it is not ours. */
  stop(): Promise<void>
  /** Sends a signal; resolves at once for SIGSTOP and SIGCONT, else when the process has ended. */
  kill(signal: NodeJS.Signals): Promise<void>
  /** Starts again on the same port with the same data. */
  restart(): Promise<void>
}

export interface StartOptions {
  /** Data folder. */
  dir: string
  /** Whether to keep an append-only file, so that a restart has the data. */
  appendonly?: boolean
  args?: string[]
}

/** @throws Error with the end of the server's output when it does not come up */
export const startRedis = async (source: RedisSource, options: StartOptions): Promise<RunningRedis> => {
  switch (source.kind) {
    case 'url':
      return givenRedis(source)
    case 'docker':
      return startContainer(source, options)
    case 'binary':
      return startBinary(source, options)
  }
}

const givenRedis = (source: Extract<RedisSource, { kind: 'url' }>): RunningRedis => {
  const notOurs = async () => {
    throw new Error('This Redis was given by REDIS_URL: it is not ours to stop or restart.')
  }
  return {
    url: source.url,
    port: Number(/:(\d+)$/.exec(hostsOf(source.url))?.[1] ?? 6379),
    source,
    pid: undefined,
    running: true,
    stop: async () => undefined,
    kill: notOurs,
    restart: notOurs,
  }
}

const serverArgs = ({ appendonly, args = [] }: StartOptions): string[] => [
  '--save',
  '',
  '--appendonly',
  appendonly ? 'yes' : 'no',
  '--enable-debug-command',
  'local',
  ...args,
]

const startBinary = async (
  source: Extract<RedisSource, { kind: 'binary' }>,
  options: StartOptions,
): Promise<RunningRedis> => {
  let child: ChildProcess | undefined
  const killWithUs = () => child?.kill('SIGKILL')
  process.once('exit', killWithUs)

  const start = async (port: number): Promise<void> => {
    let output = ''
    const started = spawn(
      source.path,
      [
        ...(source.before ?? []),
        '--port',
        String(port),
        '--bind',
        '127.0.0.1',
        '--dir',
        options.dir,
        ...serverArgs(options),
      ],
      {
        env: { ...process.env, ...source.env },
        stdio: ['ignore', 'pipe', 'pipe'],
        // Its own process group: a Ctrl-C meant for us must not end it before those that use it.
        detached: true,
      },
    )
    child = started
    const keep = (chunk: Buffer) => {
      output = (output + chunk.toString()).slice(-2_000)
    }
    started.stdout.on('data', keep)
    started.stderr.on('data', keep)
    const failed = new Promise<never>((_, reject) => {
      started.once('error', reject)
      started.once('exit', (code, signal) =>
        reject(
          new Error(
            `Redis ended at its start (${code ?? signal}): ${output.trim().split('\n').slice(-3).join(' | ')}`,
          ),
        ),
      )
    })
    failed.catch(() => undefined)
    await Promise.race([answersPing(port), failed])
  }

  const ended = (which: ChildProcess) =>
    which.exitCode !== null || which.signalCode !== null
      ? Promise.resolve()
      : new Promise<void>((resolve) => which.once('exit', () => resolve()))

  const kill = async (signal: NodeJS.Signals): Promise<void> => {
    if (!child) return
    child.kill(signal)
    if (signal !== 'SIGSTOP' && signal !== 'SIGCONT') await ended(child)
  }

  let port = await freePort()
  for (let tries = 1; ; tries++) {
    try {
      await start(port)
      break
    } catch (error) {
      // Another process took the port between our asking and Redis' binding.
      if (tries === 3 || !(error as Error).message.includes('bind')) throw error
      port = await freePort()
    }
  }
  return {
    url: `redis://127.0.0.1:${port}`,
    port,
    source,
    get pid() {
      return child?.pid
    },
    get running() {
      return child !== undefined && child.exitCode === null && child.signalCode === null
    },
    kill,
    stop: async () => {
      // A frozen server hears SIGTERM only once it goes on.
      child?.kill('SIGCONT')
      await kill('SIGTERM')
      process.off('exit', killWithUs)
    },
    restart: () => start(port),
  }
}

const startContainer = async (
  source: Extract<RedisSource, { kind: 'docker' }>,
  options: StartOptions,
): Promise<RunningRedis> => {
  // Loaded only where it is used: it is slow to start.
  const { GenericContainer } = await import('testcontainers')
  const port = await freePort()
  const container = await new GenericContainer(source.image)
    .withCommand([
      'redis-server',
      '--bind',
      '0.0.0.0',
      '--protected-mode',
      'no',
      ...serverArgs(options).map((arg) => (arg === 'local' ? 'yes' : arg)),
    ])
    .withExposedPorts({ container: 6379, host: port })
    .start()
  const url = `redis://${container.getHost()}:${port}`
  const signal = (name: string) =>
    container.exec(['sh', '-c', `kill -${name} $(pidof redis-server)`]).then(() => undefined)
  await answersPing(port)
  return {
    url,
    port,
    source,
    pid: undefined,
    running: true,
    stop: async () => {
      await container.stop()
    },
    kill: async (name) => {
      if (name === 'SIGSTOP' || name === 'SIGCONT') await signal(name.slice(3))
      else await container.stop({ remove: false, timeout: name === 'SIGKILL' ? 0 : 10_000 })
    },
    restart: async () => {
      await container.restart()
      await answersPing(port)
    },
  }
}

/** Listens for a moment on a port (0: any) and answers its number; rejects when it is taken. */
const probePort = (port: number): Promise<number> =>
  new Promise((resolve, reject) => {
    const server = createServer()
    server.once('error', reject)
    server.listen(port, '127.0.0.1', () => {
      const address = server.address() as AddressInfo
      server.close(() => resolve(address.port))
    })
  })

/** A port that was free a moment ago. */
export const freePort = (): Promise<number> => probePort(0)

export const portIsFree = (port: number): Promise<boolean> =>
  probePort(port).then(
    () => true,
    () => false,
  )

const answersPing = async (port: number): Promise<void> => {
  for (const end = performance.now() + 20_000; ; ) {
    if (await pingOnce(port)) return
    if (performance.now() > end) throw new Error(`Redis on port ${port} did not answer PING within 20 s`)
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}

const pingOnce = (port: number): Promise<boolean> =>
  new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1', () => socket.write('PING\r\n'))
    const done = (answered: boolean) => {
      socket.destroy()
      resolve(answered)
    }
    socket.once('data', (data) => done(data.toString().startsWith('+PONG')))
    socket.once('error', () => done(false))
    socket.setTimeout(1_000, () => done(false))
  })
