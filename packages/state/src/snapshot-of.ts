// A snapshot whose payload, progress and result have the types of a job definition, checked against its schemas.
import type { JobDefinition } from './define.ts'
import { StateError, type StateErrorCode } from './errors.ts'
import type { Snapshot } from './schema/job.ts'
import type { State } from './schema/machine.ts'

type Told<G> = Omit<Snapshot, 'state' | 'progress' | 'result'> & { progress: G | null }

/** The snapshot of a job of this definition: what is COMPLETED has a result, and nothing else has. */
export type SnapshotOf<G, R> =
  | (Told<G> & { state: 'COMPLETED'; result: R })
  | (Told<G> & { state: Exclude<State, 'COMPLETED'>; result: null })

/** What reads take beside their own options: the definition that types and checks what is read. */
export interface As<P, G, R, I> {
  of: JobDefinition<P, G, R, I>
}

/** The value, as the schema has it. */
export const fitted = (schema: JobDefinition['payload'], value: unknown, code: StateErrorCode): unknown => {
  const parsed = schema?.safeParse(value)
  if (!parsed) return value
  if (parsed.success) return parsed.data
  const [issue] = parsed.error.issues
  throw new StateError(
    code,
    `What Redis has of the job does not fit its definition: ${issue?.path.join('.')} ${issue?.message}`,
  )
}

/** @throws StateError INVALID_RESULT, INVALID_PROGRESS when another release of the definition wrote them */
export const snapshotAs = <G, R>(
  { progress, result }: Pick<JobDefinition<unknown, G, R>, 'progress' | 'result'>,
  snapshot: Snapshot,
): SnapshotOf<G, R> =>
  ({
    ...snapshot,
    progress: snapshot.progress === null ? null : fitted(progress, snapshot.progress, 'INVALID_PROGRESS'),
    result: snapshot.state === 'COMPLETED' ? fitted(result, snapshot.result, 'INVALID_RESULT') : null,
  }) as SnapshotOf<G, R>
