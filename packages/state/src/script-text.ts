// The strings that scripts are given and answer, and what they stand for.
import { MoveFailed } from './apply.ts'
import { StateError } from './errors.ts'
import type { Enqueue, EnqueueOutcome, Grant, Outcome, Rate, Rejection } from './outcomes.ts'
import { DEFAULTS } from './schema/limits.ts'
import type { State } from './schema/machine.ts'

export const rateArgs = (rate: Rate | undefined) => (rate ? [String(rate.max), String(rate.perMs)] : ['', ''])

/** Strings of one grant in an answer, in the order of grant.lua. */
export const GRANT_SIZE = 8

const NO_OPTIONS: Partial<Record<'maxAttempts' | 'timeoutMs' | 'stallMs' | 'leaseMs', number>> &
  Partial<Record<'backoff' | 'trace' | 'tags', string>> = {}

/** What Lua takes for JSON need not be any. */
const optionsOf = (text: string | undefined): typeof NO_OPTIONS => {
  if (!text) return NO_OPTIONS
  try {
    return JSON.parse(text) as typeof NO_OPTIONS
  } catch (cause) {
    throw new MoveFailed('REDIS_REFUSED', `The options are no JSON: ${text.slice(0, 100)}`, { cause })
  }
}

export const grantOf = (answer: string[], at: number, leaseMs: number): Grant => {
  const fence = answer[at + 2] as string
  const options = optionsOf(answer[at + 6])
  return {
    ok: true,
    id: answer[at] as string,
    cursor: answer[at + 1] as string,
    fence,
    attempt: Number.parseInt(fence, 10),
    failures: Number(answer[at + 3]),
    maxAttempts: options.maxAttempts ?? DEFAULTS.maxAttempts,
    createdAt: Number(answer[at + 4]),
    backoff: options.backoff ?? '',
    leaseMs: options.leaseMs ?? leaseMs,
    timeoutMs: options.timeoutMs ?? 0,
    stallMs: options.stallMs ?? 0,
    checkpoint: answer[at + 5] as string,
    trace: options.trace ?? '',
    tags: options.tags ?? '',
    payload: answer[at + 7] as string,
  }
}

export const rejection = ([, reason, state, retryInMs]: string[]): Rejection => ({
  ok: false,
  reason: reason as Rejection['reason'],
  state: state ? (state as State) : null,
  ...(retryInMs === undefined ? {} : { retryInMs: Number(retryInMs) }),
})

export const outcome = (answer: string[]): Outcome => {
  const [verdict, cursor, state, repeat] = answer
  if (verdict === 'rejected') return rejection(answer)
  if (verdict === 'ok' && cursor && state)
    return { ok: true, cursor, state: state as State, repeat: repeat === 'repeat' }
  throw new StateError('REDIS_REFUSED', 'Redis gave an answer that no transition gives.')
}

export const enqueued = (answer: string[]): EnqueueOutcome => {
  const [verdict, cursor = '', state, repeat, id = ''] = answer
  if (verdict === 'rejected') return rejection(answer)
  if (verdict !== 'ok')
    throw new StateError('REDIS_REFUSED', `enqueue failed in Redis: ${String(cursor).slice(0, 200)}`)
  return { ok: true, id, cursor, state: state ? (state as State) : null, repeat: repeat === 'repeat' }
}

/** Only what is not the default is written, to the hash and to the event. */
export const enqueueArgs = (job: Enqueue): string[] => {
  const options: Record<string, string | number> = {}
  let told = ''
  for (const [name, value] of Object.entries(job.options)) {
    if (value === undefined || value === (DEFAULTS as Record<string, unknown>)[name]) continue
    if (name !== 'tags' && name !== 'owner') options[name] = value as string | number
    if (TOLD.has(name) && (!Array.isArray(value) || value.length > 0))
      told += `,"${name}":${JSON.stringify(value)}`
  }
  const labels = [
    ...(job.options.tags ?? []),
    ...(job.options.owner === undefined ? [] : [`@${job.options.owner}`]),
  ]
  if (labels.length > 0) options.tags = labels.join(' ')
  return [
    job.id,
    job.name,
    job.payload,
    String(job.delayMs),
    job.runAt === undefined ? '' : String(job.runAt),
    job.key ?? '',
    job.key === undefined ? '' : String(job.keyMs),
    Object.keys(options).length > 0 ? JSON.stringify(options) : '',
    told,
  ]
}

/** Options that the event of enqueue tells. */
const TOLD: ReadonlySet<string> = new Set(['maxAttempts', 'maxCrashes', 'priority', 'tags', 'owner'])
