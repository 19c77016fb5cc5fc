// What happens to 100 jobs when their worker dies or freezes, beside BullMQ, and what watching over them costs.
import { type Figure, judged, median, type Row } from '../table.ts'
import { promoteTrial } from './promote.ts'
import { PEERS, type PeerName, type Setting } from './setting.ts'
import { sweepTrial } from './sweep.ts'
import { type Frozen, freezeTrial, type Killed, killTrial, steadyTrial } from './trial.ts'

/** BullMQ needs about 50 s at its defaults: it gets fewer rounds, all of them at the same time, since they only wait. */
const BULLMQ_DEFAULT_ROUNDS = 3
const HELD = 10_000
/** Seconds; BullMQ renews its locks every 15. */
const STEADY_S = 15

type Both<T> = Record<PeerName, T[]>
type Tell = (line: string) => void

const sum = (values: number[]) => values.reduce((all, value) => all + value, 0)

export const recovery = async (rounds: number, tell: Tell): Promise<Row[]> => {
  const told = <T>(what: string, peer: PeerName, seen: T): T => {
    tell(`${what} ${peer} ${JSON.stringify(seen)}`)
    return seen
  }
  const kill = async (peer: PeerName, setting: Setting, twice: boolean) =>
    told(`kill ${setting}`, peer, await killTrial(peer, setting, twice))

  const tight: Both<Killed> = { ours: [], bullmq: [] }
  const frozen: Both<Frozen> = { ours: [], bullmq: [] }
  for (let round = 0; round < rounds; round++)
    for (const peer of PEERS) {
      tight[peer].push(await kill(peer, 'tight', true))
      frozen[peer].push(told('freeze', peer, await freezeTrial(peer, 'tight')))
    }
  const slow: Both<Killed> = { ours: [], bullmq: [] }
  for (let round = 0; round < rounds; round++) slow.ours.push(await kill('ours', 'default', false))
  slow.bullmq = await Promise.all(
    Array.from({ length: Math.min(rounds, BULLMQ_DEFAULT_ROUNDS) }, () => kill('bullmq', 'default', false)),
  )
  const steady = {
    ours: told('steady', 'ours', await steadyTrial('ours', HELD, STEADY_S)),
    bullmq: told('steady', 'bullmq', await steadyTrial('bullmq', HELD, STEADY_S)),
  }
  const few = await sweepTrial(HELD / 100)
  const many = await sweepTrial(HELD)
  tell(`sweep ours ${JSON.stringify({ few, many })}`)

  const { steady: one, burst } = await promoteTrial()
  const p99 = (sorted: number[]) => sorted[Math.floor(sorted.length * 0.99)] ?? Number.NaN
  tell(
    `promotions ours ${JSON.stringify({ one: [p99(one), one.at(-1)], burst: [p99(burst), burst.at(-1)] })}`,
  )

  /** Of the trials in which there was something to measure. */
  const timed = (trials: Killed[], of: (trial: Killed) => number) =>
    trials.map(of).filter((value) => !Number.isNaN(value))
  const worst = (values: number[]) => Math.max(...values)
  const own = (figure: string, unit: string, of: (peer: PeerName) => number, target: Figure['target']): Row =>
    judged({ figure, unit, ours: of('ours'), peer: of('bullmq'), target, own: true })
  const all = (peer: PeerName) => [...tight[peer], ...slow[peer]]
  return [
    own(
      'kill -9, default: all 100 started again, median',
      's',
      (p) => median(timed(slow[p], (t) => t.seconds)),
      { atMost: 10 },
    ),
    own('the same, worst', 's', (p) => worst(timed(slow[p], (t) => t.seconds)), { atMost: 10 }),
    own(
      'kill -9, tight: all 100 started again, median',
      's',
      (p) => median(timed(tight[p], (t) => t.seconds)),
      {
        atMost: 1,
      },
    ),
    own('the same, worst', 's', (p) => worst(timed(tight[p], (t) => t.seconds)), { atMost: 1 }),
    own(
      'the successor killed too: started again, worst',
      's',
      (p) => worst(timed(tight[p], (t) => t.again)),
      {
        atMost: 1,
      },
    ),
    own(
      'jobs failed for good by two crashes in a row',
      'of 100',
      (p) => worst(tight[p].map((t) => t.failed)),
      { atMost: 0 },
    ),
    own('jobs lost, all trials', 'jobs', (p) => sum(all(p).map((t) => t.lost)), { atMost: 0 }),
    own('jobs taken from a worker that lived', 'jobs', (p) => sum(all(p).map((t) => t.robbed)), {
      atMost: 0,
    }),
    own('jobs run twice at the same time after a kill', 'jobs', (p) => sum(all(p).map((t) => t.doubled)), {
      atMost: 0,
    }),
    own(
      'writes of a frozen and woken worker accepted',
      'of 100',
      (p) => worst(frozen[p].map((t) => t.zombieWrites)),
      { atMost: 0 },
    ),
    own('its handlers that ran on to their end', 'of 100', (p) => worst(frozen[p].map((t) => t.ranBeside)), {
      atMost: 0,
    }),
    own('Redis CPU, 10,000 jobs held by 10 processes', '% core', (p) => steady[p], { atMost: 5 }),
    judged({
      figure: 'Redis CPU of a sweep over 10,000 live jobs, to 100',
      unit: '×',
      ours: many / few,
      peer: null,
      target: { atMost: 2 },
    }),
    judged({
      figure: 'queued after its time, 1,000 due a second, 100,000 waiting, p99',
      unit: 'ms',
      ours: p99(one),
      peer: null,
      target: { atMost: 100 },
    }),
    judged({
      figure: '1,000 due in the same millisecond beside them, p99',
      unit: 'ms',
      ours: p99(burst),
      peer: null,
      target: { atMost: 100 },
    }),
  ]
}
