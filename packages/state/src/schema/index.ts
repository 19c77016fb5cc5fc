// @jobs/state/schema: what a job is, free of Redis, so that it runs in a browser.
export { cursorOf, fold, type JobEvent, JobEvent as JobEventSchema } from './event.ts'
export { JobError, Snapshot } from './job.ts'
export { Cursor, DEFAULTS, JobId, JobName, Label, LIMITS, msOf, Namespace, seqOf } from './limits.ts'
export {
  canMove,
  isState,
  isTerminal,
  MOVE_NAMES,
  MOVES,
  type MoveName,
  PRIORITIES,
  type Priority,
  STATES,
  type State,
  TERMINAL_STATES,
  type TerminalState,
} from './machine.ts'
export {
  TOKEN_ALGORITHMS,
  TOKEN_AUDIENCE,
  TOKEN_CHARS,
  TOKEN_SECRET_BYTES,
  type TokenAlgorithm,
} from './token.ts'
