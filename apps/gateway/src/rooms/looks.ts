// Jobs looked at by those who watch none: plain HTTP. One read serves all who ask for a job at the same moment, and none is
// older than the question: who asks while one is under way gets the next. So nobody who has just been told of an event, or
// made it happen, is answered from before it.
import type { Snapshot } from '@jobs/state'

type Read = Promise<Snapshot | null>

export class Looks {
  private readonly read: (job: string) => Read
  private readonly running = new Map<string, Read>()
  private readonly next = new Map<string, Read>()

  constructor(read: (job: string) => Read) {
    this.read = read
  }

  /** The job as it is now, or null when there is none. Throws when Redis can't be read. */
  look(job: string): Read {
    const running = this.running.get(job)
    if (!running) return this.begin(job)
    let next = this.next.get(job)
    if (!next) {
      const begin = () => {
        this.next.delete(job)
        return this.begin(job)
      }
      next = running.then(begin, begin)
      this.next.set(job, next)
    }
    return next
  }

  private begin(job: string): Read {
    const read = this.read(job).finally(() => {
      if (this.running.get(job) === read) this.running.delete(job)
    })
    this.running.set(job, read)
    return read
  }
}
