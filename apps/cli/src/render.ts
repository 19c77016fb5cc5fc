// What people read: a job in a few lines, a bar, an event in one line.
import type { JobEvent, Snapshot } from '@jobs/state'

/** The part done, 0 to 1, of the usual shapes of progress; null when it is none of them. */
export const fractionOf = (progress: unknown): number | null => {
  const within = (value: number) => (Number.isFinite(value) ? Math.min(1, Math.max(0, value)) : null)
  if (typeof progress === 'number') return within(progress > 1 ? progress / 100 : progress)
  if (progress === null || typeof progress !== 'object') return null
  const { done, total, percent, fraction } = progress as Record<string, unknown>
  if (typeof done === 'number' && typeof total === 'number' && total > 0) return within(done / total)
  if (typeof percent === 'number') return within(percent / 100)
  return typeof fraction === 'number' ? within(fraction) : null
}

const WIDTH = 30

const bar = (fraction: number): string => {
  const full = Math.round(fraction * WIDTH)
  return `${'█'.repeat(full)}${'░'.repeat(WIDTH - full)} ${String(Math.round(fraction * 100)).padStart(3)} %`
}

const progressText = (progress: unknown): string => {
  const fraction = fractionOf(progress)
  return fraction === null ? JSON.stringify(progress) : bar(fraction)
}

export const statusLine = (job: Snapshot): string =>
  `${job.state.padEnd(10)} ${job.progress === null ? '' : progressText(job.progress)}  attempt ${job.attempt}`

export const eventLine = (event: JobEvent): string => {
  const head = `${String(event.seq).padStart(4)}  ${new Date(event.at).toISOString().slice(11, 23)}`
  switch (event.type) {
    case 'progress':
      return `${head}  progress  ${progressText(event.progress)}`
    case 'log':
      return `${head}  log       ${event.line}`
    case 'state': {
      const lost =
        event.reason === 'worker_lost'
          ? ` (worker ${event.worker} lost)`
          : event.worker
            ? ` (${event.worker})`
            : ''
      const told = event.message ?? event.error?.message
      const why = told ? `: ${told.split('\n')[0]}` : ''
      return `${head}  ${event.move.padEnd(9)} ${event.state}, attempt ${event.attempt}${lost}${why}`
    }
  }
}

/** `3 s ago`, by this machine's clock. */
export const ago = (ms: number, now = Date.now()): string => {
  const seconds = Math.max(0, Math.round((now - ms) / 1_000))
  if (seconds < 120) return `${seconds} s ago`
  if (seconds < 7_200) return `${Math.round(seconds / 60)} min ago`
  return `${Math.round(seconds / 3_600)} h ago`
}

export const jobLines = (job: Snapshot): string =>
  [
    ['id', job.id],
    ['name', job.name],
    ['state', job.state + (job.cancelRequested && job.state === 'PROCESSING' ? ' (cancel requested)' : '')],
    [
      'attempt',
      `${job.attempt} (failures ${job.failures} of ${job.maxAttempts}, crashes ${job.crashes} of ${job.maxCrashes})`,
    ],
    ['worker', job.worker],
    [
      'progress',
      job.progress === null ? null : `${progressText(job.progress)}  ${JSON.stringify(job.progress)}`,
    ],
    ['result', job.result === null ? null : JSON.stringify(job.result)],
    ['error', job.error && `${job.error.code ?? job.error.name}: ${job.error.message}`],
    ['created', ago(job.createdAt)],
    ['updated', `${ago(job.updatedAt)}, event ${job.seq}`],
    ['due', job.runAt === null ? null : new Date(job.runAt).toISOString()],
  ]
    .filter(([, value]) => value !== null)
    .map(([label, value]) => `${String(label).padEnd(9)} ${value}`)
    .join('\n')
