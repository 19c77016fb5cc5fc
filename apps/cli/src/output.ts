// How the command answers: lines for people or one JSON object a line, one line per error, and the exit codes.
import { isStateError } from '@jobs/state'
import { CommanderError } from 'commander'

export const EXIT = { ok: 0, failed: 1, cancelled: 2, usage: 64, unavailable: 69 } as const

/** An answer that is a refusal: told in one line, with a stable code. */
export class Refused extends Error {
  readonly code: string
  readonly exit: number
  constructor(code: string, message: string, exit: number = EXIT.failed) {
    super(message)
    this.code = code
    this.exit = exit
  }
}

export const print = (line: string): void => {
  process.stdout.write(`${line}\n`)
}

export const printJson = (value: unknown): void => print(JSON.stringify(value))

const USAGE_CODES = [
  'INVALID_JOB_ID',
  'INVALID_JOB_NAME',
  'INVALID_STATE',
  'INVALID_OPTIONS',
  'INVALID_CURSOR',
] as const

/** Tells an error in one line on stderr and answers the exit code. */
export const report = (error: unknown, json: boolean): number => {
  if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT.ok : EXIT.usage
  const { code, message, exit } = explain(error)
  process.stderr.write(json ? `${JSON.stringify({ error: { code, message } })}\n` : `jobs: ${message}\n`)
  return exit
}

const explain = (error: unknown): { code: string; message: string; exit: number } => {
  if (error instanceof Refused) return error
  if (isStateError(error)) {
    const { code, message } = error
    if (code === 'REDIS_UNAVAILABLE' || code === 'REDIS_TIMEOUT')
      return { code, message: `${message} Is REDIS_URL right, and Redis running?`, exit: EXIT.unavailable }
    return {
      code,
      message,
      exit: (USAGE_CODES as readonly string[]).includes(code) ? EXIT.usage : EXIT.failed,
    }
  }
  const { code = 'INTERNAL', message } = error as Error & { code?: string }
  return { code, message, exit: code === 'INVALID_CONFIG' ? EXIT.usage : EXIT.failed }
}
