// @jobs/state/schema: what a job is, free of Redis, so that it runs in a browser.
export { cursorOf, fold, type JobEvent, JobEvent as JobEventSchema } from './event.ts'
export { JobError, Snapshot } from './job.ts'
export { Cursor, JobId, JobName, LIMITS, msOf, Namespace, seqOf } from './limits.ts'
export {
  canMove,
  isState,
  isTerminal,
  MOVE_NAMES,
  MOVES,
  type MoveName,
  STATES,
  type State,
  TERMINAL_STATES,
  type TerminalState,
} from './machine.ts'
