// What makes jobs go, so that there is something to watch. A gateway is a black box; where its jobs come from is the
// tester's to say: the Redis of our library, or a program that does as it is told, line by line.
import { spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import { Skipped } from './outcome.ts'

/** Each resolves once the change is made: who reads the job then sees it. */
export interface Driver {
  /** A new job, QUEUED: its id. */
  create(options?: { tags?: string[] }): Promise<string>
  /** The job is PROCESSING. */
  claim(job: string): Promise<void>
  progress(job: string, value: unknown): Promise<void>
  log(job: string, line: string): Promise<void>
  /** The job is COMPLETED, and this is its result. */
  complete(job: string, result: unknown): Promise<void>
  /** All but the last event of the job are no longer kept. */
  trim(job: string): Promise<void>
  /** The job as it is now will come back with `lose`. */
  keep(job: string): Promise<void>
  /** What has happened to the job since `keep` is lost, and the gateway has lost its connection meanwhile. */
  lose(job: string): Promise<void>
  /** From now on, and for so many milliseconds, the gateway can't read jobs. */
  outage(ms: number): Promise<void>
  /** The token with this `jti` is accepted no more. */
  revoke(token: string): Promise<void>
  /** The gateway has been told to stop in order. */
  drain(): Promise<void>
  close(): Promise<void>
}

/** A line of the protocol, and its answer. */
export interface Told {
  id: number
  do: Exclude<keyof Driver, 'close'>
  job?: string
  tags?: string[]
  value?: unknown
  line?: string
  result?: unknown
  ms?: number
  token?: string
}
export interface Answer {
  id: number
  job?: string
  error?: string
  unsupported?: boolean
}

/** A program that reads one command a line, and answers each with a line, in any order. */
export const programDriver = (command: string): Driver => {
  const program = spawn(command, { shell: true, stdio: ['pipe', 'pipe', 'inherit'] })
  const waiting = new Map<number, { resolve: (answer: Answer) => void; reject: (error: Error) => void }>()
  let last = 0
  let ended: Error | undefined
  const fail = (error: Error) => {
    ended ??= error
    for (const { reject } of waiting.values()) reject(error)
    waiting.clear()
  }
  program.on('error', fail)
  program.stdin.on('error', fail)
  program.on('exit', (code) => fail(new Error(`the driver ended with ${code}`)))
  createInterface({ input: program.stdout }).on('line', (line) => {
    try {
      const answer = JSON.parse(line) as Answer
      waiting.get(answer.id)?.resolve(answer)
      waiting.delete(answer.id)
    } catch {
      fail(new Error(`the driver said what is not JSON: ${line.slice(0, 200)}`))
    }
  })
  const tell = async (what: Omit<Told, 'id'>): Promise<Answer> => {
    if (ended) throw ended
    const id = ++last
    const answer = await new Promise<Answer>((resolve, reject) => {
      waiting.set(id, { resolve, reject })
      program.stdin.write(`${JSON.stringify({ id, ...what })}\n`)
    })
    if (answer.unsupported) throw new Skipped(`the driver does not know how to ${what.do}`)
    if (answer.error !== undefined) throw new Error(`the driver failed to ${what.do}: ${answer.error}`)
    return answer
  }
  return {
    create: async ({ tags } = {}) => {
      const { job } = await tell({ do: 'create', ...(tags ? { tags } : {}) })
      if (typeof job !== 'string') throw new Error('the driver answered `create` without a `job`')
      return job
    },
    claim: async (job) => void (await tell({ do: 'claim', job })),
    progress: async (job, value) => void (await tell({ do: 'progress', job, value })),
    log: async (job, line) => void (await tell({ do: 'log', job, line })),
    complete: async (job, result) => void (await tell({ do: 'complete', job, result })),
    trim: async (job) => void (await tell({ do: 'trim', job })),
    keep: async (job) => void (await tell({ do: 'keep', job })),
    lose: async (job) => void (await tell({ do: 'lose', job })),
    outage: async (ms) => void (await tell({ do: 'outage', ms })),
    revoke: async (token) => void (await tell({ do: 'revoke', token })),
    drain: async () => void (await tell({ do: 'drain' })),
    close: () =>
      new Promise((resolve) => {
        if (program.exitCode !== null) return resolve()
        program.once('exit', () => resolve())
        program.stdin.end()
      }),
  }
}
