// Every point of a job's life at which something can break: the connection is cut before or after each single command of
// producer and worker, and the worker's process is killed there. Afterwards every invariant holds and the job has ended as
// it was to.
import { randomBytes } from 'node:crypto'
import { isTerminal, Jobs, type Snapshot, type State } from '@jobs/state'
import {
  type CommandPoint,
  type CommandProxy,
  fromSource,
  startCommandProxy,
  startProcess,
  startTestRedis,
  type TestRedis,
} from '@jobs/testkit'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { checkInvariants } from './invariants.ts'
import { LINES, LIVES, type Life, lifeJob, startLifeWorker } from './life.ts'
import { startReaper } from './reaper.ts'

let redis: TestRedis
beforeAll(async () => {
  redis = await startTestRedis()
})
afterAll(() => redis.stop())

const ENDS: Record<Life, State> = {
  complete: 'COMPLETED',
  retry: 'COMPLETED',
  fail: 'FAILED',
  cancel: 'CANCELLED',
  release: 'COMPLETED',
}
/** The move that is the life's own. */
const MOVE_OF: Record<Life, string> = {
  complete: 'complete',
  retry: 'retry',
  fail: 'fail',
  cancel: 'abort',
  release: 'release',
}
const WHEN = ['before', 'after'] as const
/** Commands come in another number each time, since heartbeats do. */
const MORE = 3

interface Point {
  /** The n-th command, or the first that carries the move. */
  at: number | string
  when: (typeof WHEN)[number]
}

interface Trial {
  name: string
  point: Point | null
  proxy: CommandProxy
  /** The command it broke at; undefined when the life was over before. */
  broke: string[] | undefined
}

const startWorld = () => {
  const namespace = `crash${randomBytes(4).toString('hex')}`
  const open: Jobs[] = []
  const connect = (port = redis.port) => {
    const jobs = new Jobs({
      url: `redis://127.0.0.1:${port}`,
      namespace,
      deadlineMs: 20_000,
      commandTimeoutMs: 2_000,
    })
    open.push(jobs)
    return jobs
  }
  return {
    namespace,
    straight: connect(),
    connect,
    close: () => Promise.all(open.map((jobs) => jobs.close())),
  }
}
type World = ReturnType<typeof startWorld>

const trialAt = async (life: Life, point: Point | null): Promise<Trial> => ({
  name: point ? `${life}-${point.at}-${point.when}` : life,
  point,
  proxy: await startCommandProxy(redis.port),
  broke: undefined,
})

const running = (job: Snapshot) => job.state === 'PROCESSING' || isTerminal(job.state)

/** One life through the trial's proxy, from the worker's start to the job's end. */
const live = async ({ straight, connect }: World, life: Life, { name, proxy }: Trial): Promise<void> => {
  const producer = connect(proxy.port)
  const first = await startLifeWorker(connect(proxy.port), name, { straight })
  await producer.enqueue(lifeJob(name), { life }, { id: name, backoff: { delayMs: 0 } })
  let last = first
  if (life === 'cancel' || life === 'release') {
    await straight.until(name, running)
    if (life === 'cancel') await producer.cancel(name)
    else {
      await first.stop({ graceMs: 0 })
      last = await startLifeWorker(straight, name, { straight, last: true })
    }
  }
  await straight.wait(name)
  await last.stop()
}

const trapOf = ({ at }: Point): CommandPoint =>
  typeof at === 'number' ? at : (command) => movesOf(command).includes(at)

/** Every command of an undisturbed life and a few more; and each move by name, since commands come in no fixed order. */
const pointsOf = async (life: Life, start: 'claim' | 'take'): Promise<Point[]> => {
  const world = startWorld()
  const trial = await trialAt(life, null)
  await live(world, life, trial)
  const count = trial.proxy.commands.length + MORE
  await world.close()
  await trial.proxy.close()
  const named = ['XREADGROUP', start, 'log', 'progress', 'checkpoint', 'beat', MOVE_OF[life]]
  const points = [...Array.from({ length: count }, (_, i) => i + 1), ...named]
  return points.flatMap((at) => WHEN.map((when) => ({ at, when })))
}

/** The moves that a command carries, or its name. */
const movesOf = (command: string[]): string[] => {
  if (command[6] !== 'each') return [command[0] ?? '']
  const moves: string[] = []
  for (let i = 7; i < command.length; i += 2 + Number(command[i + 1])) moves.push(command[i] as string)
  return moves
}

const judge = async ({ straight }: World, life: Life, trials: Trial[]): Promise<void> => {
  const at = new Map<string, number>()
  for (const { broke } of trials)
    for (const what of broke ? movesOf(broke) : ['nothing']) at.set(what, (at.get(what) ?? 0) + 1)
  console.log(`${life}: broke at ${JSON.stringify(Object.fromEntries(at))}`)
  expect(
    await checkInvariants(
      straight,
      trials.map(({ name }) => name),
      { ended: true },
    ),
  ).toEqual([])
  for (const { name } of trials) {
    expect([name, (await straight.get(name))?.state]).toEqual([name, ENDS[life]])
    const lines = new Map<number, string[]>()
    for await (const event of straight.events(name))
      if (event.type === 'log') lines.set(event.attempt, [...(lines.get(event.attempt) ?? []), event.line])
    // What an attempt said stands there once and in order, as far as it came.
    for (const said of lines.values()) expect(said).toEqual(LINES.slice(0, said.length))
  }
  const missed = trials.filter(({ point, broke }) => typeof point?.at === 'string' && !broke)
  expect(missed.map(({ name }) => name)).toEqual([])
}

it.each(LIVES)('a connection cut before or after any command of a life that ends by %s', async (life) => {
  const points = await pointsOf(life, 'claim')
  const world = startWorld()
  const reaper = startReaper(world.straight, { minIdleMs: 500, maxGapMs: 1_000 }, () => undefined)
  const trials = await Promise.all(
    points.map(async (point) => {
      const trial = await trialAt(life, point)
      void trial.proxy.cutAt(trapOf(point), point.when).then((command) => {
        trial.broke = command
      })
      await live(world, life, trial)
      return trial
    }),
  )
  await reaper.stop()
  await judge(world, life, trials)
  await world.close()
  await Promise.all(trials.map(({ proxy }) => proxy.close()))
})

it.each(LIVES)(
  'a worker killed before or after any of its commands, in a life that ends by %s',
  async (life) => {
    const points = await pointsOf(life, 'take')
    const world = startWorld()
    const { straight, namespace } = world
    const trials = await Promise.all(points.map((point) => trialAt(life, point)))
    const frozen = trials.map(async (trial, i) => {
      const point = points[i] as Point
      trial.broke = await trial.proxy.freezeAt(trapOf(point), point.when)
    })
    const child = startProcess(process.execPath, fromSource('packages/state/test/worker-process.ts'), {
      env: {
        NAMESPACE: namespace,
        STRAIGHT: redis.url,
        WORKERS: JSON.stringify(trials.map(({ name, proxy }) => ({ name, port: proxy.port }))),
      },
    })
    await Promise.all(
      trials.map(({ name }) =>
        straight.enqueue(lifeJob(name), { life }, { id: name, backoff: { delayMs: 0 } }),
      ),
    )
    let killed = false
    const stop = (name: string) => {
      if (!killed) child.write(`stop ${name}\n`)
    }
    await Promise.all(trials.map((trial, i) => Promise.race([frozen[i], ended(world, life, trial, stop)])))
    killed = true
    await child.kill('SIGKILL')

    const reaper = startReaper(straight, { minIdleMs: 200, maxGapMs: 0 }, () => undefined)
    const workers = await Promise.all(
      trials.map(({ name }) => startLifeWorker(straight, name, { straight, last: true })),
    )
    await Promise.all(trials.map(({ name }) => straight.wait(name)))
    await Promise.all(workers.map((worker) => worker.stop()))
    await reaper.stop()
    await judge(world, life, trials)
    await world.close()
    await Promise.all(trials.map(({ proxy }) => proxy.close()))
  },
)

/** Makes of the life what its payload cannot; resolves when its worker has no more to do for it. */
const ended = async (
  { straight }: World,
  life: Life,
  { name }: Trial,
  stop: (name: string) => void,
): Promise<void> => {
  await straight.until(name, running)
  if (life === 'cancel') await straight.cancel(name)
  if (life === 'release') stop(name)
  await straight.until(name, ({ state, attempt }) => isTerminal(state) || (state === 'QUEUED' && attempt > 0))
}
