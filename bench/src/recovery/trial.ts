// One trial: a worker process that holds jobs is killed, or frozen, while another waits for work.
import { fork } from 'node:child_process'
import { once } from 'node:events'
import { setTimeout as pause } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { Probe, withRedis } from '../server.ts'
import { endWithUs, openPeer, type Peer } from './peers.ts'
import type { HolderArgs, PeerName, Setting, Told } from './setting.ts'

export const JOBS = 100
/** Seconds that a recovery may take before it counts as none. */
const NEVER_S = 120

export interface Killed {
  /** Seconds from the kill until a successor has started all jobs; and from the kill of the successor. */
  seconds: number
  again: number
  /** Of the jobs: how many failed for good, and how many are neither completed nor failed in the end. */
  failed: number
  lost: number
  /** Started twice by one process, which therefore ran them twice at the same time. */
  doubled: number
  /** Given to the successor while their worker lived: this machine did not let it beat. The times are NaN then. */
  robbed: number
}

export interface Frozen {
  /** Jobs whose report, or end, is that of the worker that had lost them. */
  zombieWrites: number
  /** Jobs whose handler there went on to its end beside the successor's. */
  ranBeside: number
}

const startHolder = async (args: HolderArgs) => {
  const file = fileURLToPath(new URL('./holder.ts', import.meta.url))
  const child = endWithUs(fork(file, [JSON.stringify(args)], { execArgv: ['--conditions=@jobs/source'] }))
  const told: Record<Told['kind'], string[]> = { ready: [], start: [], ran: [], stopped: [] }
  const waiting = new Set<() => void>()
  child.on('message', ({ kind, id }: Told) => {
    told[kind].push(id)
    for (const look of waiting) look()
  })
  /** Whether it came to be in time. */
  const seen = (fits: () => boolean, seconds = NEVER_S): Promise<boolean> =>
    new Promise((resolve) => {
      const done = (fine: boolean) => {
        waiting.delete(look)
        clearTimeout(timer)
        resolve(fine)
      }
      const look = () => fits() && done(true)
      const timer = setTimeout(() => done(false), seconds * 1e3)
      waiting.add(look)
      look()
    })
  await seen(() => told.ready.length > 0)
  return {
    pid: child.pid as number,
    told,
    seen,
    holdsAll: (count = JOBS, seconds = NEVER_S) => seen(() => new Set(told.start).size >= count, seconds),
    finish: () => child.send('finish'),
    signal: (signal: NodeJS.Signals) => child.kill(signal),
    kill: async () => {
      child.kill('SIGKILL')
      if (child.exitCode === null && child.signalCode === null) await once(child, 'exit')
    },
  }
}
type Holder = Awaited<ReturnType<typeof startHolder>>

interface Stage {
  peer: Peer
  probe: Probe
  holder(concurrency?: number, watchful?: boolean): Promise<Holder>
}

const onStage = <T>(name: PeerName, setting: Setting, use: (stage: Stage) => Promise<T>): Promise<T> =>
  withRedis(async (url) => {
    const peer = await openPeer(name, url, setting)
    const probe = new Probe(url)
    const holders: Holder[] = []
    try {
      return await use({
        peer,
        probe,
        holder: async (concurrency = JOBS, watchful = true) => {
          const holder = await startHolder({ peer: name, url, setting, concurrency, watchful })
          holders.push(holder)
          return holder
        },
      })
    } finally {
      for (const holder of holders) await holder.kill()
      probe.close()
      await peer.close()
    }
  })

/** Past the start of everybody, and at any moment between two beats. */
const anyMoment = (setting: Setting) => pause((setting === 'default' ? 2_500 : 1_200) + Math.random() * 1_500)

/** A worker holds all jobs, and another is there for them. */
const heldBy = async (
  { peer, holder }: Stage,
  setting: Setting,
): Promise<[first: Holder, second: Holder]> => {
  const first = await holder()
  await peer.add(JOBS)
  await first.holdsAll()
  const second = await holder()
  await anyMoment(setting)
  return [first, second]
}

const secondsUntil = async (came: Promise<boolean>): Promise<number> => {
  const from = performance.now()
  return (await came) ? (performance.now() - from) / 1e3 : Number.POSITIVE_INFINITY
}

const doubledBy = ({ told: { start } }: Holder) => start.length - new Set(start).size

const endOfAll = async (peer: Peer, holder: Holder) => {
  holder.finish()
  for (let waits = 0; ; waits++) {
    const { completed, failed } = await peer.ended()
    if (completed + failed >= JOBS || waits === 100) return { failed, lost: JOBS - completed - failed }
    await pause(100)
  }
}

/** @param twice kills the successor too */
export const killTrial = (name: PeerName, setting: Setting, twice: boolean): Promise<Killed> =>
  onStage(name, setting, async (stage) => {
    const [first, second] = await heldBy(stage, setting)
    let robbed = second.told.start.length
    await first.kill()
    const took = await secondsUntil(second.holdsAll())
    const seconds = robbed > 0 ? Number.NaN : took
    if (!twice)
      return {
        seconds,
        again: Number.NaN,
        doubled: doubledBy(second),
        robbed,
        ...(await endOfAll(stage.peer, second)),
      }
    const third = await stage.holder()
    await anyMoment(setting)
    const before = third.told.start.length
    robbed += before
    await second.kill()
    // Where jobs fail for good nobody starts them.
    const tookAgain = await secondsUntil(third.holdsAll(JOBS, 10))
    return {
      seconds,
      again: before > 0 ? Number.NaN : tookAgain,
      robbed,
      doubled: doubledBy(second) + doubledBy(third),
      ...(await endOfAll(stage.peer, third)),
    }
  })

export const freezeTrial = (name: PeerName, setting: Setting): Promise<Frozen> =>
  onStage(name, setting, async (stage) => {
    const [first, second] = await heldBy(stage, setting)
    first.signal('SIGSTOP')
    await second.holdsAll()
    first.signal('SIGCONT')
    await first.seen(() => first.told.ran.length + first.told.stopped.length >= JOBS, 10)
    // The second holds them still: whatever has ended was ended by the first.
    const { completed, failed } = await stage.peer.ended()
    const by = await stage.peer.reportedBy(second.told.start)
    return {
      zombieWrites: Math.max(completed + failed, by.filter((pid) => pid === first.pid).length),
      ranBeside: first.told.ran.length,
    }
  })

/** CPU of Redis in percent of a core while ten processes hold so many jobs, and nothing else happens. */
export const steadyTrial = (name: PeerName, held: number, seconds: number): Promise<number> =>
  onStage(name, 'default', async ({ peer, probe, holder }) => {
    const holders = await Promise.all(Array.from({ length: 10 }, () => holder(held / 10, false)))
    await peer.add(held)
    const all = await Promise.all(holders.map((each) => each.holdsAll(held / 10, 90)))
    if (all.includes(false)) return Number.NaN
    await pause(5_000)
    const before = await probe.cpuMicros()
    const from = performance.now()
    await pause(seconds * 1e3)
    return ((await probe.cpuMicros()) - before) / (performance.now() - from) / 10
  })
