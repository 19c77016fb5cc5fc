// Runs a program for one job: payload on stdin, reports as JSON lines on stdout, the exit code as the outcome.
import { spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import type { JobContext } from '@jobs/state'

/** Characters of the end of stderr that a failure keeps. */
const STDERR_KEPT = 2_000

class ExitError extends Error {
  override name = 'ExitError'
  readonly code: string
  constructor(code: string, message: string) {
    super(message)
    this.code = code
    // Where in this file it was made tells nobody anything.
    delete this.stack
  }
}

/**
 * Runs `command` by the shell, in a process group of its own. When the job's signal fires, the group gets SIGTERM, and
 * SIGKILL after `graceMs`.
 *
 * @throws ExitError `EXIT_<code>` or `SIGNAL_<name>` with the end of stderr
 */
export const execute = async (
  command: string,
  job: JobContext<unknown, unknown>,
  { graceMs }: { graceMs: number },
): Promise<unknown> => {
  job.signal.throwIfAborted()
  const child = spawn('/bin/sh', ['-c', command], {
    stdio: ['pipe', 'pipe', 'pipe'],
    env: { ...process.env, JOB_ID: job.id, JOB_NAME: job.name, JOB_ATTEMPT: String(job.attempt) },
    detached: true,
  })
  const signalGroup = (signal: NodeJS.Signals) => {
    if (child.pid === undefined) return
    try {
      process.kill(-child.pid, signal)
    } catch (error) {
      // It is gone already.
      if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error
    }
  }
  const killOnExit = () => signalGroup('SIGKILL')
  process.on('exit', killOnExit)
  let killTimer: NodeJS.Timeout | undefined
  const stop = () => {
    signalGroup('SIGTERM')
    killTimer = setTimeout(() => signalGroup('SIGKILL'), graceMs)
  }
  job.signal.addEventListener('abort', stop, { once: true })

  let result: unknown = null
  let complaint = ''
  let badReport: Error | undefined
  const lines = createInterface({ input: child.stdout }).on('line', (line) => {
    if (line.trim() === '') return
    const report = reportOf(line)
    try {
      if (report === undefined) job.log(line)
      else if ('progress' in report) job.progress(report.progress)
      else if ('log' in report) job.log(String(report.log))
      else result = report.result
    } catch (error) {
      // A progress too large or of the wrong shape fails the job; the program need not go on.
      badReport ??= error as Error
      signalGroup('SIGTERM')
    }
  })
  const read = new Promise((resolve) => lines.once('close', resolve))
  child.stderr.on('data', (chunk) => {
    complaint = (complaint + chunk).slice(-STDERR_KEPT)
  })
  // A program may end without reading its payload.
  child.stdin.on('error', () => undefined)
  child.stdin.end(`${JSON.stringify(job.payload)}\n`)
  try {
    const [code, signal] = await new Promise<[number | null, NodeJS.Signals | null]>((resolve, reject) => {
      child.once('error', reject)
      child.once('close', (...ended) => resolve(ended))
    })
    await read
    job.signal.throwIfAborted()
    if (badReport) throw badReport
    if (code === 0) return result
    const said = complaint.trim()
    if (signal) throw new ExitError(`SIGNAL_${signal}`, said || `The program was ended by ${signal}.`)
    throw new ExitError(
      `EXIT_${code}`,
      said || `The program ended with exit code ${code} and said nothing on stderr.`,
    )
  } finally {
    clearTimeout(killTimer)
    process.off('exit', killOnExit)
    job.signal.removeEventListener('abort', stop)
  }
}

type Report = { progress: unknown } | { log: unknown } | { result: unknown }

/** What a line reports, or undefined for a line that is plain output. */
const reportOf = (line: string): Report | undefined => {
  if (!line.startsWith('{')) return undefined
  try {
    const value = JSON.parse(line) as object
    return 'progress' in value || 'log' in value || 'result' in value ? (value as Report) : undefined
  } catch {
    return undefined
  }
}
