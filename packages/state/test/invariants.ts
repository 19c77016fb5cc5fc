// What must be true of a namespace at rest, whatever happened to it before. Answers what is not, in words: for tests, and
// for every run that tortures the library. It judges a full dump, and what the API says of it.
import { isDeepStrictEqual } from 'node:util'
import {
  canMove,
  eventOfMessage,
  fold,
  isTerminal,
  type JobEvent,
  type Jobs,
  LIMITS,
  MOVES,
  type Snapshot,
  STATES,
  type State,
} from '@jobs/state'
import { type Now, nowOf, snapshotOf } from '../src/record.ts'
import { DEFAULTS } from '../src/schema/limits.ts'
import { TAG_RANGE, TAG_VERSION } from '../src/tags.ts'
import { type Dump, dumpOf, type Entries } from './dump.ts'

export interface Expected {
  /** Accepted jobs that may be gone by now: removed, or expired after their end. */
  mayBeGone?: ReadonlySet<string>
  /** Every job has ended. */
  ended?: boolean
  /** Ended jobs expire meanwhile: counters and listings, which are read later, are left out. */
  expiring?: boolean
}

/**
 * The invariants that are broken, in words; none when all is well. Nothing may run meanwhile.
 *
 * @param ids of the jobs that were accepted: each must be there, once
 */
export const checkInvariants = async (
  jobs: Jobs,
  ids: Iterable<string>,
  { mayBeGone = new Set(), ended = false, expiring = false }: Expected = {},
): Promise<string[]> => {
  const dumps = await Promise.all(jobs.transitions.keys.map((keys) => dumpOf(jobs, keys)))
  const known = new Map<string, Snapshot>()
  const told: string[] = []
  for (const dump of dumps) {
    const wrong = dump.unknown.map((key) => `the key ${key} is in no layout`)
    for (const id of dump.hashes.keys()) wrong.push(...judgeJob(dump, id, known, ended))
    wrong.push(...strays(dump), ...lifetimes(dump))
    told.push(...wrong)
  }
  for (const id of ids)
    if (!known.has(id) && !mayBeGone.has(id)) told.push(`${id}: was accepted and is not there`)
  // What the API says of a broken store is no news.
  return told.length > 0 || expiring ? told : apiViolations(jobs, dumps, known)
}

/** Milliseconds by which two looks at the clock within one script may differ. */
const CLOCK_MS = 50

interface Options {
  retentionMs?: number
  timeoutMs?: number
  stallMs?: number
  ttlMs?: number
  priority?: string
  tags?: string
}

interface Stored {
  id: string
  hash: Record<string, string>
  now: Now
  options: Options
  queue: string
  snapshot: Snapshot
}

const storedOf = (dump: Dump, id: string): Stored | null => {
  const hash = dump.hashes.get(id) ?? {}
  const now = nowOf(hash.now)
  const snapshot = snapshotOf(id, hash)
  if (!now || !snapshot) return null
  const options = JSON.parse(hash.options ?? '{}') as Options
  const queue = options.priority ? `${snapshot.name}:${options.priority}` : snapshot.name
  return { id, hash, now, options, queue, snapshot }
}

const judgeJob = (dump: Dump, id: string, known: Map<string, Snapshot>, ended: boolean): string[] => {
  const job = storedOf(dump, id)
  if (!job) return [`${id}: the hash has no state that can be read: ${JSON.stringify(dump.hashes.get(id))}`]
  known.set(id, job.snapshot)
  const wrong = [
    ...historyViolations(dump, job),
    ...placeViolations(dump, job),
    ...lifetimeViolations(dump, job),
  ]
  if (ended && !isTerminal(job.now.state)) wrong.push(`has not ended: it is ${job.now.state}`)
  return wrong.map((each) => `${id}: ${each}`)
}

/** The stream: a payload, then events without a hole that are a legal path and fold to the hash. */
const historyViolations = (dump: Dump, job: Stored): string[] => {
  const stream = dump.streams.get(job.id)
  if (!stream) return ['there is no stream']
  const wrong = stream.some(([entry]) => entry === '0-2') ? [] : ['the stream has no payload']
  const entries = stream.filter(([entry]) => !entry.startsWith('0-'))
  const events: JobEvent[] = []
  for (const [cursor, stored] of entries) {
    const event = eventOfMessage(`${cursor} ${stored}`)
    if (!event) return [...wrong, `the entry ${cursor} is no event: ${stored.slice(0, 80)}`]
    events.push(JSON.parse(event.body) as JobEvent)
  }
  // Reports beyond the number that is kept may go, changes of state never.
  const trimmed = job.snapshot.seq > LIMITS.reportsKept
  if (!trimmed && events.some(({ seq }, i) => seq !== i + 1))
    wrong.push(`the events are not 1, 2, 3 …: ${events.map(({ seq }) => seq).join(' ')}`)
  const last = entries.at(-1)?.[0]
  if (last !== job.now.cursor) wrong.push(`the last event is ${last}, the hash stands at ${job.now.cursor}`)
  wrong.push(...pathViolations(events))
  return wrong.length > 0 ? wrong : foldViolations(job, events, trimmed)
}

const pathViolations = (events: JobEvent[]): string[] => {
  const wrong: string[] = []
  let state: State | null = null
  let attempt = 0
  for (const event of events) {
    const at = `event ${event.seq}`
    if (event.type !== 'state') {
      if (state !== 'PROCESSING' || event.attempt !== attempt)
        wrong.push(`${at}: a report of attempt ${event.attempt} while ${state} in attempt ${attempt}`)
      continue
    }
    const { to }: { to: readonly State[] } = MOVES[event.move]
    const runs = event.state === 'PROCESSING' && event.move !== 'claim' && state !== 'PROCESSING'
    if (!canMove(event.move, state) || !to.includes(event.state) || runs)
      wrong.push(`${at}: ${event.move} from ${state ?? 'nothing'} to ${event.state} is not legal`)
    const due = event.move === 'claim' ? attempt + 1 : attempt
    if (event.attempt !== due) wrong.push(`${at}: ${event.move} in attempt ${event.attempt}, not ${due}`)
    state = event.state
    attempt = event.attempt
  }
  return wrong
}

const foldViolations = ({ id, hash, snapshot }: Stored, events: JobEvent[], trimmed: boolean): string[] => {
  let folded: Snapshot | null = null
  // What was trimmed away were reports: they change nothing but the position.
  for (const event of events)
    folded = fold(folded && trimmed ? { ...folded, seq: event.seq - 1 } : folded, event, id)
  const is: Record<string, unknown> = { ...snapshot }
  const told: Record<string, unknown> = { ...folded }
  const last = events.findLast((event) => event.type === 'state' && event.move === 'complete')
  if (last?.type === 'state' && last.resultBytes !== undefined && told.state === 'COMPLETED') {
    // Too large for its event, which tells the size only.
    told.result = `${last.resultBytes} bytes`
    is.result = `${Buffer.byteLength(hash.result ?? '')} bytes`
  }
  // The last progress may have been trimmed, being a report.
  if (trimmed && !events.some(({ type }) => type === 'progress')) told.progress = is.progress
  return Object.keys(is)
    .filter((field) => !isDeepStrictEqual(is[field], told[field]))
    .map(
      (field) =>
        `${field} is ${JSON.stringify(is[field])} in the hash and ${JSON.stringify(told[field])} by the events`,
    )
}

const indices = new WeakMap<Entries, Map<string, string[]>>()
const byId = (entries: Entries): Map<string, string[]> => {
  const known = indices.get(entries)
  if (known) return known
  const index = new Map<string, string[]>()
  for (const [entry, id] of entries) index.set(id, [...(index.get(id) ?? []), entry])
  indices.set(entries, index)
  return index
}

/** QUEUED, PROCESSING: one work entry; SCHEDULED: one member; ended: none, but an entry in its list. */
const placeViolations = (dump: Dump, { id, now, options, queue, snapshot, hash }: Stored): string[] => {
  const wrong: string[] = []
  const { state } = now
  const place = hash.place ?? ''
  const at = (entries: Entries) => byId(entries).get(id) ?? []
  const works = state === 'QUEUED' || state === 'PROCESSING'
  for (const [name, { entries, pending }] of dump.work) {
    const mine = at(entries)
    const wanted = works && name === queue ? [place] : []
    if (!isDeepStrictEqual(mine, wanted))
      wrong.push(`${state} with the work entries [${mine}] in ${name}, not [${wanted}]`)
    const held = pending.filter(([entry]) => mine.includes(entry)).length
    if (state === 'PROCESSING' && name === queue && held !== 1)
      wrong.push(`PROCESSING, and its entry is pending ${held} times`)
  }
  if (works && !dump.work.has(queue)) wrong.push(`${state}, and there is no work stream ${queue}`)
  const due = dump.sets.get(dump.keys.scheduled)?.get(id)
  const wantedDue = state === 'SCHEDULED' ? Number(place) : undefined
  if (due !== wantedDue) wrong.push(`${state}, scheduled for ${due}, not ${wantedDue}`)
  const retention = options.retentionMs ?? DEFAULTS.retentionMs
  for (const [list, entries] of dump.ended) {
    const mine = at(entries)
    const wanted = list === `${state}:${retention}` ? [place] : []
    if (!isDeepStrictEqual(mine, wanted)) wrong.push(`${state} with the entries [${mine}] in ended:${list}`)
  }
  if (isTerminal(state)) {
    const list = `${state}:${retention}`
    if (!dump.ended.has(list)) wrong.push(`${state}, and there is no list ended:${list}`)
    // A list is looked at for as long as the youngest of its jobs lives; PEXPIRE looks at the clock anew, TIME before.
    const until = dump.sets.get(dump.keys.ended)?.get(list) ?? 0
    if (until + CLOCK_MS < dump.now + (dump.ttl.get(dump.keys.job(id)) ?? 0))
      wrong.push(`${state}, and the list ${list} counts as expired`)
  }
  for (const tag of options.tags?.split(' ') ?? []) {
    const [live, over] = [dump.keys.tag(tag), dump.keys.tagEnded(tag)].map((key) =>
      dump.sets.get(key)?.get(id),
    )
    if (live !== (isTerminal(state) ? undefined : snapshot.createdAt))
      wrong.push(`${state}, and ${live} in the list of the tag ${tag}`)
    if ((over !== undefined) !== isTerminal(state))
      wrong.push(`${state}, and ${over} in the list of ended jobs of the tag ${tag}`)
    if (tag.startsWith('@')) continue
    const score = dump.sets.get(dump.keys.tagStates(tag))?.get(id) ?? 0
    const counted = STATES[Math.floor(score / TAG_RANGE) - 1]
    if (counted !== state || score % TAG_RANGE !== (over ?? 0))
      wrong.push(`${state}, and ${score} among the states of the tag ${tag}`)
  }
  const rerun = (dump.streams.get(id) ?? []).some(([, event]) => event.startsWith('rerun>'))
  const deadline = dump.sets.get(dump.keys.deadlines)?.has(id) ?? false
  const limited =
    state === 'PROCESSING' ? (options.timeoutMs ?? options.stallMs) : waitsLimited(now, options, rerun)
  if (deadline !== Boolean(limited))
    wrong.push(`${state}, and ${deadline ? 'has a deadline' : 'its time is limited without a deadline'}`)
  const heartbeat = dump.heartbeats.get(id)
  if (heartbeat !== undefined && heartbeat !== `${now.fence} ${hash.worker}`)
    wrong.push(`${state} in attempt ${now.fence}, and there is a heartbeat of ${heartbeat}`)
  return wrong
}

/** A time to live limits the wait for the first attempt; a rerun is wanted however late it comes. */
const waitsLimited = (now: Now, { ttlMs }: Options, rerun: boolean): boolean =>
  ttlMs !== undefined && !isTerminal(now.state) && now.attempt === 0 && !rerun

const lifetimeViolations = (dump: Dump, { id, now, options }: Stored): string[] => {
  const retention = options.retentionMs ?? DEFAULTS.retentionMs
  return (['job', 'events'] as const).flatMap((kind) => {
    const ttl = dump.ttl.get(dump.keys[kind](id)) ?? -2
    const fine = isTerminal(now.state) ? ttl >= 0 && ttl <= retention : ttl === -1
    return fine ? [] : [`${now.state}, and its ${kind} key has ${ttl} ms to live`]
  })
}

/** From here on the states of a tag's jobs are ended ones; no other score is as high. */
const ENDED_SCORE = (STATES.findIndex(isTerminal) + 1) * TAG_RANGE

/** What stands in a list and belongs to no job, or to one that has gone. */
const strays = (dump: Dump): string[] => {
  const wrong: string[] = []
  const { keys } = dump
  const is = (id: string) => dump.hashes.has(id)
  for (const id of dump.streams.keys()) {
    // Both expire at one time, give or take a look at the clock.
    const ttl = dump.ttl.get(keys.events(id)) ?? -2
    if (!is(id) && (ttl < 0 || ttl > CLOCK_MS)) wrong.push(`${id}: a stream without a hash`)
  }
  for (const id of dump.heartbeats.keys()) if (!is(id)) wrong.push(`${id}: a heartbeat without a job`)
  for (const [queue, { entries, pending }] of dump.work) {
    if (!dump.queues.has(queue)) wrong.push(`the work stream ${queue} is not among the queues`)
    for (const [entry, id] of entries)
      if (!is(id)) wrong.push(`${id}: the work entry ${entry} in ${queue} of no job`)
    const there = new Set(entries.map(([entry]) => entry))
    for (const [entry, worker] of pending)
      if (!there.has(entry)) wrong.push(`${entry} is pending for ${worker} in ${queue} and not in the stream`)
  }
  for (const [key, members] of dump.sets) {
    members.delete(TAG_VERSION)
    const lasting = key === keys.scheduled || key === keys.deadlines || (dump.ttl.get(key) ?? 0) < 0
    if (lasting)
      // What has expired stays among the states until the next job ends likewise.
      for (const [id, score] of members)
        if (!is(id) && score < ENDED_SCORE) wrong.push(`${id}: a member of ${key} and no job`)
  }
  return wrong
}

/** Keys that may stay for ever, beside those of jobs that have not ended. */
const lifetimes = (dump: Dump): string[] => {
  const { keys } = dump
  const fixed = new Set<string>(
    (['queues', 'stream', 'scheduled', 'deadlines', 'paused', 'sweep', 'layout'] as const).map(
      (name) => keys[name],
    ),
  )
  const mayStay = (key: string) =>
    fixed.has(key) ||
    key.startsWith(keys.work('')) ||
    // Judged with their job.
    key.startsWith(keys.job('')) ||
    key.startsWith(keys.events('')) ||
    // Live jobs only: each member was found to be one.
    (key.startsWith(keys.tag('')) && !key.endsWith(':ended') && !key.endsWith(':states')) ||
    (key.endsWith(':states') && dump.sets.has(key.slice(0, -':states'.length)))
  return [...dump.ttl].flatMap(([key, ttl]) => {
    if (ttl === -1) return mayStay(key) ? [] : [`the key ${key} has no time to live`]
    return key.endsWith(':states') && mayStay(key)
      ? [`${key} goes in ${ttl} ms, and some have not ended`]
      : []
  })
}

/** Counters, queues and listings against the hashes. */
const apiViolations = async (jobs: Jobs, dumps: Dump[], known: Map<string, Snapshot>): Promise<string[]> => {
  const wrong: string[] = []
  // One that was given to a worker and is not yet claimed counts as being processed.
  const given = new Set(
    dumps.flatMap(({ work }) =>
      [...work.values()].flatMap(({ entries, pending }) => {
        const held = new Set(pending.map(([entry]) => entry))
        return entries.filter(([entry]) => held.has(entry)).map(([, id]) => id)
      }),
    ),
  )
  const counted = ({ id, state }: Snapshot): State =>
    state === 'QUEUED' && given.has(id) ? 'PROCESSING' : state
  const all = [...known.values()]
  const differ = (what: string, said: unknown, is: unknown) => {
    if (!isDeepStrictEqual(said, is))
      wrong.push(`${what} says ${JSON.stringify(said)}, there is ${JSON.stringify(is)}`)
  }

  const counts = Object.fromEntries(
    STATES.map((state) => [state, all.filter((job) => counted(job) === state).length]),
  )
  differ('counts()', await jobs.counts(), counts)

  for (const { name, priority, queued, processing } of await jobs.queues()) {
    const mine = all.filter((job) => job.name === name && job.priority === priority).map(counted)
    const is = [
      mine.filter((state) => state === 'QUEUED').length,
      mine.filter((state) => state === 'PROCESSING').length,
    ]
    differ(`queues() of ${name} ${priority}`, [queued, processing], is)
  }

  const listed = async (by: Parameters<Jobs['list']>[0]) => {
    const ids: string[] = []
    for (let cursor: string | null | undefined; cursor !== null; ) {
      const page = await jobs.list({ ...by, limit: 1_000, ...(cursor ? { cursor } : {}) })
      ids.push(...page.jobs.map(({ id }) => id))
      cursor = page.cursor
    }
    return ids.sort()
  }
  const those = (fits: (job: Snapshot) => boolean) =>
    all
      .filter(fits)
      .map(({ id }) => id)
      .sort()
  for (const state of STATES)
    differ(
      `list of ${state}`,
      await listed({ state }),
      those((job) => job.state === state),
    )
  for (const tag of new Set(all.flatMap(({ tags }) => tags)))
    differ(
      `counts of the tag ${tag}`,
      await jobs.counts({ tag }),
      Object.fromEntries(
        STATES.map((state) => [
          state,
          all.filter((job) => job.state === state && job.tags.includes(tag)).length,
        ]),
      ),
    )
  for (const tag of new Set(all.flatMap(({ tags }) => tags)))
    differ(
      `list of the tag ${tag}`,
      await listed({ tag }),
      those(({ tags }) => tags.includes(tag)),
    )
  for (const owner of new Set(all.flatMap(({ owner }) => owner ?? [])))
    differ(
      `list of the owner ${owner}`,
      await listed({ owner }),
      those((job) => job.owner === owner),
    )
  return wrong
}
