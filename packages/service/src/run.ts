// The life of a process: start, one SIGTERM or SIGINT to stop in order, a second one to stop at once; errors as one
// clear log line and an exit code.
import { type DestinationStream, type Logger, pino } from 'pino'

/** Bytes of a text in a field: some are what a client chose. Those below are ours. */
const TEXT_BYTES = 256
const OURS = new Set(['err', 'stack', 'fix'])
// JSON escapes what is below U+0020. A terminal obeys some of these too, and some readers break lines at the last two.
const OBEYED = /[\u007f-\u009f\u2028\u2029]/g

const shown = (value: unknown, key?: string): unknown => {
  if (typeof value === 'string') {
    const whole = OURS.has(key ?? '') || Buffer.byteLength(value) <= TEXT_BYTES
    const text = whole ? value : `${Buffer.from(value.slice(0, TEXT_BYTES)).toString('utf8', 0, TEXT_BYTES)}…`
    return text.replace(OBEYED, '?')
  }
  if (Array.isArray(value)) return value.map((each) => shown(each))
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(Object.entries(value).map(([name, each]) => [name, shown(each, name)]))
}

/** One JSON line each on stdout, whatever is in a field; without a host name: the platform knows it. */
export const createLogger = (name: string, level: string, destination?: DestinationStream): Logger =>
  pino(
    {
      ...{ name, level, base: { name, pid: process.pid }, timestamp: pino.stdTimeFunctions.isoTime },
      formatters: { log: (fields) => shown(fields) as Record<string, unknown> },
    },
    destination,
  )

export interface Service {
  /** Ends the work in order; called once. */
  stop(): Promise<void>
  /** Milliseconds that it may take; then the process ends all the same, with exit code 0: it was told to. */
  stopWithinMs?: number
}

/** Thrown by a start that was asked what the process is: its message is printed, and the process ends well. */
export class HelpAsked extends Error {}

/**
 * Runs a service until it is told to stop. Exit codes: 0 stopped in order, 1 failed to start or broke, 2 wrong
 * configuration.
 */
export const runService = async (
  name: string,
  start: () => Promise<{ log: Logger; service: Service }>,
): Promise<void> => {
  let log = createLogger(name, 'info')
  const broken = (error: unknown) => {
    log.fatal(describe(error), 'a fault nobody handled; stopping')
    process.exit(1)
  }
  process.on('uncaughtException', broken)
  process.on('unhandledRejection', broken)

  // A signal during the start stops it too.
  let stopping = false
  let service: Service | undefined
  const stop = async (signal: string) => {
    if (stopping) process.exit(1)
    stopping = true
    log.info({ signal }, 'stopping')
    if (!service) process.exit(0)
    const { stopWithinMs } = service
    if (stopWithinMs !== undefined)
      setTimeout(() => {
        log.warn({ stopWithinMs }, 'stopped before everything had ended')
        process.exit(0)
      }, stopWithinMs).unref()
    await service.stop()
    log.info('stopped')
    process.exit(0)
  }
  for (const signal of ['SIGTERM', 'SIGINT'] as const)
    process.on(signal, () => void stop(signal).catch(broken))

  try {
    ;({ log, service } = await start())
  } catch (error) {
    if (error instanceof HelpAsked) {
      process.stdout.write(error.message)
      process.exit(0)
    }
    log.fatal(describe(error), 'could not start')
    process.exit((error as { code?: string }).code === 'INVALID_CONFIG' ? 2 : 1)
  }
}

/** What a log may hold of an error: never command arguments, which carry payloads and passwords. */
export const describe = (error: unknown): { code?: string; err: string; stack?: string } => {
  if (!(error instanceof Error)) return { err: String(error).slice(0, 500) }
  const code = (error as { code?: unknown }).code
  return {
    ...(typeof code === 'string' ? { code } : {}),
    err: error.message.slice(0, 2_000),
    // Expected errors carry a code and need no stack.
    ...(typeof code === 'string' || !error.stack ? {} : { stack: error.stack.slice(0, 4_000) }),
  }
}
