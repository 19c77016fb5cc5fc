// The state machine as data: every legal move of a job, once. Types, Lua guards, docs and tests come from here.
// It knows nothing of Redis and runs in a browser.

export const STATES = ['SCHEDULED', 'QUEUED', 'PROCESSING', 'COMPLETED', 'FAILED', 'CANCELLED'] as const
export type State = (typeof STATES)[number]

export const TERMINAL_STATES = ['COMPLETED', 'FAILED', 'CANCELLED'] as const satisfies State[]
export type TerminalState = (typeof TERMINAL_STATES)[number]

interface Move {
  /** Who makes the move; a worker's move carries the fence of its attempt. */
  by: 'producer' | 'worker' | 'reaper' | 'anyone'
  /** States the move is legal from; none means "the job does not exist yet". */
  from: readonly State[]
  /** States the move may end in. A state in both lists means the move can leave the state as it is. */
  to: readonly State[]
  /** The event the job's stream hears, or null for a silent move. */
  event: 'state' | 'progress' | 'log' | null
  /** Whether it must work when Redis is out of memory: what frees memory or keeps a live worker alive. */
  allowOom: boolean
  /** One sentence for people: docs/state-machine.md shows it. */
  says: string
}

export const MOVES = {
  enqueue: {
    by: 'producer',
    from: [],
    to: ['QUEUED', 'SCHEDULED'],
    event: 'state',
    allowOom: false,
    says: 'Creates the job, to run now or after a delay.',
  },
  promote: {
    by: 'reaper',
    from: ['SCHEDULED'],
    to: ['QUEUED'],
    event: 'state',
    allowOom: false,
    says: 'Queues a scheduled job whose time has come.',
  },
  claim: {
    by: 'worker',
    from: ['QUEUED'],
    to: ['PROCESSING'],
    event: 'state',
    allowOom: false,
    says: 'Starts an attempt and hands its fence to the worker.',
  },
  heartbeat: {
    by: 'worker',
    from: ['PROCESSING'],
    to: ['PROCESSING'],
    event: null,
    allowOom: true,
    says: 'Says that the attempt is alive; the answer tells whether a cancel was requested.',
  },
  progress: {
    by: 'worker',
    from: ['PROCESSING'],
    to: ['PROCESSING'],
    event: 'progress',
    allowOom: false,
    says: 'Replaces the progress of the attempt.',
  },
  log: {
    by: 'worker',
    from: ['PROCESSING'],
    to: ['PROCESSING'],
    event: 'log',
    allowOom: false,
    says: 'Appends a log line to the stream.',
  },
  complete: {
    by: 'worker',
    from: ['PROCESSING'],
    to: ['COMPLETED'],
    event: 'state',
    allowOom: true,
    says: 'Ends the job with its result.',
  },
  retry: {
    by: 'worker',
    from: ['PROCESSING'],
    to: ['QUEUED', 'SCHEDULED', 'CANCELLED'],
    event: 'state',
    allowOom: true,
    says: 'The attempt failed; another follows, now or after a backoff (or none, when a cancel was requested).',
  },
  fail: {
    by: 'worker',
    from: ['PROCESSING'],
    to: ['FAILED'],
    event: 'state',
    allowOom: true,
    says: 'Ends the job with an error.',
  },
  release: {
    by: 'worker',
    from: ['PROCESSING'],
    to: ['QUEUED', 'CANCELLED'],
    event: 'state',
    allowOom: true,
    says: 'Hands the job back at a graceful stop; costs neither a failure nor a crash.',
  },
  abort: {
    by: 'worker',
    from: ['PROCESSING'],
    to: ['CANCELLED'],
    event: 'state',
    allowOom: true,
    says: 'Ends a job whose cancel was requested, once its handler has stopped.',
  },
  cancel: {
    by: 'anyone',
    from: ['SCHEDULED', 'QUEUED', 'PROCESSING'],
    to: ['CANCELLED', 'PROCESSING'],
    event: 'state',
    allowOom: true,
    says: 'Ends a waiting job at once; asks the worker of a running one to stop.',
  },
  rerun: {
    by: 'anyone',
    from: ['FAILED', 'CANCELLED'],
    to: ['QUEUED'],
    event: 'state',
    allowOom: false,
    says: 'Queues an ended job again, with fresh budgets.',
  },
  reap: {
    by: 'reaper',
    from: ['PROCESSING'],
    to: ['QUEUED', 'FAILED', 'CANCELLED'],
    event: 'state',
    allowOom: true,
    says: 'Takes the job from a worker whose heartbeat ended: again, crashed for good, or cancelled.',
  },
} as const satisfies Record<string, Move>

export type MoveName = keyof typeof MOVES
export const MOVE_NAMES = Object.keys(MOVES) as MoveName[]

export const isState = (value: unknown): value is State => STATES.includes(value as State)

export const isTerminal = (state: State): state is TerminalState =>
  (TERMINAL_STATES as readonly State[]).includes(state)

/** Whether a job in `state` (null: no such job) may make the move. */
export const canMove = (move: MoveName, state: State | null): boolean => {
  const from: readonly State[] = MOVES[move].from
  return state === null ? from.length === 0 : from.includes(state)
}
