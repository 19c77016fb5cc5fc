// A kind of job: its name and the shapes of what goes in, what it reports and what comes out.
import type { z } from 'zod'
import { StateError, type StateErrorCode } from './errors.ts'
import { JobName } from './schema/limits.ts'

/** `I` is what enqueue takes where the schema fills in defaults or coerces, and makes `P` of it. */
export interface JobDefinition<P = unknown, G = unknown, R = unknown, I = P> {
  readonly name: string
  /** Without a schema anything that JSON can hold is taken. */
  readonly payload?: z.ZodType<P, I> | undefined
  readonly progress?: z.ZodType<G> | undefined
  readonly result?: z.ZodType<R> | undefined
}

/**
 * Describes a kind of job. The schemas type and check `enqueue`, the handler, its reports and its result. Values travel
 * as JSON and are checked at both ends: a schema must take what it has given, as JSON (`z.coerce.date()`, not `z.date()`).
 *
 * @throws StateError INVALID_JOB_NAME
 */
export const defineJob = <P = unknown, G = unknown, R = unknown, I = P>(
  definition: JobDefinition<P, G, R, I>,
): JobDefinition<P, G, R, I> => {
  if (!JobName.safeParse(definition.name).success)
    throw new StateError(
      'INVALID_JOB_NAME',
      `The job name ${JSON.stringify(definition.name)?.slice(0, 80)} is not 1 to 64 of A-Z a-z 0-9 . _ ~ -`,
    )
  return { ...definition }
}

type EncodeCode = Extract<
  StateErrorCode,
  'INVALID_PAYLOAD' | 'INVALID_PROGRESS' | 'INVALID_RESULT' | 'INVALID_CHECKPOINT'
>

/** Where in a value something stands that JSON would lose or change, or null. */
const lossIn = (value: unknown, path: string, depth: number): string | null => {
  switch (typeof value) {
    case 'string':
    case 'boolean':
      return null
    case 'number':
      return Number.isFinite(value) ? null : path
    case 'object': {
      if (value === null) return null
      if (depth === 0) return path
      if (Array.isArray(value)) {
        for (let i = 0; i < value.length; i++) {
          const loss = lossIn(value[i], `${path}.${i}`, depth - 1)
          if (loss) return loss
        }
        return null
      }
      const proto = Object.getPrototypeOf(value)
      if (proto !== Object.prototype && proto !== null) return path
      for (const key in value) {
        const member = (value as Record<string, unknown>)[key]
        // An absent member and one that is undefined are the same to JSON.
        const loss = member === undefined ? null : lossIn(member, `${path}.${key}`, depth - 1)
        if (loss) return loss
      }
      return null
    }
    default:
      return path
  }
}

const MAX_DEPTH = 100

/**
 * The JSON text of a value that fits its schema.
 *
 * @throws StateError `code` when it does not fit, TOO_LARGE above `maxBytes` (of UTF-8)
 */
export const encode = (
  schema: z.ZodType | undefined,
  value: unknown,
  code: EncodeCode,
  maxBytes: number,
): string => {
  const what = code.slice('INVALID_'.length).toLowerCase()
  let data = value
  if (schema) {
    const parsed = schema.safeParse(value)
    if (!parsed.success) {
      const issues = parsed.error.issues
        .slice(0, 5)
        .map((issue) => `${issue.path.join('.') || what}: ${issue.message}`)
      throw new StateError(code, `The ${what} does not fit its schema. ${issues.join('; ')}`)
    }
    data = parsed.data
  } else {
    const loss = lossIn(value, what, MAX_DEPTH)
    if (loss)
      throw new StateError(
        code,
        `The ${what} can't be told in JSON: ${loss} is no string, finite number, boolean, null, array or plain object.`,
      )
  }
  let text: string | undefined
  try {
    text = JSON.stringify(data ?? null)
  } catch (cause) {
    throw new StateError(code, `The ${what} cannot be written as JSON.`, { cause })
  }
  if (text === undefined) throw new StateError(code, `The ${what} cannot be written as JSON.`)
  // No character takes more than three bytes in UTF-8.
  const bytes = text.length * 3 <= maxBytes ? 0 : Buffer.byteLength(text)
  if (bytes > maxBytes)
    throw new StateError(
      'TOO_LARGE',
      `The ${what} has ${bytes} bytes as JSON; at most ${maxBytes} are taken.`,
    )
  return text
}
