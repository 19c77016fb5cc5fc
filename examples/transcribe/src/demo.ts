// `pnpm demo`: the whole system on this machine. Redis, gateway, reaper, backend, worker, each a process of its own.
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { findPocketsphinx, findRedis, portIsFree, startRedis, workspaceRoot } from '@jobs/provision'
import { follow } from './follow.ts'
import { type Child, startChild } from './processes.ts'

const HELP = `Usage: pnpm demo [--once] [--port PORT]

Transcribes real recordings with a worker that you can kill, live on a page.

  --once       without a browser: transcribe the samples, kill -9 the worker in the middle, watch through the
               gateway, print one line a job; exit 0 only if every job completed with every event seen exactly once
  --port PORT  the page's port (default: 8000, or any free one when it is taken; 0: any free one)
  --help       this text

Redis comes from REDIS_URL, else the PATH, else Docker, else Debian packages unpacked into .cache.`

/** The page's port, when nobody has it. */
const DEFAULT_PORT = 8_000
/** Milliseconds until a killed worker has a successor: long enough to see that it is gone. */
const RESTART_MS = 1_500

const say = (line: string) => console.log(line)

/** The end of the demo by a signal, from whatever it is waiting for. */
class Interrupted extends Error {}

const main = async (): Promise<number> => {
  const { values } = parseArgs({
    args: process.argv.slice(2).filter((arg) => arg !== '--'),
    options: {
      once: { type: 'boolean', default: false },
      port: { type: 'string' },
      help: { type: 'boolean', default: false },
    },
  })
  if (values.help) {
    say(HELP)
    return 0
  }
  const stops: (() => Promise<unknown>)[] = []
  let interrupt: (reason: Error) => void = () => undefined
  const interrupted = new Promise<never>((_, reject) => {
    interrupt = reject
  })
  interrupted.catch(() => undefined)
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
    process.on(signal, () => interrupt(new Interrupted(signal)))

  try {
    return await Promise.race([interrupted, run(values.once, values.port, stops, interrupt)])
  } catch (error) {
    if (!(error instanceof Interrupted)) throw error
    say('\nStopping …')
    return values.once ? 130 : 0
  } finally {
    for (const stop of stops.reverse()) await stop()
  }
}

const run = async (
  once: boolean,
  port: string | undefined,
  stops: (() => Promise<unknown>)[],
  broken: (reason: Error) => void,
): Promise<number> => {
  const dataDir = await mkdtemp(join(tmpdir(), 'jobs-demo-'))
  stops.push(() => rm(dataDir, { recursive: true, force: true }))

  const onProgress = (line: string) => say(`  … ${line}`)
  const source = await findRedis({ onProgress })
  say(`Redis: ${source.described}`)
  const redis = await startRedis(source, { dir: dataDir, appendonly: true })
  stops.push(() => redis.stop())

  const sphinx = await findPocketsphinx({ onProgress })
  const workload = 'missing' in sphinx ? 'digest' : 'transcribe'
  if ('missing' in sphinx)
    say(`Work:  gzip and SHA-256 of real files, since PocketSphinx can't be had (${sphinx.missing})`)
  else say(`Work:  speech to text, by ${sphinx.described}`)

  const env = {
    REDIS_URL: redis.url,
    // A given Redis may hold other things, and another demo's jobs.
    JOBS_NAMESPACE: source.kind === 'url' ? `demo-${process.pid}` : 'demo',
    JOBS_PARTITIONS: '1',
    GATEWAY_HOST: '127.0.0.1',
    GATEWAY_PORT: '0',
    GATEWAY_OPS_PORT: '0',
    GATEWAY_AUTH: 'none',
    REAPER_OPS_PORT: '0',
    LOG_LEVEL: 'info',
    DATA_DIR: dataDir,
    SAMPLES_DIR: 'missing' in sphinx ? workspaceRoot() : join(sphinx.testdataDir, 'librivox'),
    WORKLOAD: workload,
  }
  const start = (name: string, file: string, more: Record<string, string> = {}): Child => {
    const child = startChild(name, file, { ...env, ...more })
    stops.push(() => child.stop())
    child.onLoss((why) => broken(new Error(why)))
    return child
  }
  const gateway = start('gateway', 'apps/gateway/src/main.ts')
  start('reaper', 'apps/reaper/src/main.ts')
  const gatewayPort = String((await gateway.said('listening')).port)

  let stopping = false
  let worker: Child
  const startWorker = () => {
    worker = startChild('worker', 'examples/transcribe/src/worker.ts', env)
    worker.onLoss(() => {
      if (stopping) return
      say(`The worker (pid ${worker.pid}) is gone; another starts in ${RESTART_MS / 1_000} s`)
      setTimeout(() => {
        if (!stopping) startWorker()
      }, RESTART_MS)
    })
  }
  startWorker()
  stops.push(() => {
    stopping = true
    return worker.stop()
  })
  const killWorker = () => {
    say(`kill -9 ${worker.pid} (the worker)`)
    worker.kill()
  }

  const backend = start('backend', 'examples/transcribe/src/backend.ts', {
    GATEWAY_PORT: gatewayPort,
    BACKEND_PORT: once ? '0' : (port ?? ((await portIsFree(DEFAULT_PORT)) ? String(DEFAULT_PORT) : '0')),
  })
  backend.onMessage((message) => message === 'kill-worker' && killWorker())
  const { port: backendPort } = await backend.said('listening')
  const page = `http://127.0.0.1:${backendPort}/`
  if (once) return transcribeOnce(page, `ws://127.0.0.1:${gatewayPort}/v1/ws`, killWorker)

  say(`\nThe page: ${page}\nCtrl-C stops everything.`)
  return new Promise(() => undefined)
}

const transcribeOnce = async (page: string, gateway: string, killWorker: () => void): Promise<number> => {
  const response = await fetch(`${page}samples`, { method: 'POST' })
  const { jobs } = (await response.json()) as { jobs: { id: string; title: string }[] }
  say(`${jobs.length} jobs\n`)
  let killed = false
  const results = await Promise.all(
    jobs.map(({ id, title }, i) =>
      follow(gateway, id, (item) => {
        // In the middle of the first job, and while it holds more than one.
        if (i !== 0 || killed || item.type !== 'log') return
        killed = true
        killWorker()
      }).then((followed) => {
        const { state, attempts, events, whole, text } = followed
        const sequence = whole ? `seq 1..${events} whole` : 'SEQUENCE BROKEN'
        say(`${state}  ${title}: attempts ${attempts}, events ${events}, ${sequence}: "${text}"`)
        return followed
      }),
    ),
  )
  const good = results.filter(({ state, whole }) => state === 'COMPLETED' && whole).length
  const recovered = results.filter(({ attempts }) => attempts > 1).length
  const fine = good === jobs.length && killed && recovered > 0
  say(
    `\n${good} of ${jobs.length} completed with every event seen exactly once; ${recovered} recovered from the killed worker.`,
  )
  return fine ? 0 : 1
}

try {
  process.exit(await main())
} catch (error) {
  console.error(`demo: ${(error as Error).message}`)
  process.exit(1)
}
