// Takes new jobs in, one or a batch: checked, made in Redis, and confirmed as far as the caller asked.

import type { ConnectOptions } from './connect-options.ts'
import type { JobDefinition } from './define.ts'
import { type Ack, Confirmer } from './durability.ts'
import { type EnqueueOptions, enqueueOf } from './enqueue.ts'
import { isStateError, StateError } from './errors.ts'
import { partitionOf } from './keys.ts'
import type { Enqueue, EnqueueOutcome, Rejection } from './outcomes.ts'
import type { RedisLink } from './redis.ts'
import { checkRights } from './rights.ts'
import { LIMITS } from './schema/limits.ts'
import type { State } from './schema/machine.ts'
import type { Transitions } from './transitions.ts'

export interface Enqueued {
  id: string
  cursor: string
  /** Null when the idempotency key outlived its job. */
  state: State | null
  /** The job had been enqueued before, with this id or key. */
  duplicate: boolean
  /** The level that was asked for, and reached. */
  ack: Ack
}

/** One job of a batch. `id` is the job's even when it was refused: repeat with it what may have been executed. */
export type BatchItem = ({ ok: true } & Enqueued) | { ok: false; id: string | null; error: StateError }

export class Intake {
  private readonly transitions: Transitions
  private readonly partitions: number
  private readonly ack: Ack
  private readonly confirmer: Confirmer
  private readonly link: RedisLink
  /** Job names whose rights were asked for, before the first job of each. */
  private readonly allowed = new Map<string, Promise<void>>()

  constructor(link: RedisLink, transitions: Transitions, options: ConnectOptions) {
    this.link = link
    this.transitions = transitions
    this.partitions = transitions.keys.length
    this.ack = options.ack ?? 'memory'
    this.confirmer = new Confirmer(options, link.publish === 'PUBLISH', options.ackReplicas ?? 1)
  }

  async one<P, I = P>(
    job: JobDefinition<P, unknown, unknown, I>,
    payload: I,
    options?: EnqueueOptions,
  ): Promise<Enqueued> {
    const made = enqueueOf(job, payload, options, this.partitions)
    await this.ready(made)
    const outcome = await this.transitions.enqueue(made)
    if (!outcome.ok) throw refusal(made, outcome)
    return this.accepted(made, outcome)
  }

  async many<P, I = P>(
    job: JobDefinition<P, unknown, unknown, I>,
    items: readonly { payload: I; options?: EnqueueOptions }[],
  ): Promise<BatchItem[]> {
    if (items.length > LIMITS.batchJobs)
      throw new StateError(
        'TOO_LARGE',
        `The batch has ${items.length} jobs; at most ${LIMITS.batchJobs} are taken.`,
      )
    const { partitions } = this
    const named = new Set<string>()
    const made: (Enqueue | StateError)[] = items.map(({ payload, options }) => {
      try {
        const one = enqueueOf(job, payload, options, partitions)
        const name = one.key ?? one.id
        if (named.has(name))
          throw new StateError('INVALID_OPTIONS', 'Two jobs of the batch have the same id or key.')
        named.add(name)
        return one
      } catch (error) {
        if (isStateError(error)) return error
        throw error
      }
    })
    const good = made.filter((each): each is Enqueue => !(each instanceof StateError))
    const bytes = good.reduce((sum, { payload }) => sum + Buffer.byteLength(payload), 0)
    if (bytes > LIMITS.batchBytes)
      throw new StateError(
        'TOO_LARGE',
        `The payloads have ${bytes} bytes; at most ${LIMITS.batchBytes} are taken in one batch.`,
      )
    if (good.length < made.length)
      return made.map((each) =>
        each instanceof StateError ? refused(null, each) : refused(each.id, NOT_ALONE),
      )
    return this.good(good)
  }

  private async good(made: Enqueue[]): Promise<BatchItem[]> {
    const byPartition = new Map<number, number[]>()
    for (const [i, { id }] of made.entries()) {
      const partition = partitionOf(id, this.partitions)
      const indices = byPartition.get(partition) ?? []
      indices.push(i)
      byPartition.set(partition, indices)
    }
    const items: BatchItem[] = new Array(made.length)
    await Promise.all(
      [...byPartition.values()].map(async (indices) => {
        const group = indices.map((i) => made[i] as Enqueue)
        let outcomes: EnqueueOutcome[] | StateError
        try {
          await Promise.all(group.map((each) => this.ready(each)))
          outcomes = await this.transitions.enqueueAll(group)
        } catch (error) {
          if (!isStateError(error)) throw error
          outcomes = error
        }
        await Promise.all(
          indices.map(async (i, at) => {
            const each = group[at] as Enqueue
            const outcome = outcomes instanceof StateError ? undefined : outcomes[at]
            if (!outcome?.ok) {
              items[i] = refused(each.id, outcome ? refusal(each, outcome) : (outcomes as StateError))
              return
            }
            items[i] = await this.accepted(each, outcome).then(
              (one) => ({ ok: true, ...one }),
              (error) => refused(outcome.id, error),
            )
          }),
        )
      }),
    )
    return items
  }

  private ackOf({ ack }: Enqueue): Ack {
    return ack ?? this.ack
  }

  /** Throws before anything is enqueued where it could not be done, or confirmed, as asked for. */
  private async ready(made: Enqueue): Promise<void> {
    await this.mayEnqueue(made.name)
    const ack = this.ackOf(made)
    if (ack !== 'memory') await this.confirmer.supported(this.transitions.keysFor(made.id), ack)
  }

  private mayEnqueue(name: string): Promise<void> {
    const known = this.allowed.get(name)
    if (known) return known
    const asking = checkRights(this.link, this.transitions.keys, 'producer', name).catch((error) => {
      this.allowed.delete(name)
      throw error
    })
    this.allowed.set(name, asking)
    return asking
  }

  private async accepted(made: Enqueue, outcome: Extract<EnqueueOutcome, { ok: true }>): Promise<Enqueued> {
    const { id, cursor, state, repeat } = outcome
    const ack = this.ackOf(made)
    // Of a job that has expired there is nothing left to confirm.
    if (ack !== 'memory' && state !== null)
      await this.confirmer.confirm(ack, this.transitions.keysFor(id), id, cursor)
    // An id that was made for this call can be there only by this call, whose first reply got lost.
    return { id, cursor, state, duplicate: repeat && (made.idGiven || id !== made.id), ack }
  }

  close(): Promise<void> {
    return this.confirmer.close()
  }
}

const refusal = ({ id }: Enqueue, { reason }: Rejection): StateError => {
  switch (reason) {
    case 'conflict':
      return new StateError('ID_CONFLICT', `The id ${id} is taken by a job with another name or payload.`)
    case 'key_conflict':
      return new StateError(
        'KEY_CONFLICT',
        'The idempotency key was used for a job with another name or payload.',
      )
    default:
      return NOT_ALONE
  }
}

const refused = (id: string | null, error: StateError): BatchItem => ({ ok: false, id, error })

const NOT_ALONE = new StateError(
  'BATCH_REFUSED',
  'Another job of the same batch was refused, so this one was not enqueued.',
)
