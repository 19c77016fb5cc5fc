// The audit log: who was refused what. Tokens and payloads never come here; names are cut, and a flood of refusals leaves
// a flood of nothing but one number.

/** Lines a second, and how many at once after a pause. */
const LINES_PER_SECOND = 20
const BURST = 100
const MAX_TEXT = 256

export interface Refused {
  what: 'origin' | 'token' | 'job' | 'tag' | 'connection'
  reason: string
  peer?: string | undefined
  connection?: string
  subject?: string | undefined
  job?: string
  tag?: string
}

export type Audit = (refused: Refused) => void

export const auditTo = (log: { warn(fields: object, message: string): void }): Audit => {
  let lines = BURST
  let at = performance.now()
  let leftOut = 0
  return (refused) => {
    const now = performance.now()
    lines = Math.min(BURST, lines + ((now - at) / 1_000) * LINES_PER_SECOND)
    at = now
    if (lines < 1) {
      leftOut++
      return
    }
    lines--
    const cut = Object.entries(refused).map(([name, text]) => [name, text?.slice(0, MAX_TEXT)])
    log.warn({ audit: true, ...Object.fromEntries(cut), ...(leftOut > 0 ? { leftOut } : {}) }, 'refused')
    leftOut = 0
  }
}
