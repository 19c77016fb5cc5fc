// What must be true at the end of a window: of the jobs by their streams, of what workers noted, of what watchers were
// told, and of how soon the dead were found. Answers what is not, with the number of the promise that is broken.
import { isDeepStrictEqual } from 'node:util'
import type { ResetReason } from '@jobs/protocol'
import { eventOfMessage, fold, isTerminal, type JobEvent, type Jobs, type Snapshot } from '@jobs/state'
import { checkInvariants } from '../../state/test/invariants.ts'
import { type FaultName, faultOf } from './faults.ts'
import { REAPERS } from './fleet.ts'
import { LEASE_MS, type Mark, RECOVERY_MS } from './job.ts'
import type { Death } from './member.ts'

export interface Violation {
  /** 1 jobs and fences, 2 events, 3 watchers, 4 leaks, 5 recovery. */
  check: number
  says: string
}

export interface WorkerNote {
  at: number
  does: 'begin' | 'completed' | 'failed' | 'cancelled'
  job: string
  attempt: number
  worker: string
}

export interface ToldNote {
  at: number
  does: 'told'
  job: string
  detail: 'all' | 'state' | 'latest'
  completed: string | null
  told: ({ snapshot: Snapshot } | { events: JobEvent[]; from: number; to: number } | { reset: string })[]
}

/** A fault that was done, by Redis' clock. */
export interface Strike {
  fault: FaultName
  target: string
  from: number
  to: number
}

export interface Evidence {
  accepted: ReadonlySet<string>
  sleepers: ReadonlySet<string>
  work: readonly WorkerNote[]
  watched: readonly ToldNote[]
  deaths: readonly Death[]
  strikes: readonly Strike[]
  /** Until when the end of the job's history may have gone with the master that was killed; undefined: nothing has. */
  bereftUntil: (job: string) => number | undefined
  /** What the machine adds to the time in which the dead are found. */
  slackMs: number
}

export interface Verdict {
  violations: Violation[]
  events: number
  /** Milliseconds between the death of a worker and the event that its job is recovered. */
  recoveries: number[]
  /** Recoveries that a fault of Redis or of a reaper delayed. */
  disturbed: number
}

/** What a silence of Redis adds beside itself: the amnesty, and a lease that it arms anew. */
const AMNESTY_MS = 1_000 + LEASE_MS + 2_000
/** What a frozen process and a slow link were sent, they take as much later at most. */
const LATE_MS = 7_000

export const judge = async (jobs: Jobs, evidence: Evidence): Promise<Verdict> => {
  const { accepted, sleepers, work, watched, bereftUntil } = evidence
  const violations: Violation[] = []
  const say = (check: number, says: string) => violations.push({ check, says })

  for (const says of await checkInvariants(jobs, accepted)) say(says.includes('time to live') ? 4 : 2, says)

  const histories = new Map<string, JobEvent[]>()
  const read = async (id: string) => histories.set(id, await historyOf(jobs, id))
  const ids = new Set([...accepted, ...work.map(({ job }) => job)])
  for (const batch of chunks([...ids], 50)) await Promise.all(batch.map(read))

  for (const [id, events] of histories) {
    const state = events.findLast((event) => event.type === 'state')?.state
    if (accepted.has(id) && !sleepers.has(id) && !(state && isTerminal(state)))
      say(1, `${id} was accepted and has not ended: it is ${state}`)
    for (const says of strangeEffects(events)) say(1, `${id}: ${says}`)
  }
  // A claim or an end that went with its master is void, and the job is run again.
  const holds = ({ job, at }: WorkerNote) => at > (bereftUntil(job) ?? 0) + LATE_MS
  for (const says of workViolations(work.filter(holds), histories)) say(1, says)
  for (const told of watched)
    for (const says of watchViolations(told, histories, bereftUntil(told.job))) say(3, says)

  const { wrong, recoveries, disturbed } = recoveriesOf(histories, evidence)
  for (const says of wrong) say(5, says)
  let events = 0
  for (const history of histories.values()) events += history.length
  return { violations, events, recoveries, disturbed }
}

const historyOf = async ({ link, transitions }: Jobs, id: string): Promise<JobEvent[]> => {
  const entries = (await link.call('XRANGE', transitions.keysFor(id).events(id), '1-0', '+')) as [
    string,
    string[],
  ][]
  return entries.flatMap(([cursor, fields]) => {
    const event = eventOfMessage(`${cursor} ${fields[1]}`)
    return event ? [JSON.parse(event.body) as JobEvent] : []
  })
}

/** Whatever an attempt left in the job says who left it. */
const strangeEffects = (events: JobEvent[]): string[] => {
  const wrong: string[] = []
  let attempt = 0
  let worker = ''
  const compare = (seq: number, what: string, mark: Partial<Mark> | null | undefined) => {
    if (mark && (mark.attempt !== attempt || mark.worker !== worker))
      wrong.push(
        `event ${seq}: ${what} of attempt ${mark.attempt} by ${mark.worker} is in attempt ${attempt} by ${worker}`,
      )
  }
  for (const event of events) {
    if (event.type === 'progress') compare(event.seq, 'progress', event.progress as unknown as Mark)
    if (event.type === 'log') compare(event.seq, 'a line', JSON.parse(event.line) as Mark)
    if (event.type !== 'state') continue
    if (event.progress !== undefined) compare(event.seq, 'progress', event.progress as unknown as Mark)
    if (event.result !== undefined) compare(event.seq, 'the result', event.result as unknown as Mark)
    if (event.move !== 'claim') continue
    attempt = event.attempt
    worker = event.worker ?? ''
  }
  return wrong
}

/** Each attempt that ran was granted to that worker, and what Redis confirmed to a worker has happened. */
const workViolations = (work: readonly WorkerNote[], histories: ReadonlyMap<string, JobEvent[]>): string[] =>
  work.flatMap(({ does, job, attempt, worker }) => {
    const changes = (histories.get(job) ?? []).filter((event) => event.type === 'state')
    const granted = changes.find((event) => event.move === 'claim' && event.attempt === attempt)
    if (granted?.worker !== worker)
      return [`${job}: ${worker} ran attempt ${attempt}, which was granted to ${granted?.worker ?? 'nobody'}`]
    if (does !== 'completed') return []
    const told = changes.some((event) => event.move === 'complete' && event.attempt === attempt)
    return told ? [] : [`${job}: ${worker} was told that attempt ${attempt} has completed it`]
  })

/** Resets that tell of a history which Redis has lost. */
const OF_LOSS: readonly string[] = ['ahead', 'diverged', 'redis_recovered'] satisfies ResetReason[]

/**
 * Nothing was told that is not in the stream, nothing of it was left out, and a snapshot is what the events before it make.
 * Where the end of the stream may have gone with its master, that holds of what was told after the last reset. Whoever had
 * seen the job end before is gone, and can't be told of the loss.
 */
export const watchViolations = (
  { at, job, detail, completed, told: all }: ToldNote,
  histories: ReadonlyMap<string, JobEvent[]>,
  bereftUntil: number | undefined,
): string[] => {
  const events = histories.get(job)
  if (!events) return []
  const wrong: string[] = []
  const bySeq = new Map(events.map((event) => [event.seq, event]))
  const isOfLoss = (each: ToldNote['told'][number]) => 'reset' in each && OF_LOSS.includes(each.reset)
  const told = bereftUntil === undefined ? all : all.slice(all.findLastIndex(isOfLoss) + 1)
  if (bereftUntil !== undefined && at <= bereftUntil + LATE_MS) return []
  let known: { seq: number; told: Set<number> } | undefined
  for (const each of told) {
    if ('reset' in each) {
      // Nothing but a lost history is a reason for one: nothing is trimmed here.
      wrong.push(`was told reset, ${each.reset}`)
      known = undefined
    } else if ('snapshot' in each) {
      wrong.push(...snapshotViolations(each.snapshot, events, job))
      known = { seq: each.snapshot.seq, told: new Set() }
    } else {
      for (const item of each.events)
        if (!isDeepStrictEqual(item, bySeq.get(item.seq)))
          wrong.push(
            `was told ${JSON.stringify(item).slice(0, 300)}, and the stream has ${JSON.stringify(bySeq.get(item.seq))?.slice(0, 300)}`,
          )
      const items = new Set(each.events.map(({ seq }) => seq))
      // Only progress is folded; `state` and `latest` leave out more.
      for (let seq = each.from; seq <= each.to; seq++) {
        const event = bySeq.get(seq)
        if (items.has(seq) || !event) continue
        if (event.type === 'state' || (event.type === 'log' && detail === 'all'))
          wrong.push(`was not told event ${seq} of ${each.from}..${each.to}, ${event.type}`)
      }
      known = { seq: each.to, told: known?.told ?? new Set() }
    }
  }
  const last = events.at(-1)
  if (completed !== null && last && known?.seq !== last.seq)
    wrong.push(`was told complete at ${known?.seq}, and the stream ends at ${last.seq}`)
  return wrong.map((says) => `${job}: a watcher ${says}`)
}

const snapshotViolations = (snapshot: Snapshot, events: JobEvent[], job: string): string[] => {
  let folded: Snapshot | null = null
  for (const event of events) {
    if (event.seq > snapshot.seq) break
    folded = fold(folded, event, job)
  }
  if (!folded) return [`was told a snapshot at ${snapshot.cursor} of no event`]
  const { id: _, ...is } = folded
  return Object.entries(is)
    .filter(([field, value]) => !isDeepStrictEqual((snapshot as Record<string, unknown>)[field], value))
    .map(
      ([field, value]) =>
        `was told ${field} ${JSON.stringify((snapshot as Record<string, unknown>)[field])} at ${snapshot.cursor}, and the events make ${JSON.stringify(value)}`,
    )
}

/** How long the jobs of each worker that died waited to be recovered, and whether any was taken from one that was well. */
export const recoveriesOf = (
  histories: ReadonlyMap<string, JobEvent[]>,
  { deaths, strikes, slackMs }: Pick<Evidence, 'deaths' | 'strikes' | 'slackMs'>,
): { wrong: string[]; recoveries: number[]; disturbed: number } => {
  const deathOf = new Map(deaths.filter(({ kind }) => kind === 'worker').map((death) => [death.who, death]))
  const delaying = strikes.filter(({ fault, target }) => faultOf(fault).delaysRecovery || isReaper(target))
  const wrong: string[] = []
  const recoveries: number[] = []
  let disturbed = 0
  for (const [id, events] of histories)
    for (const event of events) {
      if (event.type !== 'state' || event.move !== 'reap' || event.reason !== 'worker_lost') continue
      const worker = event.worker ?? ''
      const death = deathOf.get(worker)
      const name = worker.replace(/\.\d+$/, '')
      // A lease before already: what is lost then comes to light then.
      const struck = (since: number, until: number, counts: (strike: Strike) => boolean) =>
        strikes.some(
          (strike) =>
            strike.from < until &&
            strike.to > since - LEASE_MS - slackMs &&
            (strike.target === name || counts(strike)),
        )
      if (death === undefined || death.at > event.at) {
        // It was frozen or cut off, or its beats did not get through to Redis: else it has been robbed.
        if (!struck(event.at, event.at, ({ fault }) => faultOf(fault).mayRob === true))
          wrong.push(`${id}: it was taken from ${worker}, which was well: ${event.message}`)
        continue
      }
      // What it could not hand back, since Redis could not be reached, is recovered as if it had crashed.
      const { askedAt = death.at } = death
      if (death.how === 'stopped' && !struck(askedAt, death.at, isOfRedis))
        wrong.push(`${id}: ${worker} stopped in order, and has not handed it back: ${event.message}`)
      const tookMs = event.at - death.at
      const during = delaying.filter(({ from, to }) => from < event.at && to > death.at)
      if (during.length > 0) disturbed++
      else recoveries.push(tookMs)
      const allowedMs =
        RECOVERY_MS + slackMs + during.reduce((sum, { from, to }) => sum + to - from + AMNESTY_MS, 0)
      if (tookMs > allowedMs)
        wrong.push(
          `${id}: ${worker} died, and its job was recovered ${tookMs} ms later, not within ${Math.round(allowedMs)}`,
        )
    }
  return { wrong, recoveries, disturbed }
}

/** Whether it strikes Redis, so that a worker may not reach it. */
const isOfRedis = ({ fault, target }: Strike) => faultOf(fault).delaysRecovery === true && target !== 'host'

const isReaper = (target: string) => (REAPERS as readonly string[]).includes(target)

const chunks = <T>(of: T[], size: number): T[][] =>
  Array.from({ length: Math.ceil(of.length / size) }, (_, i) => of.slice(i * size, (i + 1) * size))
