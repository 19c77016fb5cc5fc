// One run of a plan: the fleet is started, each window of load and faults ends healed, drained and checked, and at the end
// nothing is left. It ends early at the first window that breaks a promise.
import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { isTerminal, partitionOf, STATES } from '@jobs/state'
import { until } from '@jobs/testkit'
import { checkInvariants } from '../../state/test/invariants.ts'
import { judge, type Strike, type ToldNote, type Violation, type WorkerNote } from './checks.ts'
import { type FaultName, faultOf } from './faults.ts'
import { type Fleet, startFleet, WATCHERS, WORKERS } from './fleet.ts'
import { tortureJob } from './job.ts'
import { type Leaks, watchLeaks } from './leaks.ts'
import { type NotesReader, notesIn } from './notes.ts'
import type { Plan, Step } from './plan.ts'
import { startStore } from './store.ts'

export interface Report {
  plan: Omit<Plan, 'steps'>
  violations: Violation[]
  /** Windows that were begun. */
  windows: number
  faults: Partial<Record<FaultName, { injected: number; survived: number }>>
  accepted: number
  events: number
  attempts: number
  /** Messages and jobs of watchers. */
  watched: number
  ended: Record<string, number>
  recoveries: number[]
  disturbed: number
  ms: number
  latest: Record<string, number>
}

/** Milliseconds in which the fleet starts on a machine with nothing else to do. */
const QUIET_START_MS = 8_000
/** Milliseconds in which all jobs end once all is well. */
const DRAIN_MS = 30_000
/** Milliseconds in which watchers are told of it. */
const TOLD_MS = 12_000
/** What a machine that is not quiet adds to the time in which the dead are found. */
const SLACK_MS = 2_500
const MAX_VIOLATIONS = 100

const pause = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms))

/**
 * @param folder where the history goes: plan, notes, logs, report; what is large is deleted when nothing was broken
 * @param tell a line of what goes on
 */
export const runPlan = async (
  plan: Plan,
  folder: string,
  tell: (line: string) => void = () => undefined,
): Promise<Report> => {
  mkdirSync(folder, { recursive: true })
  writeFileSync(join(folder, 'plan.json'), `${JSON.stringify(plan, null, 1)}\n`)
  const { steps, ...of } = plan
  const report: Report = {
    plan: of,
    violations: [],
    windows: 0,
    faults: {},
    accepted: 0,
    events: 0,
    attempts: 0,
    watched: 0,
    ended: {},
    recoveries: [],
    disturbed: 0,
    ms: 0,
    latest: {},
  }
  const store = await startStore(plan.mode)
  const began = performance.now()
  const violate = (check: number, says: string) => {
    if (report.violations.length < MAX_VIOLATIONS) report.violations.push({ check, says })
  }
  const fleet = await startFleet(plan, store, folder, violate)
  const startMs = performance.now() - began
  // Every time that is promised is meant for a machine that can keep it: on one that is busy all of them are longer.
  const busy = Math.max(1, startMs / QUIET_START_MS)
  tell(
    `the fleet of ${fleet.members.size} processes is up after ${Math.round(startMs)} ms; times are allowed ${busy.toFixed(1)} times as long`,
  )
  try {
    const leaks = watchLeaks(fleet)
    const notes = notesIn(folder)
    for (let window = 0; window < plan.windows && report.violations.length === 0; window++) {
      report.windows++
      const mine = steps.filter((step) => step.window === window)
      await runWindow(fleet, plan, mine, { busy, report, violate, notes, leaks })
      report.latest = leaks.latest
      tell(
        `window ${window + 1} of ${plan.windows}: ${mine.length} faults, ${report.accepted} jobs so far, ${report.violations.length} violations`,
      )
    }
    if (report.violations.length === 0) {
      for (const says of leaks.violations()) violate(4, says)
      await endAll(fleet, violate)
    }
    await fleet.heal()
  } catch (error) {
    violate(4, `the run itself broke: ${(error as Error).stack ?? error}`.slice(0, 2_000))
    await fleet.heal().catch(() => undefined)
  }
  await fleet.stop()
  await store.stop()
  report.ms = Math.round(performance.now() - began)
  writeFileSync(join(folder, 'report.json'), `${JSON.stringify(report, null, 1)}\n`)
  if (report.violations.length === 0)
    for (const name of [...fleet.members.keys()])
      for (const file of [`${name}.jsonl`, `${name}.log`]) rmSync(join(folder, file), { force: true })
  return report
}

interface Keeping {
  /** How much longer than on a quiet machine everything may take. */
  busy: number
  report: Report
  violate: (check: number, says: string) => void
  notes: NotesReader
  leaks: Leaks
}

const runWindow = async (
  fleet: Fleet,
  plan: Plan,
  steps: Step[],
  { busy, report, violate, notes, leaks }: Keeping,
): Promise<void> => {
  fleet.go()
  const lag = monitorEventLoopDelay({ resolution: 20 })
  lag.enable()
  const strikes = await strikeAll(fleet, steps, plan.windowMs, violate)
  await fleet.heal()
  await fleet.rest()
  const ended = await drained(fleet, DRAIN_MS * busy, violate)
  if (ended) await watchersDone(fleet, TOLD_MS * busy, violate)
  lag.disable()

  const verdict = await judge(fleet.jobs, {
    accepted: new Set([...fleet.accepted, ...fleet.sleepers]),
    sleepers: fleet.sleepers,
    // That a process had to start again is noted too.
    work: [...WORKERS, 'keeper'].flatMap((name) => notes.read<WorkerNote>(name)).filter(({ job }) => job),
    watched: WATCHERS.flatMap((name) => notes.read<ToldNote>(name)).filter(({ does }) => does === 'told'),
    deaths: fleet.deaths,
    bereftUntil: (job) => fleet.bereftUntil.get(partitionOf(job, fleet.jobs.partitions)),
    strikes,
    // What held this process up held up the others.
    slackMs: SLACK_MS * busy + 4 * (lag.max / 1e6),
  })
  for (const { check, says } of verdict.violations) violate(check, says)
  report.accepted += fleet.accepted.size
  report.events += verdict.events
  report.recoveries.push(...verdict.recoveries)
  report.disturbed += verdict.disturbed
  for (const { fault } of steps) {
    report.faults[fault] ??= { injected: 0, survived: 0 }
    report.faults[fault].injected++
    if (report.violations.length === 0) report.faults[fault].survived++
  }
  if (report.violations.length > 0) return
  await removeEnded(fleet, report)
  await leaks.look()
}

/** Does each step at its time. Answers when each was under way. */
const strikeAll = async (
  fleet: Fleet,
  steps: Step[],
  windowMs: number,
  violate: (check: number, says: string) => void,
): Promise<Strike[]> => {
  const done: Strike[] = []
  const began = performance.now()
  const strikes: Promise<void>[] = []
  for (const { at, fault, target, forMs } of steps.toSorted((a, b) => a.at - b.at)) {
    await pause(Math.max(0, at - (performance.now() - began)))
    const strike = async () => {
      const from = Date.now()
      try {
        await faultOf(fault).strike(fleet, target, forMs)
      } finally {
        // One that could not be done may have been done by half.
        done.push({ fault, target, from, to: Date.now() })
      }
    }
    strikes.push(
      strike().catch((error: Error) =>
        violate(4, `${fault} of ${target} could not be done: ${error.message}`),
      ),
    )
  }
  await Promise.all(strikes)
  await pause(Math.max(0, windowMs - (performance.now() - began)))
  return done
}

/** Whether every job has ended but the sleepers, which are still held. */
const drained = async (
  fleet: Fleet,
  withinMs: number,
  violate: (check: number, says: string) => void,
): Promise<boolean> => {
  const live = async () => {
    // A job may move between two counts: each is looked at too.
    const { SCHEDULED, QUEUED, PROCESSING } = await fleet.jobs.counts()
    if (SCHEDULED + QUEUED + PROCESSING > fleet.sleepers.size) return true
    const now = await Promise.all([...fleet.accepted].map((id) => fleet.jobs.get(id)))
    return now.some((job) => job && !isTerminal(job.state))
  }
  try {
    await until(async () => !(await live()), { timeoutMs: withinMs })
    return true
  } catch {
    for (const state of ['SCHEDULED', 'QUEUED', 'PROCESSING'] as const)
      for (const { id } of (await fleet.jobs.list({ state, limit: 100 })).jobs) {
        if (fleet.sleepers.has(id)) continue
        const { says } = (await fleet.jobs.explain(id)) ?? {}
        violate(5, `${id} has not ended ${Math.round(withinMs)} ms after everything was well: ${says}`)
      }
    return false
  }
}

const watchersDone = async (
  fleet: Fleet,
  withinMs: number,
  violate: (check: number, says: string) => void,
): Promise<void> => {
  const ask = async (name: string, n: number): Promise<string[]> => {
    const token = `${fleet.accepted.size}-${n}-${Date.now()}`
    const answer = await fleet
      .member(name)
      .ask(`open ${token}`, (line) => line.startsWith(`open ${token} `), 30_000)
    return answer.split(' ').slice(2).filter(Boolean)
  }
  await Promise.all(
    WATCHERS.map(async (name) => {
      let open: string[] = []
      let n = 0
      await until(
        async () => {
          open = await ask(name, n++)
          return open.length === 0
        },
        { timeoutMs: withinMs },
      ).catch(() => undefined)
      for (const each of open)
        violate(
          3,
          `${name}: ${each} is the last that it was told, ${Math.round(withinMs)} ms after every job had ended`,
        )
    }),
  )
}

/** What has ended is removed: the next window begins as the first did. */
const removeEnded = async (fleet: Fleet, report: Report): Promise<void> => {
  const { jobs } = fleet
  for (const state of STATES.filter(isTerminal))
    for (;;) {
      const { jobs: page } = await jobs.list({ state, limit: 500 })
      if (page.length === 0) break
      for (const { attempt } of page) report.attempts += attempt
      report.ended[state] = (report.ended[state] ?? 0) + page.length
      await Promise.all(page.map(({ id }) => jobs.remove(id)))
    }
  report.watched += fleet.accepted.size
  fleet.accepted.clear()
  fleet.bereftUntil.clear()
}

/** The sleepers end, a few jobs expire, and no key is left that stands for a job. */
const endAll = async (fleet: Fleet, violate: (check: number, says: string) => void): Promise<void> => {
  const { jobs, store } = fleet
  fleet.wake()
  const payload = { deed: 'complete', steps: 2, stepMs: 10, deaf: false, logs: true } as const
  for (let n = 0; n < 5; n++)
    await jobs.enqueue(tortureJob, payload, {
      retentionMs: 1_000,
      tags: ['y'],
      key: `k${n}`,
      keyWindowMs: 1_000,
    })
  for (const id of fleet.sleepers) {
    const { state } = await jobs.wait(id, { signal: AbortSignal.timeout(15_000) })
    if (state !== 'COMPLETED') violate(1, `the sleeper ${id} is ${state}`)
    await jobs.remove(id)
  }
  // By name: keys of a partition that stay; lists of what has ended and counts of tags, which live as long as the retention.
  const stays =
    /:(queues|stream|scheduled|deadlines|paused|sweep|layout|confirmed|workers|worker:.*|work:.*|ended(:.*)?|tag:.*:states)$/
  const left = async () => {
    const all = await Promise.all((await store.masters()).map((client) => client.keys('*')))
    return all.flat().filter((key) => !stays.test(key))
  }
  // A job's keys go by Redis' clock at the start of a script, which may be a moment before that of its list.
  const counted = async () => Object.values(await jobs.counts()).some((count) => count > 0)
  const over = async () => (await left()).length === 0 && !(await counted())
  await until(over, { timeoutMs: 10_000 }).catch(async () => {
    for (const key of await left())
      violate(4, `the key ${key} is left, with ${await jobs.link.call('PTTL', key)} ms to live`)
  })
  for (const says of await checkInvariants(jobs, [])) violate(4, `at the very end, ${says}`)
}
