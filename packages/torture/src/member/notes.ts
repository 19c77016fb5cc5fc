// What a process of the fleet did, for the checks: appended line by line outside of the tested Redis, and kept when the
// process is killed a moment later.
import { appendFileSync } from 'node:fs'
import { isStateError } from '@jobs/state'

const { NOTES = '' } = process.env

export const note = (what: object): void =>
  appendFileSync(NOTES, `${JSON.stringify({ at: Date.now(), ...what })}\n`)

/** A process that starts in the middle of a fault tries again, as whoever supervises it would. */
export const started = async <T>(start: () => Promise<T>): Promise<T> => {
  for (;;)
    try {
      return await start()
    } catch (error) {
      if (!isStateError(error)) throw error
      note({ does: 'start again', says: error.message })
      await new Promise((resolve) => setTimeout(resolve, 200))
    }
}
