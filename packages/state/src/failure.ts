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

const told = (thrown: unknown, characters: number, causes: number): JobError => {
  if (!(thrown instanceof Error)) return { name: 'Error', message: cut(String(thrown), characters) }
  const { code, cause } = thrown as { code?: unknown; cause?: unknown }
  return {
    name: cut(thrown.name, 100),
    message: cut(thrown.message, characters),
    ...(typeof code === 'string' ? { code: cut(code, 100) } : {}),
    ...(thrown.stack ? { stack: cut(thrown.stack, characters) } : {}),
    ...(cause !== undefined && causes > 0 ? { cause: told(cause, characters, causes - 1) } : {}),
  }
}

export const jobErrorOf = (thrown: unknown): JobError => {
  for (const characters of [2_000, 500, 100]) {
    const error = told(thrown, characters, MAX_CAUSES)
    if (Buffer.byteLength(JSON.stringify(error)) <= LIMITS.errorBytes) return error
  }
  return told(thrown, 100, 0)
}
