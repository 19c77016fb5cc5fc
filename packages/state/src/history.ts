// A job's attempts, told from the changes of state in its stream.
import type { JobEvent } from './schema/event.ts'
import type { JobError } from './schema/job.ts'
import type { State } from './schema/machine.ts'

export interface AttemptRecord {
  attempt: number
  worker: string
  /** Milliseconds of Redis' clock; `endedAt` is null while it runs. */
  startedAt: number
  endedAt: number | null
  /**
   * `retrying`: it failed and another was to follow. `crashed`: its worker died. `timed_out`: the reaper ended it.
   * `cancelled`: it was stopped by, or handed back after, a cancel.
   */
  outcome:
    | 'running'
    | 'completed'
    | 'failed'
    | 'retrying'
    | 'released'
    | 'cancelled'
    | 'crashed'
    | 'timed_out'
  error: JobError | null
}

const OUTCOMES: Partial<Record<string, AttemptRecord['outcome']>> = {
  complete: 'completed',
  fail: 'failed',
  retry: 'retrying',
  release: 'released',
  abort: 'cancelled',
  reap: 'crashed',
  timeout: 'timed_out',
}

/** A cancel that the worker had not heard of ends the job at whatever the worker does next. */
const outcomeOf = (move: string, state: State): AttemptRecord['outcome'] | undefined => {
  if (state === 'CANCELLED' && move === 'retry') return 'failed'
  if (state === 'CANCELLED' && move === 'release') return 'cancelled'
  return OUTCOMES[move]
}

export const attemptsOf = (changes: readonly JobEvent[]): AttemptRecord[] => {
  const attempts: AttemptRecord[] = []
  for (const event of changes) {
    if (event.type !== 'state') continue
    const running = attempts.at(-1)
    // A move of a later release that leaves no attempt running has ended the one that was.
    const outcome =
      outcomeOf(event.move, event.state) ?? (event.state === 'PROCESSING' ? undefined : 'released')
    if (event.move === 'claim')
      attempts.push({
        attempt: event.attempt,
        worker: event.worker ?? '',
        startedAt: event.at,
        endedAt: null,
        outcome: 'running',
        error: null,
      })
    else if (outcome && running?.endedAt === null)
      Object.assign(running, { endedAt: event.at, outcome, error: event.error ?? null })
  }
  return attempts
}
