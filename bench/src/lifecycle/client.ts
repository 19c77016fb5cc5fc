// The measured process: one peer, one scenario, its figures as a line of JSON.
import { Probe } from '../server.ts'
import { openBullMq } from './bullmq.ts'
import { openOurs } from './ours.ts'
import { PAYLOAD, type Peer, type PeerName, type Progress } from './peer.ts'

export type Scenario =
  | { scenario: 'life'; jobs: number; concurrency: number; progress: Progress; grownTo?: number }
  | { scenario: 'batch'; jobs: number }
  | { scenario: 'kept'; jobs: number }
  | { scenario: 'queued'; jobs: number }
  | { scenario: 'start'; jobs: number }
  | { scenario: 'idle'; workers: number; seconds: number }

export interface Life {
  jobsPerSecond: number
  clientMicros: number
  redisMicros: number
  commands: number
}
export interface Batch {
  jobsPerSecond: number
}
export interface Memory {
  bytesPerJob: number
}
/** Milliseconds from before the call that adds to the first line of the handler. */
export interface Start {
  p50: number
  p99: number
}
export interface Idle {
  redisMicrosPerSecond: number
  commandsPerSecond: number
}

const BATCH = 1_000
const batchOf = (size: number) => Array.from({ length: size }, () => PAYLOAD)

const addAll = async (count: number, add: (payloads: object[]) => Promise<unknown>) => {
  for (let left = count; left > 0; left -= BATCH) await add(batchOf(Math.min(left, BATCH)))
}

/** Jobs go round with so many waiting behind those that run, so that a free slot always finds one. */
const roundsOf = async (peer: Peer, concurrency: number, progress: Progress) => {
  let left = 0
  let awaited = 0
  let through: () => void = () => undefined
  const add = () => {
    if (left === 0) return
    left--
    void peer.add(PAYLOAD)
  }
  await peer.work({
    concurrency,
    progress,
    ended: () => {
      add()
      if (--awaited === 0) through()
    },
  })
  return (jobs: number) =>
    new Promise<void>((resolve) => {
      through = resolve
      left = jobs
      awaited = jobs
      for (let i = 0; i < concurrency * 2; i++) add()
    })
}

const life = async (
  peer: Peer,
  probe: Probe,
  { jobs, concurrency, progress, grownTo = 0 }: Extract<Scenario, { scenario: 'life' }>,
): Promise<Life> => {
  const rounds = await roundsOf(peer, concurrency, progress)
  // Half of what the namespace has grown to waits for its time, half has ended and is kept.
  await addAll(Math.floor(grownTo / 2), peer.addLater)
  await rounds(Math.max(jobs / 4, Math.ceil(grownTo / 2)))
  const [redisBefore, commandsBefore] = [await probe.cpuMicros(), await probe.commands()]
  const cpuBefore = process.cpuUsage()
  const from = performance.now()
  await rounds(jobs)
  const seconds = (performance.now() - from) / 1e3
  const { user, system } = process.cpuUsage(cpuBefore)
  return {
    jobsPerSecond: jobs / seconds,
    clientMicros: (user + system) / jobs,
    redisMicros: ((await probe.cpuMicros()) - redisBefore) / jobs,
    commands: ((await probe.commands()) - commandsBefore) / jobs,
  }
}

const batch = async (peer: Peer, jobs: number): Promise<Batch> => {
  await addAll(jobs / 4, peer.addMany)
  const from = performance.now()
  await addAll(jobs, peer.addMany)
  return { jobsPerSecond: jobs / ((performance.now() - from) / 1e3) }
}

const kept = async (peer: Peer, probe: Probe, jobs: number): Promise<Memory> => {
  const rounds = await roundsOf(peer, 64, 'awaited')
  await rounds(1_000)
  const before = await probe.usedMemory()
  await rounds(jobs)
  return { bytesPerJob: ((await probe.usedMemory()) - before) / jobs }
}

const queued = async (peer: Peer, probe: Probe, jobs: number): Promise<Memory> => {
  await addAll(BATCH, peer.addMany)
  const before = await probe.usedMemory()
  await addAll(jobs, peer.addMany)
  return { bytesPerJob: ((await probe.usedMemory()) - before) / jobs }
}

const start = async (peer: Peer, jobs: number): Promise<Start> => {
  let began: () => void = () => undefined
  let ended: () => void = () => undefined
  await peer.work({ concurrency: 1, progress: 'none', started: () => began(), ended: () => ended() })
  const waits: number[] = []
  for (let i = 0; i < jobs + 200; i++) {
    const over = new Promise<void>((resolve) => {
      ended = resolve
    })
    const from = performance.now()
    const taken = new Promise<number>((resolve) => {
      began = () => resolve(performance.now() - from)
    })
    await peer.add(PAYLOAD)
    const wait = await taken
    await over
    // The worker is idle again once it has asked for the next job.
    await new Promise((resolve) => setTimeout(resolve, 2))
    if (i >= 200) waits.push(wait)
  }
  waits.sort((a, b) => a - b)
  const at = (share: number) => waits[Math.floor(waits.length * share)] as number
  return { p50: at(0.5), p99: at(0.99) }
}

const idle = async (peer: Peer, probe: Probe, workers: number, seconds: number): Promise<Idle> => {
  for (let i = 0; i < workers; i += 50) await Promise.all(Array.from({ length: 50 }, () => peer.idle()))
  // Past what a start costs.
  await new Promise((resolve) => setTimeout(resolve, 3_000))
  const [cpu, commands, from] = [await probe.cpuMicros(), await probe.commands(), performance.now()]
  await new Promise((resolve) => setTimeout(resolve, seconds * 1e3))
  const took = (performance.now() - from) / 1e3
  return {
    redisMicrosPerSecond: ((await probe.cpuMicros()) - cpu) / took,
    commandsPerSecond: ((await probe.commands()) - commands) / took,
  }
}

const {
  peer: name,
  url,
  ...scenario
} = JSON.parse(process.argv[2] ?? '{}') as Scenario & {
  peer: PeerName
  url: string
}
const peer = { ours: openOurs, bullmq: openBullMq }[name](url)
const probe = new Probe(url)
const measure = () => {
  switch (scenario.scenario) {
    case 'life':
      return life(peer, probe, scenario)
    case 'batch':
      return batch(peer, scenario.jobs)
    case 'kept':
      return kept(peer, probe, scenario.jobs)
    case 'queued':
      return queued(peer, probe, scenario.jobs)
    case 'start':
      return start(peer, scenario.jobs)
    case 'idle':
      return idle(peer, probe, scenario.workers, scenario.seconds)
  }
}
console.log(JSON.stringify(await measure()))
process.exit(0)
