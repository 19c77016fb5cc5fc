// Jobs that are asked for in one turn of the loop are read by one call each partition: thousands of clients that come
// together cost few calls.
import { type Continuation, isStateError, type Live, type LiveRead } from '@jobs/state'

/** Jobs in one call: longer ones would let everybody else at Redis wait. */
const AT_ONCE = 16

type Read = Continuation<Live> | null
type ReadAll = (reads: readonly LiveRead[]) => Promise<Read[]>

interface Asked {
  read: LiveRead
  answer: (read: Read | Promise<Read>) => void
}

/** Of one partition. */
export class Reads {
  private readonly readAll: ReadAll
  private asked: Asked[] = []

  constructor(readAll: ReadAll) {
    this.readAll = readAll
  }

  read(read: LiveRead): Promise<Read> {
    return new Promise((answer) => {
      this.asked.push({ read, answer })
      if (this.asked.length === 1) setImmediate(() => this.flush())
    })
  }

  private flush(): void {
    const { asked } = this
    this.asked = []
    for (let i = 0; i < asked.length; i += AT_ONCE) {
      const some = asked.slice(i, i + AT_ONCE)
      this.readAll(some.map(({ read }) => read)).then(
        (reads) => {
          for (const [i, { answer }] of some.entries()) answer(reads[i] as Read)
        },
        (error) => {
          // One job that can't be read must not keep the others from being read; a server that is away fails all of them.
          const apart = some.length > 1 && isStateError(error) && error.code === 'REDIS_REFUSED'
          for (const { read, answer } of some)
            answer(apart ? this.readAll([read]).then(([alone]) => alone as Read) : Promise.reject(error))
        },
      )
    }
  }
}
