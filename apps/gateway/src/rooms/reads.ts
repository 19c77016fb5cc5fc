// What is asked of Redis in one turn of the loop goes out in few calls: thousands of clients that come together, or rooms
// that Redis has left alone for a while, cost little.
import { isStateError } from '@jobs/state'

type ReadAll<Asked, Read> = (asked: readonly Asked[]) => Promise<Read[]>

interface Waiting<Asked, Read> {
  asked: Asked
  answer: (read: Read | Promise<Read>) => void
}

/** Reads of one kind and one partition. */
export class Reads<Asked, Read> {
  private readonly readAll: ReadAll<Asked, Read>
  private readonly atOnce: number
  private waiting: Waiting<Asked, Read>[] = []

  /** @param atOnce reads in one call: while it runs, everybody else at Redis waits */
  constructor(atOnce: number, readAll: ReadAll<Asked, Read>) {
    this.atOnce = atOnce
    this.readAll = readAll
  }

  read(asked: Asked): Promise<Read> {
    return new Promise((answer) => {
      this.waiting.push({ asked, answer })
      if (this.waiting.length === 1) setImmediate(() => this.flush())
    })
  }

  private flush(): void {
    const { waiting, atOnce } = this
    this.waiting = []
    for (let i = 0; i < waiting.length; i += atOnce) void this.call(waiting.slice(i, i + atOnce))
  }

  private async call(waiting: Waiting<Asked, Read>[]): Promise<void> {
    try {
      const reads = await this.readAll(waiting.map(({ asked }) => asked))
      for (const [i, { answer }] of waiting.entries()) answer(reads[i] as Read)
    } catch (error) {
      // What can't be read must not keep the others from being read; a server that is away fails all of them.
      const apart = waiting.length > 1 && (!isStateError(error) || error.code === 'REDIS_REFUSED')
      for (const { asked, answer } of waiting)
        answer(apart ? this.readAll([asked]).then(([alone]) => alone as Read) : Promise.reject(error))
    }
  }
}
