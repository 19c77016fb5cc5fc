// What is stored of a thrown value: name, code, message, stack and cause, each cut, the whole within its limit.
import type { JobError } from './schema/job.ts'
import { LIMITS } from './schema/limits.ts'

/** Thrown by a handler: the job has failed, whatever attempts are left. */
export class FinalError extends Error {
  override name = 'FinalError'
  readonly retryable = false
}

const MAX_CAUSES = 3

const cut = (text: string, characters: number) =>
  text.length > characters ? `${text.slice(0, characters)}…` : text

/** An Error of any realm, or what is thrown in place of one. */
type ErrorLike = { [part in 'name' | 'message' | 'code' | 'stack' | 'cause']?: unknown }

const told = (thrown: unknown, characters: number, causes: number): JobError => {
  // Anything can be thrown, even what throws when it is looked at.
  try {
    if (typeof thrown !== 'object' || thrown === null || typeof (thrown as ErrorLike).message !== 'string')
      return { name: 'Error', message: cut(textOf(thrown), characters) }
    const { name, message, code, stack, cause } = thrown as ErrorLike & { message: string }
    return {
      name: typeof name === 'string' ? cut(name, 100) : 'Error',
      message: cut(message, characters),
      ...(typeof code === 'string' || typeof code === 'number' ? { code: cut(String(code), 100) } : {}),
      ...(typeof stack === 'string' && stack ? { stack: cut(stack, characters) } : {}),
      ...(cause !== undefined && causes > 0 ? { cause: told(cause, characters, causes - 1) } : {}),
    }
  } catch {
    return { name: 'Error', message: 'What was thrown throws again when it is read.' }
  }
}

/** Whether the thrown value says that trying again is of no use. */
export const isFinal = (thrown: unknown): boolean => {
  try {
    return (thrown as { retryable?: unknown } | null | undefined)?.retryable === false
  } catch {
    return false
  }
}

/** What was thrown and is no error: an object as JSON, where it can be told so. */
const textOf = (thrown: unknown): string => {
  try {
    return (typeof thrown === 'object' && JSON.stringify(thrown)) || String(thrown)
  } catch {
    return 'The handler threw something that can be told neither as JSON nor as text.'
  }
}

export const jobErrorOf = (thrown: unknown): JobError => {
  for (const characters of [2_000, 500, 100]) {
    const error = told(thrown, characters, MAX_CAUSES)
    if (Buffer.byteLength(JSON.stringify(error)) <= LIMITS.errorBytes) return error
  }
  return told(thrown, 100, 0)
}
