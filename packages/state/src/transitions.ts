// The only place that changes a job: one typed function per move, each one Lua script. Expected outcomes are values.
// Every one of them may be repeated when its reply was lost and then answers as the first time.
import { z } from 'zod'
import { type Keys, keysOf, partitionOf } from './keys.ts'
import type { RedisLink } from './redis.ts'
import { type MoveName, STATES, type State } from './schema/machine.ts'
import { SCRIPTS } from './scripts.generated.ts'

/** A move that was refused, and changed nothing. */
export interface Rejection {
  ok: false
  /**
   * `unknown_job`: no such job. `illegal`: not from its state. `fenced`: the attempt is not the current one.
   * `conflict`: the id is taken by another job. `stale_entry`: the work entry is not the job's current one.
   * `no_cancel_requested`: abort without a cancel.
   */
  reason: 'unknown_job' | 'illegal' | 'fenced' | 'conflict' | 'stale_entry' | 'no_cancel_requested'
  /** The state that forbade it; null when there is no such job. */
  state: State | null
}

export interface Moved {
  ok: true
  cursor: string
  state: State
  /** Whether the move had been made before; then this call changed nothing. */
  repeat: boolean
}

export type Outcome = Moved | Rejection

/** One attempt of one job, as a worker holds it. */
export interface Attempt {
  id: string
  fence: string
}

export interface Grant extends Attempt {
  ok: true
  cursor: string
  attempt: number
  failures: number
  maxAttempts: number
  createdAt: number
  /** The caller's bytes of enqueue. */
  payload: string
}

export interface Enqueue {
  id: string
  name: string
  payload: string
  /** Milliseconds until it may run; 0 for now. */
  delayMs: number
  maxAttempts: number
  maxCrashes: number
  /** Milliseconds that the ended job stays readable. */
  retentionMs: number
}

/** What a sweep did with one entry. `rearmed` is amnesty; `leftover` and `redelivered` are repairs. */
export interface Reaped {
  id: string
  outcome: 'QUEUED' | 'FAILED' | 'CANCELLED' | 'SCHEDULED' | 'rearmed' | 'leftover' | 'redelivered' | 'error'
  /** The lost worker; for `error`, what Redis said. */
  detail: string
}

export interface SweepStep {
  /** Where the next step goes on; `0-0` when the sweep is through. */
  cursor: string
  amnesty: boolean
  reaped: Reaped[]
}

const Rejected = z.tuple([
  z.literal('rejected'),
  z.enum(['unknown_job', 'illegal', 'fenced', 'conflict', 'stale_entry', 'no_cancel_requested']),
  z.enum(STATES).or(z.literal('')),
])
const Ok = z.tuple([z.literal('ok'), z.string(), z.enum(STATES)], z.string())
const Answer = z.union([Ok, Rejected])
const SweepAnswer = z.tuple([z.string(), z.enum(['0', '1'])], z.string())
const PromoteAnswer = z.tuple([z.string(), z.string()])

export type Transitions = ReturnType<typeof transitionsOf>

export const transitionsOf = (link: RedisLink, namespace: string, partitions: number) => {
  const all: Keys[] = Array.from({ length: partitions }, (_, partition) => keysOf(namespace, partition))
  const keysFor = (id: string): Keys => all[partitionOf(id, partitions)] as Keys

  const run = async (
    move: MoveName,
    id: string,
    args: object,
    payload = '',
  ): Promise<z.infer<typeof Answer>> => {
    const keys = keysFor(id)
    const reply = await link.script(
      SCRIPTS[move],
      keys.job(id),
      JSON.stringify({ prefix: keys.prefix, id, ...args }),
      payload,
    )
    return Answer.parse(reply)
  }

  const move = async (name: MoveName, id: string, args: object, payload?: string): Promise<Outcome> =>
    outcome(await run(name, id, args, payload))

  return {
    keys: all,
    keysFor,

    enqueue: ({ payload, id, ...args }: Enqueue) => move('enqueue', id, args, payload),

    /** `nonce` makes the fence; repeat a claim with the same nonce. */
    claim: async (
      id: string,
      args: { entry: string; worker: string; nonce: string; leaseMs: number },
    ): Promise<Grant | Rejection> => {
      const answer = await run('claim', id, args)
      if (answer[0] === 'rejected') return rejection(answer)
      const [, cursor, , fence, attempt, failures, maxAttempts, createdAt, payload] = answer
      return {
        ok: true,
        id,
        cursor,
        fence: fence ?? '',
        attempt: Number(attempt),
        failures: Number(failures),
        maxAttempts: Number(maxAttempts),
        createdAt: Number(createdAt),
        payload: payload ?? '',
      }
    },

    heartbeat: async ({
      id,
      fence,
    }: Attempt): Promise<(Moved & { cancelRequested: boolean }) | Rejection> => {
      const answer = await run('heartbeat', id, { fence })
      const moved = outcome(answer)
      return moved.ok ? { ...moved, cancelRequested: answer[3] === 'cancel' } : moved
    },

    /** `op` counts the reports (progress and log lines) of the attempt from 1. `progress` is JSON text. */
    progress: ({ id, fence }: Attempt, op: number, progress: string) =>
      move('progress', id, { fence, op }, progress),
    log: ({ id, fence }: Attempt, op: number, line: string) =>
      move('log', id, { fence, op }, JSON.stringify(line)),
    complete: ({ id, fence }: Attempt, result: string) => move('complete', id, { fence }, result),
    /** `error` is JSON text of a JobError. */
    fail: ({ id, fence }: Attempt, error: string) => move('fail', id, { fence }, error),
    retry: ({ id, fence }: Attempt, error: string, delayMs: number) =>
      move('retry', id, { fence, delayMs }, error),
    release: ({ id, fence }: Attempt) => move('release', id, { fence }),
    abort: ({ id, fence }: Attempt) => move('abort', id, { fence }),
    cancel: (id: string) => move('cancel', id, {}),
    rerun: (id: string) => move('rerun', id, {}),

    /** Queues at most `count` due jobs of a partition; says in how many milliseconds the next is due (null: none). */
    promote: async (
      partition: Keys,
      count: number,
    ): Promise<{ promoted: number; nextInMs: number | null }> => {
      const reply = await link.script(
        SCRIPTS.promote,
        partition.scheduled,
        JSON.stringify({ prefix: partition.prefix, count }),
        '',
      )
      const [promoted, next] = PromoteAnswer.parse(reply)
      return { promoted: Number(promoted), nextInMs: next === '' ? null : Number(next) }
    },

    /** One bounded step of a sweep over the work stream of `name`. */
    reap: async (
      partition: Keys,
      name: string,
      args: { cursor: string; count: number; minIdleMs: number; maxGapMs: number; amnesty: boolean },
    ): Promise<SweepStep> => {
      const reply = await link.script(
        SCRIPTS.reap,
        partition.work(name),
        JSON.stringify({ prefix: partition.prefix, name, ...args }),
        '',
      )
      const [cursor, amnesty, ...rest] = SweepAnswer.parse(reply)
      const reaped: Reaped[] = []
      for (let i = 0; i + 2 < rest.length; i += 3)
        reaped.push({
          id: rest[i] as string,
          outcome: rest[i + 1] as Reaped['outcome'],
          detail: rest[i + 2] as string,
        })
      return { cursor, amnesty: amnesty === '1', reaped }
    },
  }
}

const rejection = ([, reason, state]: z.infer<typeof Rejected>): Rejection => ({
  ok: false,
  reason,
  state: state === '' ? null : state,
})

const outcome = (answer: z.infer<typeof Answer>): Outcome =>
  answer[0] === 'rejected'
    ? rejection(answer)
    : { ok: true, cursor: answer[1], state: answer[2], repeat: answer[3] === 'repeat' }
