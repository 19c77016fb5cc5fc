// The state machine as data: every legal move of a job, once. Types, Lua guards, docs and tests come from here.
// It knows nothing of Redis and runs in a browser.

export const STATES = ['SCHEDULED', 'QUEUED', 'PROCESSING', 'COMPLETED', 'FAILED', 'CANCELLED'] as const
export type State = (typeof STATES)[number]

export const TERMINAL_STATES = ['COMPLETED', 'FAILED', 'CANCELLED'] as const satisfies State[]
export type TerminalState = (typeof TERMINAL_STATES)[number]

export const PRIORITIES = ['high', 'normal', 'low'] as const
export type Priority = (typeof PRIORITIES)[number]

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
  /** Arguments of its Lua file, in order, all strings; null for a move that a pass over many jobs makes. */
  takes: readonly string[] | null
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
    takes: ['id', 'name', 'payload', 'delayMs', 'runAt', 'key', 'keyMs', 'options', 'told'],
    says: 'Creates the job, to run now or at a time to come.',
  },
  promote: {
    by: 'reaper',
    from: ['SCHEDULED'],
    to: ['QUEUED'],
    event: 'state',
    allowOom: false,
    takes: null,
    says: 'Queues a scheduled job whose time has come.',
  },
  claim: {
    by: 'worker',
    from: ['QUEUED'],
    to: ['PROCESSING'],
    event: 'state',
    allowOom: false,
    takes: ['id', 'entry', 'worker', 'nonce', 'leaseMs', 'max', 'perMs', 'keyMax', 'keyPerMs'],
    says: 'Starts an attempt and hands its fence to the worker.',
  },
  defer: {
    by: 'worker',
    from: ['QUEUED'],
    to: ['SCHEDULED'],
    event: 'state',
    allowOom: false,
    takes: null,
    says: 'Puts off a job whose rate key is used up, at the moment a worker would claim it.',
  },
  heartbeat: {
    by: 'worker',
    from: ['PROCESSING'],
    to: ['PROCESSING'],
    event: null,
    allowOom: true,
    takes: ['id', 'fence'],
    says: 'Says that the attempt is alive; the answer tells whether a cancel was requested.',
  },
  progress: {
    by: 'worker',
    from: ['PROCESSING'],
    to: ['PROCESSING'],
    event: 'progress',
    allowOom: false,
    takes: ['id', 'fence', 'op', 'progress'],
    says: 'Replaces the progress of the attempt.',
  },
  log: {
    by: 'worker',
    from: ['PROCESSING'],
    to: ['PROCESSING'],
    event: 'log',
    allowOom: false,
    takes: ['id', 'fence', 'op', 'line'],
    says: 'Appends a log line to the stream.',
  },
  checkpoint: {
    by: 'worker',
    from: ['PROCESSING'],
    to: ['PROCESSING'],
    event: null,
    allowOom: false,
    takes: ['id', 'fence', 'data'],
    says: 'Keeps data that the next attempt receives.',
  },
  complete: {
    by: 'worker',
    from: ['PROCESSING'],
    to: ['COMPLETED'],
    event: 'state',
    allowOom: true,
    takes: ['id', 'fence', 'progress', 'result'],
    says: 'Ends the job with its result.',
  },
  retry: {
    by: 'worker',
    from: ['PROCESSING'],
    to: ['QUEUED', 'SCHEDULED', 'CANCELLED'],
    event: 'state',
    allowOom: true,
    takes: ['id', 'fence', 'progress', 'failure', 'delayMs'],
    says: 'The attempt failed; another follows, now or after a backoff (or none, when a cancel was requested).',
  },
  fail: {
    by: 'worker',
    from: ['PROCESSING'],
    to: ['FAILED'],
    event: 'state',
    allowOom: true,
    takes: ['id', 'fence', 'progress', 'failure'],
    says: 'Ends the job with an error.',
  },
  release: {
    by: 'worker',
    from: ['PROCESSING'],
    to: ['QUEUED', 'CANCELLED'],
    event: 'state',
    allowOom: true,
    takes: ['id', 'fence', 'progress'],
    says: 'Hands the job back at a graceful stop; costs neither a failure nor a crash.',
  },
  abort: {
    by: 'worker',
    from: ['PROCESSING'],
    to: ['CANCELLED'],
    event: 'state',
    allowOom: true,
    takes: ['id', 'fence', 'progress'],
    says: 'Ends a job whose cancel was requested, once its handler has stopped.',
  },
  cancel: {
    by: 'anyone',
    from: ['SCHEDULED', 'QUEUED', 'PROCESSING'],
    to: ['CANCELLED', 'PROCESSING'],
    event: 'state',
    allowOom: true,
    takes: ['id', 'op'],
    says: 'Ends a waiting job at once; asks the worker of a running one to stop.',
  },
  reschedule: {
    by: 'anyone',
    from: ['SCHEDULED', 'QUEUED'],
    to: ['SCHEDULED', 'QUEUED'],
    event: 'state',
    allowOom: false,
    takes: ['id', 'delayMs', 'runAt', 'op'],
    says: 'Gives a waiting job another time to run.',
  },
  rerun: {
    by: 'anyone',
    from: ['COMPLETED', 'FAILED', 'CANCELLED'],
    to: ['QUEUED'],
    event: 'state',
    allowOom: false,
    takes: ['id', 'op'],
    says: 'Queues an ended job again, with fresh budgets.',
  },
  remove: {
    by: 'anyone',
    from: ['COMPLETED', 'FAILED', 'CANCELLED'],
    to: [],
    event: null,
    allowOom: true,
    takes: ['id'],
    says: 'Deletes an ended job with all that is kept of it.',
  },
  reap: {
    by: 'reaper',
    from: ['PROCESSING'],
    to: ['QUEUED', 'SCHEDULED', 'FAILED', 'CANCELLED'],
    event: 'state',
    allowOom: true,
    takes: null,
    says: 'Takes the job from a worker whose heartbeat ended: again (at once or after a backoff), crashed for good, or cancelled.',
  },
  timeout: {
    by: 'reaper',
    from: ['PROCESSING'],
    to: ['QUEUED', 'SCHEDULED', 'FAILED', 'CANCELLED'],
    event: 'state',
    allowOom: true,
    takes: null,
    says: 'Takes the job from a worker that is alive and did not end the attempt in its time, or let it hang.',
  },
  expire: {
    by: 'reaper',
    from: ['SCHEDULED', 'QUEUED'],
    to: ['FAILED'],
    event: 'state',
    allowOom: true,
    takes: null,
    says: 'Ends a job that waited longer than it was worth.',
  },
} as const satisfies Record<string, Move>

/** What goes through the same script beside moves of one job. */
export const CALLS = {
  take: {
    allowOom: false,
    takes: ['name', 'worker', 'nonce', 'leaseMs', 'count', 'max', 'perMs', 'keyMax', 'keyPerMs'],
    says: 'Claims the next jobs of a name, the higher priorities first.',
  },
  beat: {
    allowOom: true,
    takes: ['worker', 'name', 'attempts'],
    says: 'Says that a worker process and its attempts are alive; the answer tells which are lost or to be cancelled.',
  },
  present: {
    allowOom: true,
    takes: ['worker', 'ttlMs', 'about'],
    says: 'Says that a worker process is there, and what it is.',
  },
  absent: { allowOom: true, takes: ['worker'], says: 'Says that a worker process has gone.' },
  pause: { allowOom: true, takes: ['name'], says: 'Stops claims of a job name, or of every name.' },
  resume: { allowOom: true, takes: ['name'], says: 'Ends a pause.' },
  revoke: {
    allowOom: true,
    takes: ['what', 'at'],
    says: 'Has gateways refuse a token, or all that a subject was given so far.',
  },
} as const satisfies Record<string, Pick<Move, 'allowOom' | 'says'> & { takes: readonly string[] }>
export type CallName = keyof typeof CALLS

/** Moves that a pass makes on many jobs: scripts of their own, each a bounded step. */
export const PASSES = {
  promote: ['count', 'skip'],
  reap: ['queue', 'cursor', 'count', 'minIdleMs', 'maxGapMs', 'silenceMs', 'amnesty', 'whole', 'dry'],
  expire: ['count', 'skip'],
} as const satisfies Record<string, readonly string[]>
export type PassName = keyof typeof PASSES

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
