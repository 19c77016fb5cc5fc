// @jobs/state/testing: for people who test their own handlers, with any test runner, on a real Redis.
export { startTestJobs, type TestJobs, type TestJobsOptions, type TestRun } from './test-jobs.ts'
export type { Duration, Passed } from './time.ts'
