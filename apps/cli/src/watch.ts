// `jobs watch`: one line that is redrawn in a terminal, a line per event otherwise.
import { isStateError, type JobEvent, type Jobs, type Snapshot } from '@jobs/state'
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
  const show = async (event: JobEvent) => {
    if (json) return printJson(event)
    if (!redraw) return print(eventLine(event))
    const now = await jobs.get(id)
    if (now) process.stdout.write(`\r\x1b[K${statusLine(now)}`)
    if (event.type === 'log') process.stdout.write(`\r\x1b[K${event.line}\n${now ? statusLine(now) : ''}`)
  }
  try {
    for await (const event of jobs.events(id)) await show(event)
  } catch (error) {
    if (!isStateError(error, 'EVENTS_TRIMMED')) throw error
    // Old reports of a long job are not kept: from here on what comes.
    const now = await jobs.get(id)
    for await (const event of jobs.events(id, { after: now?.cursor ?? start.cursor })) await show(event)
  }
  const end = await jobs.get(id)
  if (!end) throw new Refused('UNKNOWN_JOB', `The job ${id} is gone.`)
  if (json) printJson(end)
  else print(`${redraw ? '\r\x1b[K' : ''}${jobLines(end)}`)
  return EXIT_OF[end.state] ?? EXIT.failed
}
