// `jobs watch`: one line that is redrawn in a terminal, a line per event otherwise.
import type { Jobs, Snapshot } from '@jobs/state'
import { EXIT, print, printJson, Refused } from './output.ts'
import { eventLine, jobLines, statusLine } from './render.ts'

const EXIT_OF: Partial<Record<Snapshot['state'], number>> = {
  COMPLETED: EXIT.ok,
  FAILED: EXIT.failed,
  CANCELLED: EXIT.cancelled,
}

/** Follows a job to its end; answers the exit code. */
export const watch = async (jobs: Jobs, id: string, json: boolean): Promise<number> => {
  const start = await jobs.get(id)
  if (!start) throw new Refused('UNKNOWN_JOB', `There is no job ${id}.`)
  const redraw = process.stdout.isTTY && !json
  // From the beginning where the history is whole; from now on where it has been trimmed.
  const first = await jobs.link.call('XRANGE', jobs.transitions.keysFor(id).events(id), '-', '+', 'COUNT', 1)
  const whole = String((first as [string][])[0]?.[0] ?? '').startsWith('1-')
  for await (const event of jobs.events(id, { after: whole ? '0-0' : start.cursor })) {
    if (json) printJson(event)
    else if (!redraw) print(eventLine(event))
    else {
      const now = await jobs.get(id)
      if (now) process.stdout.write(`\r\x1b[K${statusLine(now)}`)
      if (event.type === 'log') process.stdout.write(`\r\x1b[K${event.line}\n${now ? statusLine(now) : ''}`)
    }
  }
  const end = await jobs.get(id)
  if (!end) throw new Refused('UNKNOWN_JOB', `The job ${id} is gone.`)
  if (json) printJson(end)
  else print(`${redraw ? '\r\x1b[K' : ''}${jobLines(end)}`)
  return EXIT_OF[end.state] ?? EXIT.failed
}
