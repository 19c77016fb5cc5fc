// The only place that changes a job: one typed function per move, each one Lua file. Expected outcomes are values.
// Every one of them may be repeated when its reply was lost and then answers as the first time.
import { randomBytes } from 'node:crypto'
import { Applier, type Name } from './apply.ts'
import { type Keys, keysOf, partitionOf } from './keys.ts'
import type {
  Attempt,
  Beating,
  Claimant,
  Enqueue,
  EnqueueOutcome,
  Expired,
  Grant,
  Moved,
  Outcome,
  Promoted,
  Reaped,
  Rejection,
  SweepStep,
  Taken,
  Verdict,
} from './outcomes.ts'
import type { RedisLink } from './redis.ts'
import { enqueueArgs, enqueued, GRANT_SIZE, grantOf, outcome, rateArgs, rejection } from './script-text.ts'
import { SCRIPTS } from './scripts.generated.ts'
import { Tick } from './tick.ts'

/** Milliseconds after which a paused worker asks again. */
const PAUSED_MS = 1_000

export type Transitions = ReturnType<typeof transitionsOf>

export const transitionsOf = (link: RedisLink, namespace: string, partitions: number) => {
  const all: Keys[] = Array.from({ length: partitions }, (_, partition) => keysOf(namespace, partition))
  const tick = new Tick()
  const appliers = all.map(({ prefix }) => new Applier(link, prefix, tick))
  const applierFor = (id: string) => appliers[partitionOf(id, partitions)] as Applier
  const applierOf = (keys: Keys) => appliers[all.indexOf(keys)] as Applier

  const move = async (name: Name, id: string, ...args: string[]): Promise<Outcome> =>
    outcome(await applierFor(id).send(name, id, ...args))

  const pass = async (name: 'promote' | 'reap' | 'expire', keys: Keys, ...args: (string | number)[]) =>
    (await link.script(SCRIPTS[name], keys.prefix, [
      keys.prefix,
      link.publish,
      ...args.map(String),
    ])) as string[]

  return {
    keys: all,
    /** Runs when the tick ends, before what it produced is sent: to add to it. */
    finally: (add: () => void) => tick.finally(add),
    keysFor: (id: string): Keys => all[partitionOf(id, partitions)] as Keys,

    enqueue: async (job: Enqueue): Promise<EnqueueOutcome> =>
      enqueued(await applierFor(job.id).send('enqueue', ...enqueueArgs(job))),

    /** Jobs of one partition: all of them, or none and every answer is a rejection. */
    enqueueAll: async (jobs: Enqueue[]): Promise<EnqueueOutcome[]> => {
      const [first] = jobs
      if (!first) return []
      return (await applierFor(first.id).all('enqueue', jobs.map(enqueueArgs))).map(enqueued)
    },

    /** Repeat a claim with the same nonce. */
    claim: async (id: string, entry: string, by: Claimant): Promise<Grant | Rejection> => {
      const { worker, nonce, leaseMs, rate, ratePerKey } = by
      const args = [entry, worker, nonce, String(leaseMs), ...rateArgs(rate), ...rateArgs(ratePerKey)]
      const answer = await applierFor(id).send('claim', id, ...args)
      return answer[0] === 'rejected' ? rejection(answer) : grantOf(answer, 3, leaseMs)
    },

    /** Claims queued jobs of a partition, as many as `count` says when the tick ends, and what the tick enqueues too. */
    take: async (
      partition: Keys,
      name: string,
      count: number | (() => number),
      by: Claimant,
    ): Promise<Taken> => {
      const { worker, nonce, leaseMs, rate, ratePerKey } = by
      const answer = await applierOf(partition).sendLast('take', () => [
        name,
        worker,
        nonce,
        String(leaseMs),
        String(typeof count === 'number' ? count : count()),
        ...rateArgs(rate),
        ...rateArgs(ratePerKey),
      ])
      if (answer[0] !== 'ok')
        return { grants: [], broken: [], retryInMs: answer[0] === 'paused' ? PAUSED_MS : Number(answer[1]) }
      const taken: Taken = { grants: [], broken: [], retryInMs: 0 }
      let at = 2
      for (const end = at + Number(answer[1]) * GRANT_SIZE; at < end; at += GRANT_SIZE)
        try {
          taken.grants.push(grantOf(answer, at, leaseMs))
        } catch {
          // It is granted: a claim, whatever entry it names, answers the same once more.
          taken.broken.push([answer[at] as string, ''])
        }
      for (; at < answer.length; at += 2) taken.broken.push([answer[at] as string, answer[at + 1] as string])
      return taken
    },

    heartbeat: async ({
      id,
      fence,
    }: Attempt): Promise<(Moved & { cancelRequested: boolean }) | Rejection> => {
      const answer = await applierFor(id).send('heartbeat', id, fence)
      const moved = outcome(answer)
      return moved.ok ? { ...moved, cancelRequested: answer[3] === 'cancel' } : moved
    },

    /**
     * Says that a worker process and these attempts of it are alive: one call for each partition in which it has any.
     * Answers, in the same order, what they must hear.
     */
    beat: async (
      worker: string,
      name: string,
      attempts: readonly Beating[],
    ): Promise<(Verdict | undefined)[]> => {
      const verdicts: (Verdict | undefined)[] = new Array(attempts.length).fill(undefined)
      const byPartition = new Map<number, number[]>()
      for (const [i, { id }] of attempts.entries()) {
        const partition = partitionOf(id, partitions)
        const those = byPartition.get(partition)
        if (those) those.push(i)
        else byPartition.set(partition, [i])
      }
      await Promise.all(
        [...byPartition].map(async ([partition, those]) => {
          const told = those.map((i) => {
            const { id, fence, leaseMs } = attempts[i] as Beating
            return `${id} ${fence} ${leaseMs}`
          })
          const answer = await (appliers[partition] as Applier).send('beat', worker, name, told.join('\n'))
          for (let at = 1; at + 1 < answer.length; at += 2)
            verdicts[those[Number(answer[at]) - 1] as number] = answer[at + 1] as Verdict
        }),
      )
      return verdicts
    },

    /** `op` counts the reports (progress and log lines) of the attempt from 1. `progress` is JSON text. */
    progress: ({ id, fence }: Attempt, op: number, progress: string) =>
      move('progress', id, fence, String(op), progress),
    log: ({ id, fence }: Attempt, op: number, line: string) =>
      move('log', id, fence, String(op), JSON.stringify(line)),
    /** `data` is JSON text. */
    checkpoint: ({ id, fence }: Attempt, data: string) => move('checkpoint', id, fence, data),
    /** `progress` is the last progress as JSON text if it has not been told yet, else ''. */
    complete: ({ id, fence }: Attempt, result: string, progress = '') =>
      move('complete', id, fence, progress, result),
    /** `error` is JSON text of a JobError. */
    fail: ({ id, fence }: Attempt, error: string, progress = '') => move('fail', id, fence, progress, error),
    retry: ({ id, fence }: Attempt, error: string, delayMs: number, progress = '') =>
      move('retry', id, fence, progress, error, String(delayMs)),
    release: ({ id, fence }: Attempt, progress = '') => move('release', id, fence, progress),
    abort: ({ id, fence }: Attempt, progress = '') => move('abort', id, fence, progress),
    cancel: (id: string) => move('cancel', id, opOf()),
    reschedule: (id: string, delayMs: number, runAt?: number) =>
      move('reschedule', id, String(delayMs), runAt === undefined ? '' : String(runAt), opOf()),
    rerun: (id: string) => move('rerun', id, opOf()),
    remove: (id: string) => move('remove', id),

    /** Stops claims of a job name (`*`: of every name) in every partition, or lets them go on. */
    pause: (name: string) => Promise.all(appliers.map((applier) => applier.send('pause', name))),
    resume: (name: string) => Promise.all(appliers.map((applier) => applier.send('resume', name))),

    /** False: too many stand already. `at` is the issuer's milliseconds. Kept in partition 0. */
    revoke: async (what: string, at: number): Promise<boolean> =>
      (await (appliers[0] as Applier).send('revoke', what, String(at)))[0] === 'ok',

    /** `about` is JSON text. Worker processes are told of in partition 0. */
    present: (worker: string, ttlMs: number, about: string) =>
      (appliers[0] as Applier).send('present', worker, String(ttlMs), about),
    absent: (worker: string) => (appliers[0] as Applier).send('absent', worker),

    /**
     * Queues at most `count` due jobs of a partition; says in how many milliseconds the next is due (null: none).
     *
     * @param skip only tells of them, those after so many, and writes nothing
     */
    promote: async (
      partition: Keys,
      count: number,
      skip?: number,
    ): Promise<{ promoted: Promoted[]; nextInMs: number | null }> => {
      const [next, ...due] = await pass('promote', partition, count, skip ?? '')
      const promoted: Promoted[] = []
      for (let i = 0; i + 1 < due.length; i += 2)
        promoted.push({ id: due[i] as string, lateMs: Number(due[i + 1]) })
      return { promoted, nextInMs: next === '' ? null : Number(next) }
    },

    /** Ends what is over its time among at most `count` jobs of a partition; `skip` as above. `more` may be left. */
    expire: async (
      partition: Keys,
      count: number,
      skip?: number,
    ): Promise<{ expired: Expired[]; more: boolean }> => {
      const [looked, ...over] = await pass('expire', partition, count, skip ?? '')
      const expired: Expired[] = []
      for (let i = 0; i + 3 < over.length; i += 4)
        expired.push({
          id: over[i] as string,
          outcome: over[i + 1] as Expired['outcome'],
          says: over[i + 2] as string,
          cause: over[i + 3] as Expired['cause'],
        })
      return { expired, more: Number(looked) === count }
    },

    /** One bounded step of a sweep over the work stream of a queue. */
    reap: async (
      partition: Keys,
      queue: string,
      args: {
        cursor: string
        count: number
        minIdleMs: number
        /** A longer silence of Redis opens an amnesty, for as long. */
        maxGapMs: number
        /** A longer one forgives, for a lease, a job of whose lease it is more than two fifths; without it none does. */
        silenceMs?: number
        amnesty: boolean
        /** Looks at what anybody holds, not only at what silent workers do. */
        whole?: boolean
        /** Only tells what it would do, and writes nothing. */
        dry?: boolean
      },
    ): Promise<SweepStep> => {
      const { cursor: from, count, minIdleMs, maxGapMs } = args
      const reply = await pass(
        'reap',
        partition,
        queue,
        from,
        count,
        minIdleMs,
        maxGapMs,
        args.silenceMs ?? '',
        args.amnesty ? '1' : '0',
        args.whole ? '1' : '0',
        args.dry ? '1' : '0',
      )
      const [cursor = '0-0', amnesty, ...rest] = reply
      const reaped: Reaped[] = []
      for (let i = 0; i + 4 < rest.length; i += 5)
        reaped.push({
          id: rest[i] as string,
          outcome: rest[i + 1] as Reaped['outcome'],
          detail: rest[i + 2] as string,
          silentMs: rest[i + 3] === '' ? null : Number(rest[i + 3]),
          says: rest[i + 4] as string,
        })
      return { cursor, amnesty: amnesty === '1', reaped }
    },
  }
}

/** The name of one steering move, by which Redis knows it again when its reply was lost and it comes once more. */
const opOf = () => randomBytes(4).toString('hex')
