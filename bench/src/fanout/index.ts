// Fan-out beside a bare ws server and Socket.IO: each measurement has a Redis and processes of its own; rounds alternate,
// medians are compared.
import { setTimeout as pause } from 'node:timers/promises'
import { type Figure, judged, median, type Row } from '../table.ts'
import type { Kind, PeerName } from './load.ts'
import { residentBytes } from './rpc.ts'
import { type Load, type World, withWorld } from './world.ts'

/** Milliseconds that 99 of 100 messages may take at most, for a rate to count as carried. */
const P99_MS = 200
/** Seconds of each step of the search for the highest rate. */
const STEP_SECONDS = 2
const STEP = 1.15

const carried = ({ p99, lost, wrong, published, rate }: Load): boolean =>
  p99 <= P99_MS && lost === 0 && wrong === 0 && published >= 0.9 * rate

/** The highest rate, in steps of 15 %, that is carried. */
const saturation = async (
  world: World,
  from: number,
  kind: Kind,
  tell: (load: Load) => void,
): Promise<Load> => {
  const step = async (rate: number) => {
    const load = await world.load(rate, STEP_SECONDS, kind)
    tell(load)
    return load
  }
  let rate = from
  let best = await step(rate)
  while (!carried(best)) {
    rate /= STEP
    best = await step(rate)
  }
  for (;;) {
    rate *= STEP
    const next = await step(rate)
    if (!carried(next)) return best
    best = next
  }
}

type Tell = (line: string) => void
const shown = (load: Load) =>
  `${load.rate.toFixed(0)}/s published, ${load.deliveredPerSecond.toFixed(0)}/s delivered, ` +
  `p50 ${load.p50} p99 ${load.p99} ms, ${load.lost} lost, ${load.wrong} wrong, ${load.folded} folded, ` +
  `server ${load.serverMicros.toFixed(1)} µs, CPU % ${load.cpu.map((each) => each.toFixed(0)).join(' / ')}`

/** Where the search for the highest rate begins: messages a second, and those to one room of thousands. */
const BEGIN: Record<PeerName, { many: number; hot: number }> = {
  ours: { many: 40_000, hot: 10 },
  bare: { many: 40_000, hot: 10 },
  socketio: { many: 16_000, hot: 5 },
}

/** 2,000 watchers of 2,000 rooms: at 4,000 messages a second, then at the highest rate. */
export const many = (peer: PeerName, tell: Tell) =>
  withWorld(peer, 2_000, async (world) => {
    await world.dial(2_000)
    await world.load(4_000, 1, 'log')
    const steady = await world.load(4_000, 3, 'log')
    tell(`many ${peer} steady: ${shown(steady)}`)
    const top = await saturation(world, BEGIN[peer].many, 'log', (load) =>
      tell(`many ${peer}: ${shown(load)}`),
    )
    return { steady, top }
  })

/** 5,000 watchers of one room: every message by itself; ours also with progress at 200 a second. */
export const hot = (peer: PeerName, tell: Tell) =>
  withWorld(peer, 1, async (world) => {
    await world.dial(5_000)
    await world.load(4, 1, 'log')
    const top = await saturation(world, BEGIN[peer].hot, 'log', (load) => tell(`hot ${peer}: ${shown(load)}`))
    if (peer !== 'ours') return { top, progress: null }
    const progress = await world.load(200, 3, 'progress')
    tell(`hot ${peer} progress: ${shown(progress)}`)
    return { top, progress }
  })

/** 10,000 connections with a room each: how fast they come, and what each keeps. */
export const idle = (peer: PeerName, tell: Tell) =>
  withWorld(peer, 11_000, async (world) => {
    await world.dial(1_000)
    await pause(1_000)
    const before = residentBytes(world.serverPid)
    const { connections, seconds } = await world.dial(10_000)
    await pause(2_000)
    const bytes = (residentBytes(world.serverPid) - before) / connections
    const perSecond = connections / seconds
    tell(`idle ${peer}: ${bytes.toFixed(0)} B a connection, ${perSecond.toFixed(0)} connections/s`)
    return { bytes, perSecond }
  })

/** Dials under way at a time: half of what the gateway lets one address have, for all come from one here. */
const STORM_AT_ONCE = 1_500

/** 10,000 watchers of one job lose their connections and come back at once. */
export const storm = (tell: Tell) =>
  withWorld('ours', 1, async (world) => {
    await world.dial(10_000)
    const before = await world.probe.calls('hgetall')
    await world.hangUp()
    const { seconds } = await world.dial(10_000, { atOnce: STORM_AT_ONCE, resume: true })
    const reads = (await world.probe.calls('hgetall')) - before
    tell(`storm ours: all live again in ${seconds.toFixed(2)} s, ${reads} reads`)
    return { seconds, reads }
  })

/** Each round measures every peer, one after the other, so that what else the machine does meets all alike. */
const alternate = async <T>(
  rounds: number,
  peers: readonly PeerName[],
  measure: (peer: PeerName, tell: Tell) => Promise<T>,
  tell: Tell,
): Promise<Record<PeerName, T[]>> => {
  const seen: Record<PeerName, T[]> = { ours: [], bare: [], socketio: [] }
  for (let round = 0; round < rounds; round++)
    for (const peer of peers) seen[peer].push(await measure(peer, tell))
  return seen
}

export const fanout = async (rounds: number, tell: Tell): Promise<Row[]> => {
  const all = ['ours', 'bare', 'socketio'] as const
  const rooms = await alternate(rounds, all, many, tell)
  const crowd = await alternate(rounds, all, hot, tell)
  const quiet = await alternate(Math.ceil(rounds / 3), all, idle, tell)
  const storms = [await storm(tell)]

  /** The row that is judged, beside the floor; and one beside Socket.IO, which is to be beaten. */
  const beside = <T>(
    seen: Record<PeerName, T[]>,
    figure: string,
    unit: string,
    of: (measured: T) => number,
    target: Figure['target'],
    ours: (measured: T) => number = of,
  ): Row[] => {
    const at = (peer: PeerName) => median(seen[peer].map(peer === 'ours' ? ours : of))
    const better: Figure['target'] = 'atLeast' in target ? { atLeast: 1 } : { atMost: 1 }
    return [
      judged({ figure, unit, ours: at('ours'), peer: at('bare'), target }),
      judged({ figure: `  beside Socket.IO`, unit, ours: at('ours'), peer: at('socketio'), target: better }),
    ]
  }
  const alone = (figure: string, unit: string, ours: number, target: Figure['target']): Row =>
    judged({ figure, unit, ours, peer: null, target })
  const ours = <T>(seen: Record<PeerName, T[]>, of: (measured: T) => number) => median(seen.ours.map(of))

  return [
    ...beside(rooms, 'many rooms, delivered at saturation', '/s', (m) => m.top.deliveredPerSecond, {
      atLeast: 0.9,
    }),
    ...beside(rooms, 'server CPU a delivery there', 'µs', (m) => m.top.serverMicros, { atMost: 1.15 }),
    ...beside(rooms, 'p99 at 4,000 messages a second', 'ms', (m) => m.steady.p99, { atMost: 1.5 }),
    ...beside(crowd, 'one room of 5,000, delivered one by one', '/s', (m) => m.top.deliveredPerSecond, {
      atLeast: 1,
    }),
    ...beside(
      crowd,
      'the same with progress at 200 a second',
      '/s',
      (m) => m.top.deliveredPerSecond,
      { atLeast: 5 },
      (m) => m.progress?.deliveredPerSecond ?? Number.NaN,
    ),
    alone(
      'p99 of what is not folded there',
      'ms',
      ours(crowd, (m) => m.progress?.p99 ?? Number.NaN),
      {
        atMost: P99_MS,
      },
    ),
    alone(
      'kept by an idle connection with a room',
      'B',
      ours(quiet, (m) => m.bytes),
      { atMost: 10_240 },
    ),
    alone(
      'connect, subscribe and snapshot',
      '/s',
      ours(quiet, (m) => m.perSecond),
      { atLeast: 5_000 },
    ),
    alone('10,000 watchers of one job come back at once', 's', median(storms.map((m) => m.seconds)), {
      atMost: 5,
    }),
    alone('reads of Redis for that', '', median(storms.map((m) => m.reads)), { atMost: 1 }),
  ]
}
