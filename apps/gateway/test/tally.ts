// A client that keeps the counts of a tag, and a batch of jobs for it to count.
import { ServerMessage } from '@jobs/protocol'
import { isTerminal, type Jobs, STATES, type StateCounts } from '@jobs/state'
import { until, type Watcher } from '@jobs/testkit'
import { anyJob } from './harness.ts'

const ERROR = '{"name":"Error","message":"no"}'

/** Keeps the counts of a tag as any client does: `counts` are taken over, each `job` moves one. */
export class Tally {
  counts: StateCounts | undefined
  /** Times that counts were told, and changes. */
  readonly told = { counts: 0, jobs: 0 }
  private readonly tag: string
  private read = 0
  private watcher: Watcher | undefined

  constructor(tag: string) {
    this.tag = tag
  }

  subscribe(watcher: Watcher): void {
    this.watcher = watcher
    this.read = 0
    this.counts = undefined
    watcher.send({ type: 'subscribe', tag: this.tag, id: 't' })
  }

  take(): StateCounts | undefined {
    const messages = this.watcher?.messages ?? []
    for (; this.read < messages.length; this.read++) {
      const message = ServerMessage.parse(messages[this.read])
      if (message.type === 'error') throw new Error(message.message)
      if (message.type === 'counts') {
        this.counts = { ...message.counts }
        this.told.counts++
      }
      if (message.type === 'job') {
        if (!this.counts) throw new Error('a change before any counts')
        this.told.jobs++
        if (message.from) this.counts[message.from]--
        this.counts[message.state]++
      }
      for (const state of STATES)
        if ((this.counts?.[state] ?? 0) < 0) throw new Error(`${state} ${this.counts?.[state]}`)
    }
    return this.counts
  }

  /** Until it says what Redis says. */
  async agrees(jobs: Jobs): Promise<StateCounts> {
    return until(
      async () => {
        const is = await jobs.counts({ tag: this.tag })
        const mine = this.take()
        return mine && STATES.every((state) => mine[state] === is[state]) ? is : null
      },
      { what: `the counts of ${JSON.stringify(this.counts)} being those of Redis` },
    )
  }
}

/** Enqueues jobs and runs them to their ends, a little of everything, until told to stop; resolves when all have ended. */
export const runBatch = (jobs: Jobs, tag: string, size: number, pauseMs = 0) => {
  const { transitions } = jobs
  const claimant = { worker: 'w', nonce: 'n', leaseMs: 60_000 }
  /** Redis may be away. */
  const surely = async <T>(move: () => Promise<T>): Promise<T> => {
    for (;;)
      try {
        return await move()
      } catch {
        await new Promise((resolve) => setTimeout(resolve, 20))
      }
  }
  return (async () => {
    for (let i = 0; i < size; i++) {
      await surely(() => jobs.enqueue(anyJob, i, { id: `${tag}-${i}`, tags: [tag], maxAttempts: 2 }))
      if (i % 7 === 0) await surely(() => jobs.cancel(`${tag}-${i}`))
      for (const keys of transitions.keys) {
        const { grants } = await surely(() => transitions.take(keys, 'any', 2, claimant))
        for (const grant of grants)
          await surely(() =>
            i % 5 === 0 ? transitions.fail(grant, ERROR) : transitions.complete(grant, '1'),
          )
      }
      await new Promise((resolve) => setTimeout(resolve, pauseMs))
    }
  })()
}

/** Jobs of any end. */
export const ended = (counts: StateCounts): number =>
  STATES.filter(isTerminal).reduce((sum, state) => sum + counts[state], 0)
