// `jobs work`: a worker that runs any program per job, until it is told to stop.
import { defineJob, type Jobs, Worker, type WorkerOptions } from '@jobs/state'
import { execute } from './exec.ts'
import { EXIT, print, printJson } from './output.ts'

export interface WorkOptions {
  exec: string
  concurrency: number
  id?: string
  grace: number
}

export const work = async (
  jobs: Jobs,
  name: string,
  options: WorkOptions,
  json: boolean,
): Promise<number> => {
  const workerOptions: WorkerOptions = {
    concurrency: options.concurrency,
    ...(options.id === undefined ? {} : { workerId: options.id }),
  }
  const worker = new Worker(
    jobs,
    defineJob({ name }),
    (job) => execute(options.exec, job, { graceMs: options.grace }),
    workerOptions,
  )
  const tell = (event: string, about: object, text: string) =>
    json ? printJson({ event, worker: worker.id, ...about }) : print(`${event.padEnd(10)} ${text}`)
  for (const event of ['active', 'completed', 'cancelled', 'released', 'lost'] as const)
    worker.on(event, (about) => tell(event, about, `${about.id} attempt ${about.attempt}`))
  for (const event of ['failed', 'retrying'] as const)
    worker.on(event, (about) =>
      tell(event, about, `${about.id} attempt ${about.attempt}: ${about.error.message}`),
    )
  worker.on('error', ({ code, message }) => tell('error', { error: { code, message } }, message))
  const told = new Promise<void>((resolve) => {
    for (const signal of ['SIGTERM', 'SIGINT'] as const)
      process.on(signal, () => {
        resolve()
        // Asked twice: at once.
        process.on(signal, () => process.exit(EXIT.failed))
      })
  })
  await worker.start()
  tell(
    'ready',
    { name },
    `worker ${worker.id} takes ${name} jobs, ${options.concurrency} at a time; Ctrl-C stops it`,
  )
  await told
  tell('stopping', {}, 'running jobs are handed back')
  // Programs hear SIGTERM at once, and their jobs go to other workers.
  await worker.stop({ graceMs: 0 })
  return EXIT.ok
}
