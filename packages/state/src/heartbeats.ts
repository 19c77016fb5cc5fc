// Keeps the attempts of a worker alive. The beats come from one thread per process, which goes on while this loop is
// blocked (for `blockedLoopMs`); where there can't be a thread they come from this loop.
import { Worker as Thread } from 'node:worker_threads'
import type { Connection, Order, ThreadData, Told } from './beat-thread.ts'
import { type Beaten, Beater, type Heard, type Pace } from './beater.ts'
import { Board, type Page, sharedNow } from './board.ts'
import type { LinkOptions } from './connection.ts'
import { StateError } from './errors.ts'
import type { Jobs } from './jobs.ts'
import type { Beating as Attempt } from './outcomes.ts'

/** Milliseconds between the signs of life of this loop. */
const SIGN_MS = 100

/** An attempt to keep alive, and to tell what the beats say. */
export interface Kept {
  readonly grant: Attempt
  heard(answer: { ok: boolean; cancelRequested?: boolean }): void
}

const SOURCE = import.meta.url.endsWith('.ts')

/** The thread of this process and this loop's signs of life. It starts with the first worker, and never keeps the process. */
class Beats {
  readonly alive = new BigInt64Array(new SharedArrayBuffer(8))
  private readonly boards = new Map<number, PacedBoard>()
  private thread: Thread | undefined
  private signs: NodeJS.Timeout | undefined
  private count = 0
  private readonly up = Promise.withResolvers<void>()
  /** Why there is no thread (any more). */
  broken: unknown

  constructor() {
    try {
      this.thread = this.boot()
    } catch (error) {
      this.break(error)
    }
  }

  private boot(): Thread {
    const thread = new Thread(new URL(SOURCE ? './beat-thread.ts' : './beat-thread.js', import.meta.url), {
      name: 'jobs-heartbeats',
      workerData: { alive: this.alive.buffer as SharedArrayBuffer } satisfies ThreadData,
      // Without the process' preloads; only a Node that does not strip types needs its loader.
      ...(SOURCE && !process.features.typescript ? {} : { execArgv: [] }),
    })
    thread.on('message', (told: Told) => {
      if (told.kind === 'ready') {
        thread.unref()
        this.up.resolve()
      } else this.boards.get(told.board)?.told(told)
    })
    thread.on('error', (error) => this.break(error))
    thread.on('exit', (code) => this.break(new Error(`it ended with code ${code}`)))
    return thread
  }

  /** Resolves when the thread runs, or can't. */
  get ready(): Promise<void> {
    return this.up.promise
  }

  /** @returns the board's number */
  join(board: PacedBoard): number {
    this.boards.set(++this.count, board)
    if (!this.signs) {
      this.sign()
      this.signs = setInterval(() => this.sign(), SIGN_MS)
      this.signs.unref()
    }
    return this.count
  }

  leave(board: number): void {
    this.boards.delete(board)
    if (this.boards.size > 0) return
    clearInterval(this.signs)
    this.signs = undefined
  }

  tell(order: Order): void {
    this.thread?.postMessage(order)
  }

  private sign(): void {
    Atomics.store(this.alive, 0, BigInt(Math.round(sharedNow())))
  }

  private break(error: unknown): void {
    if (this.broken) return
    this.broken = error
    this.up.resolve()
    for (const board of this.boards.values()) board.beatHere(error)
  }
}

let beats: Beats | undefined
/** For boards that have no thread. This loop does not judge itself. */
const here = new Beater(sharedNow)

/** Whose beats these are. */
interface Beating {
  worker: string
  name: string
  pace: Pace
  trouble: (error: unknown) => void
}

/** Paces of a worker: its own, and halved so often for jobs with a shorter lease. */
const PACES = 16

export class Heartbeats {
  private readonly jobs: Jobs
  private readonly own: Beating
  private readonly boards: PacedBoard[] = []
  private beats: Beats | undefined

  constructor(jobs: Jobs, own: Beating) {
    this.jobs = jobs
    this.own = own
  }

  /** Resolves when jobs can be held: a loop that is blocked by its first job needs the thread at once. */
  async start(): Promise<void> {
    // A fault point is a function of this loop: it sees the beats too.
    if (!this.jobs.options.fault) {
      beats ??= new Beats()
      await beats.ready
      this.beats = beats
    }
    this.boardOf(0)
  }

  /** From now on; before the attempt's handler runs. Answers where it is kept, for `release`. */
  hold(kept: Kept): number {
    const halved = Math.ceil(Math.log2(this.own.pace.leaseMs / kept.grant.leaseMs))
    const pace = Math.min(Math.max(0, halved), PACES - 1)
    return this.boardOf(pace).hold(kept) * PACES + pace
  }

  release(held: number): void {
    this.boards[held % PACES]?.release(Math.floor(held / PACES))
  }

  stop(): void {
    for (const board of this.boards) board?.stop()
    this.boards.length = 0
  }

  private boardOf(halved: number): PacedBoard {
    const known = this.boards[halved]
    if (known) return known
    const { pace } = this.own
    const leaseMs = pace.leaseMs / 2 ** halved
    const heartbeatMs =
      halved === 0 ? pace.heartbeatMs : Math.floor(Math.min(pace.heartbeatMs, leaseMs / 3.5))
    const board = new PacedBoard(this.jobs, { ...this.own, pace: { ...pace, leaseMs, heartbeatMs } })
    board.start(this.beats)
    this.boards[halved] = board
    return board
  }
}

/** Milliseconds: a shorter lease may be over before a busy machine has made a connection, so it is made at the start. */
const EAGER_MS = 2_000

/** The attempts of a worker that are beaten for at one pace. */
class PacedBoard {
  private readonly jobs: Jobs
  private readonly beating: Beating
  private readonly board = new Board<Kept>((page) => this.grown(page))
  private beats: Beats | undefined
  private number = 0
  private opened = false
  private local: Beaten | undefined

  constructor(jobs: Jobs, beating: Beating) {
    this.jobs = jobs
    this.beating = beating
  }

  /** @param through whose thread beats; without it this loop does */
  start(through: Beats | undefined): void {
    if (!through || through.broken) this.beatHere(through?.broken)
    else {
      this.beats = through
      this.number = through.join(this)
      if (this.beating.pace.leaseMs < EAGER_MS) this.open(true)
    }
  }

  hold(kept: Kept): number {
    return this.board.hold(kept.grant, kept)
  }

  release(slot: number): void {
    this.board.release(slot)
  }

  stop(): void {
    if (this.local) here.remove(this.local)
    this.local = undefined
    if (!this.beats) return
    this.beats.leave(this.number)
    if (this.opened) this.beats.tell({ kind: 'close', board: this.number })
    this.beats = undefined
  }

  /** The thread's word. */
  told(told: Exclude<Told, { kind: 'ready' }>): void {
    if (told.kind === 'heard') this.heard(told.slot, told.turn, told.verdict)
    else this.beating.trouble(new StateError(told.code, told.message))
  }

  /** @param why there is no thread */
  beatHere(why?: unknown): void {
    this.beats = undefined
    this.local = {
      ...this.beating,
      pages: this.board.pages,
      beat: this.jobs.transitions.beat,
      heard: (slot, turn, verdict) => this.heard(slot, turn, verdict),
    }
    here.add(this.local)
    if (why === undefined) return
    this.beating.trouble(
      new StateError(
        'NO_BEAT_THREAD',
        `The thread for heartbeats can't run (${why instanceof Error ? why.message : why}): a handler that blocks the ` +
          'event loop for longer than its lease will lose its job.',
        { cause: why },
      ),
    )
  }

  private heard(slot: number, turn: number, verdict: Heard): void {
    const kept = this.board.holder(slot, turn)
    if (!kept) return
    if (verdict === 'lost') this.board.silence(slot)
    kept.heard({ ok: verdict !== 'lost', cancelRequested: verdict === 'cancel' })
  }

  private grown(page: Page): void {
    if (!this.beats) return
    // Not before it holds anything: a thousand idle workers are nothing to the thread.
    this.open(false)
    this.beats.tell({ kind: 'page', board: this.number, memory: page.memory })
  }

  private open(connect: boolean): void {
    if (this.opened) return
    this.opened = true
    const { worker, name, pace } = this.beating
    const connection = connectionOf(this.jobs)
    this.beats?.tell({ kind: 'open', board: this.number, connection, connect, worker, name, pace })
  }
}

/** What of the options a thread can be told: functions can't be sent to one. */
const connectionOf = ({ options, namespace, partitions }: Jobs): Connection => {
  const told = Object.entries(options).filter(([, value]) => typeof value !== 'function')
  return { ...(Object.fromEntries(told) as unknown as LinkOptions), namespace, partitions }
}
