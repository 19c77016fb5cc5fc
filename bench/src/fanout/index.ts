// Fan-out beside a bare ws server and Socket.IO: each measurement has a Redis and processes of its own; rounds alternate,
// medians are compared.
import { cpus } from 'node:os'
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
/** The search ends at this part of where it began. */
const LEAST = 64

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
  while (!carried(best) && rate > from / LEAST) {
    rate /= STEP
    best = await step(rate)
  }
  // Carried by no rate: a figure that counts as none.
  if (!carried(best)) return { ...best, deliveredPerSecond: 0, serverMicros: Number.NaN }
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

/** Redis' CPU of an event of a hundred rooms, when these are watched only, and when 20,000 are. */
export const grown = (tell: Tell) =>
  withWorld('ours', 20_000, async (world) => {
    const micros: number[] = []
    // A process has descriptors for 20,000 sockets on few machines.
    for (const [connections, roomsEach] of [[100, 1] as const, [9_950, 2] as const]) {
      await world.dial(connections, { roomsEach })
      await world.load(2_000, 1, 'log', { first: 100 })
      const before = await world.probe.cpuMicros()
      const load = await world.load(2_000, 5, 'log', { first: 100 })
      micros.push(((await world.probe.cpuMicros()) - before) / load.delivered)
      tell(`grown ours: ${shown(load)}, Redis ${micros.at(-1)?.toFixed(1)} µs`)
    }
    return (micros[1] as number) / (micros[0] as number)
  })

/** 20,000 rooms are watched when Redis restarts, with what it had: seconds until all have caught up, and what was lost. */
export const restarted = (tell: Tell) =>
  withWorld(
    'ours',
    20_000,
    async (world) => {
      await world.dial(10_000, { roomsEach: 2 })
      const seconds = await world.restartRedis()
      const { lost, wrong } = await world.load(10_000, 2, 'log', { first: 10_000 })
      tell(`restarted ours: whole after ${seconds.toFixed(2)} s, ${lost} lost, ${wrong} wrong`)
      return lost + wrong === 0 ? seconds : Number.NaN
    },
    { appendonly: true },
  )

/** Cores from which on a second gateway has one to itself, beside Redis, the publisher and the load client. */
const SPARE_CORES = 4

/** 4,000 watchers of a room each, of so many gateways on one port: delivered a second at saturation. */
const sharing = (gateways: number, tell: Tell) =>
  withWorld(
    'ours',
    4_000,
    async (world) => {
      for (let more = 1; more < gateways; more++) await world.addServer()
      await world.dial(4_000)
      const top = await saturation(world, BEGIN.ours.many, 'log', (load) =>
        tell(`sharing ${gateways}: ${shown(load)}`),
      )
      return top.deliveredPerSecond
    },
    { shared: true },
  )

/** Seconds of a steady stream to clients that come and go, and its messages a second. */
const UNSTEADY = { seconds: 14, rate: 1_000, clients: 100 }

/** 100 clients with a room each, each dropped for two seconds again and again; or the server killed in the middle. */
export const unsteady = (trouble: 'drops' | 'kill') => (peer: PeerName, tell: Tell) =>
  withWorld(
    peer,
    UNSTEADY.clients,
    async (world) => {
      await world.dial(UNSTEADY.clients)
      // So that each has a position to come back with.
      await world.load(UNSTEADY.rate, 1, 'log')
      const { seconds, rate } = UNSTEADY
      const during = () =>
        trouble === 'drops'
          ? world.dropAtRandom(seconds - 1)
          : pause((seconds * 1e3) / 2).then(() => world.replaceServer())
      const { lost, twice, wrong, delivered } = await world.load(rate, seconds, 'log', { during })
      tell(`${trouble} ${peer}: ${delivered} delivered, ${lost} lost, ${twice} twice, ${wrong} wrong`)
      return lost + twice
    },
    { recovery: true },
  )

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
  const growth = await grown(tell)
  const whole = await restarted(tell)
  const reliable = ['ours', 'socketio'] as const
  const dropped = await alternate(1, reliable, unsteady('drops'), tell)
  const killed = await alternate(1, reliable, unsteady('kill'), tell)
  const [one, two] = cpus().length < SPARE_CORES ? [] : [await sharing(1, tell), await sharing(2, tell)]

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
  const reliability = (figure: string, seen: Record<PeerName, number[]>): Row[] => {
    const [mine, theirs] = [median(seen.ours), median(seen.socketio)]
    return [
      alone(`lost or twice of ${UNSTEADY.seconds * UNSTEADY.rate}, ${figure}`, '', mine, { atMost: 0 }),
      judged({
        figure: '  beside Socket.IO, recovery on',
        unit: '',
        ours: mine,
        peer: theirs,
        target: { atMost: 1 },
      }),
    ]
  }

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
    alone('Redis CPU an event at 20,000 watched rooms, over that at 100', '×', growth, { atMost: 1.15 }),
    alone('20,000 rooms whole again after Redis answers', 's', whole, { atMost: 2 }),
    ...reliability('clients dropped at random', dropped),
    ...reliability('server killed', killed),
    ...(one && two
      ? [
          judged({
            figure: 'two gateways on a port, beside one',
            unit: '/s',
            ours: two,
            peer: one,
            target: { atLeast: 1.6 },
          }),
        ]
      : []),
  ]
}
