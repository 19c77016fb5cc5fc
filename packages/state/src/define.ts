// A kind of job: its name and the shapes of what goes in, what it reports and what comes out.
import { z } from 'zod'
import { StateError, type StateErrorCode } from './errors.ts'
import { JobName } from './schema/limits.ts'

export interface JobDefinition<P = unknown, G = unknown, R = unknown> {
  readonly name: string
  readonly payload: z.ZodType<P>
  readonly progress: z.ZodType<G>
  readonly result: z.ZodType<R>
}

/**
 * Describes a kind of job. The schemas type and check `enqueue`, the handler, its reports and its result.
 *
 * @throws StateError INVALID_JOB_NAME
 */
export const defineJob = <P = unknown, G = unknown, R = unknown>(definition: {
  name: string
  payload?: z.ZodType<P>
  progress?: z.ZodType<G>
  result?: z.ZodType<R>
}): JobDefinition<P, G, R> => {
  if (!JobName.safeParse(definition.name).success)
    throw new StateError(
      'INVALID_JOB_NAME',
      `The job name ${JSON.stringify(definition.name).slice(0, 80)} is not 1 to 64 of A-Z a-z 0-9 . _ ~ -`,
    )
  return {
    name: definition.name,
    payload: definition.payload ?? (z.json() as unknown as z.ZodType<P>),
    progress: definition.progress ?? (z.json() as unknown as z.ZodType<G>),
    result: definition.result ?? (z.json() as unknown as z.ZodType<R>),
  }
}

/**
 * The JSON text of a value that fits its schema.
 *
 * @throws StateError `code` when it does not fit, TOO_LARGE above `maxBytes` (of UTF-8)
 */
export const encode = (
  schema: z.ZodType,
  value: unknown,
  code: Extract<StateErrorCode, 'INVALID_PAYLOAD' | 'INVALID_PROGRESS' | 'INVALID_RESULT'>,
  maxBytes: number,
): string => {
  const what = code.slice('INVALID_'.length).toLowerCase()
  const parsed = schema.safeParse(value)
  if (!parsed.success) {
    const issues = parsed.error.issues
      .slice(0, 5)
      .map((issue) => `${issue.path.join('.') || what}: ${issue.message}`)
    throw new StateError(code, `The ${what} does not fit its schema. ${issues.join('; ')}`)
  }
  const text = JSON.stringify(parsed.data ?? null)
  if (text === undefined) throw new StateError(code, `The ${what} cannot be written as JSON.`)
  const bytes = Buffer.byteLength(text)
  if (bytes > maxBytes)
    throw new StateError(
      'TOO_LARGE',
      `The ${what} has ${bytes} bytes as JSON; at most ${maxBytes} are taken.`,
    )
  return text
}
