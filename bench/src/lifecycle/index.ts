// The lifecycle of jobs beside BullMQ: same Redis, same payload, same handler; rounds alternate, medians are compared.
import { runChild } from '../child.ts'
import { withRedis } from '../server.ts'
import { type Figure, judged, median, type Row } from '../table.ts'
import type { Batch, Idle, Life, Memory, Scenario, Start } from './client.ts'
import { PEERS, type PeerName } from './peer.ts'

const CLIENT = new URL('./client.ts', import.meta.url)

const once = <T>(peer: PeerName, scenario: Scenario): Promise<T> =>
  withRedis((url) => runChild<T>(CLIENT, { peer, url, ...scenario }))

type Both<T> = Record<PeerName, T[]>

/** Each round measures both, one after the other, so that what else the machine does meets both alike. */
const alternate = async <T>(
  rounds: number,
  scenario: Scenario,
  tell: (line: string) => void,
): Promise<Both<T>> => {
  const seen: Both<T> = { ours: [], bullmq: [] }
  for (let round = 0; round < rounds; round++)
    for (const peer of PEERS) {
      const measured = await once<T>(peer, scenario)
      seen[peer].push(measured)
      tell(`${scenario.scenario} ${round + 1}/${rounds} ${peer} ${JSON.stringify(measured)}`)
    }
  return seen
}

const compared = <T>(
  { ours, bullmq }: Both<T>,
  figure: string,
  unit: string,
  of: (measured: T) => number,
  target: Figure['target'],
): Row => judged({ figure, unit, ours: median(ours.map(of)), peer: median(bullmq.map(of)), target })

export const lifecycle = async (rounds: number, tell: (line: string) => void): Promise<Row[]> => {
  const written = await alternate<Life>(
    rounds,
    { scenario: 'life', jobs: 20_000, concurrency: 64, progress: 'awaited' },
    tell,
  )
  // BullMQ has one way to report: its figures are those of the run above and of this one's own rounds beside it.
  const defaults = await alternate<Life>(
    rounds,
    { scenario: 'life', jobs: 20_000, concurrency: 64, progress: 'coalesced' },
    tell,
  )
  const single = await alternate<Life>(
    rounds,
    { scenario: 'life', jobs: 3_000, concurrency: 1, progress: 'awaited' },
    tell,
  )
  const singleDefaults = await alternate<Life>(
    rounds,
    { scenario: 'life', jobs: 3_000, concurrency: 1, progress: 'coalesced' },
    tell,
  )
  const batches = await alternate<Batch>(rounds, { scenario: 'batch', jobs: 40_000 }, tell)
  const starts = await alternate<Start>(rounds, { scenario: 'start', jobs: 1_000 }, tell)
  const kept = await alternate<Memory>(1, { scenario: 'kept', jobs: 10_000 }, tell)
  const queued = await alternate<Memory>(1, { scenario: 'queued', jobs: 20_000 }, tell)
  const idle = await alternate<Idle>(1, { scenario: 'idle', workers: 1_000, seconds: 30 }, tell)
  const growth: Life[] = []
  for (const grownTo of [1_000, 1_000_000]) {
    const life: Scenario = { scenario: 'life', jobs: 20_000, concurrency: 64, progress: 'awaited', grownTo }
    growth.push(await once<Life>('ours', life))
    tell(`life in a namespace of ${grownTo}: ${JSON.stringify(growth.at(-1))}`)
  }
  const [small, large] = growth.map(({ redisMicros }) => redisMicros)
  const bytes = (both: Both<Memory>) => median(both.ours.map(({ bytesPerJob }) => bytesPerJob))
  return [
    compared(written, 'full life, concurrency 64, every update written', 'jobs/s', (m) => m.jobsPerSecond, {
      atLeast: 1.5,
    }),
    compared(defaults, 'the same with the defaults', 'jobs/s', (m) => m.jobsPerSecond, { atLeast: 2 }),
    compared(single, 'full life, concurrency 1, every update written', 'jobs/s', (m) => m.jobsPerSecond, {
      atLeast: 1.3,
    }),
    compared(singleDefaults, 'the same with the defaults', 'jobs/s', (m) => m.jobsPerSecond, {
      atLeast: 1.3,
    }),
    compared(batches, 'enqueue in batches of 1,000', 'jobs/s', (m) => m.jobsPerSecond, { atLeast: 2 }),
    compared(written, 'Redis CPU a job, every update written', 'µs', (m) => m.redisMicros, { atMost: 0.7 }),
    compared(defaults, 'Redis CPU a job, defaults', 'µs', (m) => m.redisMicros, { atMost: 0.5 }),
    compared(written, 'client CPU a job', 'µs', (m) => m.clientMicros, { atMost: 0.5 }),
    judged({
      figure: 'kept of a finished job, all keys',
      unit: 'B',
      ours: bytes(kept),
      peer: null,
      target: { atMost: 1_200 },
    }),
    judged({
      figure: 'kept of a queued job, all keys',
      unit: 'B',
      ours: bytes(queued),
      peer: null,
      target: { atMost: 900 },
    }),
    compared(starts, 'added to started, idle worker, p99', 'ms', (m) => m.p99, { atMost: 1 }),
    judged({
      figure: 'Redis CPU a job at 10⁶ jobs, over that at 10³',
      unit: '×',
      ours: (large ?? Number.NaN) / (small ?? Number.NaN),
      peer: null,
      target: { atMost: 1.2 },
    }),
    compared(idle, 'Redis CPU of 1,000 idle workers', 'µs/s', (m) => m.redisMicrosPerSecond, { atMost: 1 }),
  ]
}
