// A real Redis and a namespace in it for one test file, and workers that wait to be told what to do.
import type { Handler, JobDefinition, WorkerOptions } from '@jobs/state'
import { startTestJobs, type TestJobs } from '@jobs/state/testing'
import { startTestRedis, type TestRedis } from '@jobs/testkit'

export interface Stage {
  redis: TestRedis
  jobs: TestJobs
  /** Runs every job of the definition that waits, with a worker of its own, and stops it. */
  workOff<P, G, R, I>(
    definition: JobDefinition<P, G, R, I>,
    handler: Handler<P, G, R>,
    ids: readonly string[],
    options?: WorkerOptions,
  ): Promise<void>
  stop(): Promise<void>
}

export const startStage = async ({ partitions = 1 } = {}): Promise<Stage> => {
  const redis = await startTestRedis()
  const jobs = await startTestJobs({ url: redis.url, partitions })
  return {
    redis,
    jobs,
    workOff: async (definition, handler, ids, options) => {
      const worker = await jobs.work(definition, handler, options)
      for (const id of ids) await jobs.wait(id)
      await worker.stop()
    },
    stop: async () => {
      await jobs.close()
      await redis.stop()
    },
  }
}

/** A promise and what settles it. */
export const gate = <T = void>() => {
  let open: (value: T) => void = () => undefined
  const opened = new Promise<T>((resolve) => {
    open = resolve
  })
  return { open, opened }
}
