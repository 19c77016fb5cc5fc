// A job made again of its history: the fold of its events is the specification of its hash, so it may stand in for one that
// was lost. What no event tells is lost: checkpoint, time limits, lease, retention, backoff, rate key.
import { eventOfMessage } from '../events.ts'
import type { Keys } from '../keys.ts'
import { fieldsOf, nowOf, runOf, snapshotOf } from '../record.ts'
import type { RedisLink } from '../redis.ts'
import { fold, JobEvent } from '../schema/event.ts'
import type { Snapshot } from '../schema/job.ts'
import { DEFAULTS } from '../schema/limits.ts'
import { isTerminal } from '../schema/machine.ts'

type Fields = Record<string, string>

const isJson = (text: string | undefined): boolean => {
  try {
    JSON.parse(text ?? '')
    return true
  } catch {
    return false
  }
}

const eventsOf = (entries: [string, string[]][]): JobEvent[] | null => {
  const events: JobEvent[] = []
  for (const [cursor, [, stored]] of entries) {
    if (cursor.startsWith('0-')) continue
    const told = eventOfMessage(`${cursor} ${stored}`)
    if (!told) return null
    if (!isJson(told.body)) return null
    const event = JobEvent.safeParse(JSON.parse(told.body))
    if (!event.success) return null
    events.push(event.data)
  }
  return events
}

/** From the first event on; where that is gone, from what the hash still knows. */
const folded = (id: string, events: JobEvent[], hash: Snapshot | null): Snapshot | null => {
  const whole = events[0]?.seq === 1
  let job = whole ? null : hash
  if (!whole && !hash) return null
  for (const event of events) {
    if (job && event.seq <= job.seq) continue
    // Reports in between may have been trimmed: they change nothing but the position.
    if (!job && event.type !== 'state') return null
    job = fold(job && { ...job, seq: event.seq - 1 }, event, id)
  }
  return job
}

const optionsOf = ({ maxAttempts, maxCrashes, priority, tags, owner }: Snapshot): string => {
  const labels = [...tags, ...(owner === null ? [] : [`@${owner}`])].join(' ')
  const options = {
    ...(maxAttempts === DEFAULTS.maxAttempts ? {} : { maxAttempts }),
    ...(maxCrashes === DEFAULTS.maxCrashes ? {} : { maxCrashes }),
    ...(priority === 'normal' ? {} : { priority }),
    ...(labels ? { tags: labels } : {}),
  }
  return Object.keys(options).length > 0 ? JSON.stringify(options) : ''
}

/** A worker that still has the attempt as the hash knows it goes on; any other is fenced off. */
const nowText = (job: Snapshot, last: string, cursor: string, hash: Fields): string => {
  const before = nowOf(hash.now)
  const goesOn = before?.state === job.state && before.attempt === job.attempt
  const [, , , , op, , , , ...later] = (hash.now ?? '').split(' ')
  const flags = `${job.cancelRequested ? 'x' : ''}${hash.checkpoint === undefined || isTerminal(job.state) ? '' : 'k'}${job.error ? 'e' : ''}`
  const words = [job.state, cursor, last, goesOn ? before.fence : `${job.attempt}-`, goesOn ? op : '0']
  return [...words, flags || '-', job.failures, job.crashes, ...(before ? later : [])].join(' ')
}

const fieldsFor = (job: Snapshot, hash: Fields): Fields => {
  const fields: Fields = {
    name: hash.name ?? job.name,
    createdAt: hash.createdAt ?? String(job.createdAt),
    place: job.runAt === null ? (hash.place ?? '0-0') : String(job.runAt),
  }
  const options = isJson(hash.options) ? hash.options : optionsOf(job)
  if (options) fields.options = options
  if (job.startedAt !== null) {
    const { leaseMs } = runOf(hash.run)
    fields.run = job.state === 'PROCESSING' ? `${job.startedAt} ${leaseMs}` : String(job.startedAt)
  }
  if (job.state === 'PROCESSING') fields.worker = job.worker ?? ''
  for (const name of ['progress', 'result', 'error'] as const)
    if (job[name] !== null) fields[name] = JSON.stringify(job[name])
  return fields
}

/** The argument `restore` of lua/mend.lua; null when the history does not tell enough. */
export const restoreArgument = async (link: RedisLink, keys: Keys, id: string): Promise<string | null> => {
  const [reply, entries] = await link.atomic([
    ['HMGET', keys.job(id), ...FIELDS],
    ['XRANGE', keys.events(id), '-', '+'],
  ])
  const values = reply as (string | null)[]
  const hash: Fields = {}
  for (const [i, field] of FIELDS.entries()) if (values[i] !== null) hash[field] = String(values[i])
  const stream = entries as [string, string[]][]
  const events = eventsOf(stream)
  const cursor = stream.at(-1)?.[0]
  const change = events?.findLast((event) => event.type === 'state')
  if (!events || !cursor || change?.type !== 'state') return null
  const known = hash.name === undefined ? null : snapshotOf(id, fieldsOf(hash))
  const job = folded(id, events, known)
  if (!job) return null
  if (job.state === 'COMPLETED' && change.resultBytes !== undefined) {
    // Too large for its event.
    if (hash.result === undefined) return null
    job.result = null
  }
  const fields = { now: nowText(job, change.move, cursor, hash), ...fieldsFor(job, hash) }
  return JSON.stringify([cursor, hash.now ?? '', ...Object.entries(fields).flat()])
}

const FIELDS = [
  'now',
  'place',
  'name',
  'createdAt',
  'options',
  'run',
  'worker',
  'progress',
  'checkpoint',
  'result',
  'error',
] as const
