// Redis at the start of a process: waiting for it, and telling what speaks against it.
import type { Logger } from 'pino'

/** Milliseconds a process tries to reach Redis at its start before it exits. */
const START_LIMIT_MS = 30_000

interface Connectable {
  readonly address: string
  connect(withinMs: number): Promise<void>
}

/** @throws the last connection error, once `limitMs` have passed */
export const waitForRedis = async (
  link: Connectable,
  log: Logger,
  limitMs = START_LIMIT_MS,
): Promise<void> => {
  const began = performance.now()
  for (let round = 1; ; round++) {
    const leftMs = limitMs - (performance.now() - began)
    try {
      await link.connect(Math.min(3_000, Math.max(1, leftMs)))
      return
    } catch (error) {
      const { code, message } = error as Error & { code?: string }
      if (performance.now() - began >= limitMs) throw error
      log.warn({ code, round, redis: link.address }, `${message} Trying again.`)
    }
  }
}

interface Finding {
  code: string
  severity: 'error' | 'warning'
  says: string
  fix: string
}

/** Logs what speaks against the server. */
export const tellFinding =
  (log: Logger) =>
  ({ code, severity, says, fix }: Finding): void =>
    log[severity === 'error' ? 'error' : 'warn']({ code, fix }, says)
