// The `jobs` command: every subcommand, its arguments and its help.
import { readFileSync } from 'node:fs'
import { commonConfig, loadConfig } from '@jobs/service'
import { type ConnectOptions, connectJobs, defineJob, Jobs, type State } from '@jobs/state'
import { Command, InvalidArgumentError } from 'commander'
import { z } from 'zod'
import { doctor } from './doctor.ts'
import { EXIT, print, printJson, Refused, report } from './output.ts'
import { type Chosen, chosen, listQuarantine, told } from './quarantine.ts'
import { ago, jobLines } from './render.ts'
import { watch } from './watch.ts'
import { work } from './work.ts'

/** Milliseconds until the command gives up on Redis. */
const DEADLINE_MS = 5_000

const DURATION = /^(\d+(?:\.\d+)?)(ms|s|m|h|d)?$/
const UNITS: Record<string, number> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 }

const duration = (text: string): number => {
  const match = DURATION.exec(text)
  if (!match) throw new InvalidArgumentError('give milliseconds, or a number with ms, s, m, h or d, like 10s')
  return Math.round(Number(match[1]) * (UNITS[match[2] ?? 'ms'] as number))
}

const count = (text: string): number => {
  if (!/^[1-9]\d{0,5}$/.test(text)) throw new InvalidArgumentError('give a whole number from 1')
  return Number(text)
}

const payloadOf = (text: string): unknown => {
  const source =
    text === '-' ? readFileSync(0, 'utf8') : text.startsWith('@') ? readFileSync(text.slice(1), 'utf8') : text
  try {
    return JSON.parse(source)
  } catch (error) {
    throw new Refused('INVALID_PAYLOAD', `The payload is not JSON: ${(error as Error).message}`, EXIT.usage)
  }
}

interface GlobalOptions {
  redis?: string
  namespace?: string
  partitions?: string
  json?: boolean
}

const program = new Command('jobs')
  .description('Enqueue, watch and steer jobs, or work on them with any program.')
  .option('--redis <url>', 'Redis to use (REDIS_URL)')
  .option('--namespace <name>', 'application whose jobs these are (JOBS_NAMESPACE)')
  .option('--partitions <n>', 'partitions of the namespace (JOBS_PARTITIONS)')
  .option('--json', 'one JSON object a line')
  .exitOverride()
  .showHelpAfterError('(--help tells more)')
  .addHelpText(
    'after',
    `
Examples:
  jobs enqueue resize --payload '{"file":"a.png"}'
  jobs work resize --exec './resize.sh'
  jobs watch ID

Exit codes: 0 done (watch: completed), 1 refused or failed, 2 cancelled (watch), 64 wrong use, 69 Redis not reachable.`,
  )

const globalJson = () => program.opts<GlobalOptions>().json ?? false

/** Runs an action with a connection, and ends the process with its exit code. */
const run = async (
  action: (jobs: Jobs, json: boolean) => Promise<number>,
  connect: (options: ConnectOptions) => Jobs | Promise<Jobs> = connectJobs,
): Promise<void> => {
  const given = program.opts<GlobalOptions>()
  const config = loadConfig(z.object(commonConfig), {
    ...process.env,
    ...(given.redis === undefined ? {} : { REDIS_URL: given.redis }),
    ...(given.namespace === undefined ? {} : { JOBS_NAMESPACE: given.namespace }),
    ...(given.partitions === undefined ? {} : { JOBS_PARTITIONS: given.partitions }),
  })
  const jobs = await connect({
    url: config.REDIS_URL,
    namespace: config.JOBS_NAMESPACE,
    partitions: config.JOBS_PARTITIONS,
    deadlineMs: DEADLINE_MS,
    connectionName: 'jobs-cli',
    allowUnsafeRedis: config.JOBS_ALLOW_UNSAFE_REDIS,
    // Who asks for one job does not ask for advice on the server.
    onFinding: () => undefined,
  })
  try {
    process.exitCode = await action(jobs, given.json ?? false)
  } finally {
    await jobs.close()
  }
}

const known = async (jobs: Jobs, id: string) => {
  const job = await jobs.get(id)
  if (!job) throw new Refused('UNKNOWN_JOB', `There is no job ${id}.`)
  return job
}

/** Tells how a steering move ended. */
const steered = async (jobs: Jobs, id: string, move: 'cancel' | 'rerun', json: boolean): Promise<number> => {
  const outcome = await jobs[move](id)
  if (!outcome.ok) {
    if (outcome.reason === 'unknown_job') throw new Refused('UNKNOWN_JOB', `There is no job ${id}.`)
    const verb = move === 'cancel' ? 'cancelled' : 'retried; only jobs that have ended can be'
    throw new Refused('ILLEGAL_MOVE', `The job ${id} is ${outcome.state}: it can't be ${verb}.`)
  }
  const job = await known(jobs, id)
  if (json) printJson(job)
  else print(job.state === 'PROCESSING' ? `${id} was asked to stop` : `${id} ${job.state}`)
  return EXIT.ok
}

program
  .command('enqueue <name>')
  .description('create a job')
  .requiredOption('--payload <json>', 'what the worker gets: JSON, @FILE, or - for stdin')
  .option('--id <id>', 'your own id; enqueuing it again is harmless')
  .option('--delay <duration>', 'run it no sooner, e.g. 500ms, 10s, 2h', duration)
  .option('--max-attempts <n>', 'runs that may fail before the job has', count)
  .option('--watch', 'then follow it to its end')
  .action(
    (
      name: string,
      options: { payload: string; id?: string; delay?: number; maxAttempts?: number; watch?: boolean },
    ) => {
      const definition = defineJob({ name })
      const payload = payloadOf(options.payload)
      return run(async (jobs, json) => {
        const { id, duplicate } = await jobs.enqueue(definition, payload, {
          ...(options.id === undefined ? {} : { id: options.id }),
          ...(options.delay === undefined ? {} : { delayMs: options.delay }),
          ...(options.maxAttempts === undefined ? {} : { maxAttempts: options.maxAttempts }),
        })
        if (json) printJson({ ...(await known(jobs, id)), duplicate })
        else print(id)
        return options.watch ? watch(jobs, id, json) : EXIT.ok
      })
    },
  )

program
  .command('get <id>')
  .description('show a job')
  .action((id: string) =>
    run(async (jobs, json) => {
      const job = await known(jobs, id)
      if (json) printJson({ ...job, payload: await jobs.payload(id) })
      else print(jobLines(job))
      return EXIT.ok
    }),
  )

program
  .command('list')
  .description('list jobs in one state, oldest first')
  .requiredOption('--state <state>', 'SCHEDULED, QUEUED, PROCESSING, COMPLETED, FAILED or CANCELLED')
  .option('--name <name>', 'only jobs of this name')
  .option('--limit <n>', 'jobs at most', count, 50)
  .option('--cursor <cursor>', 'go on where a listing ended')
  .action((options: { state: string; name?: string; limit: number; cursor?: string }) =>
    run(async (jobs, json) => {
      const { state, ...rest } = options
      const page = await jobs.list({ state: state.toUpperCase() as State, ...rest })
      for (const job of page.jobs) {
        if (json) printJson(job)
        else
          print(
            `${job.id.padEnd(32)} ${job.name.padEnd(16)} ${job.state.padEnd(10)} attempt ${job.attempt}  ${ago(job.updatedAt)}`,
          )
      }
      if (page.cursor !== null) {
        if (json) printJson({ cursor: page.cursor })
        else print(`More: --cursor ${page.cursor}`)
      } else if (page.jobs.length === 0 && !json) print(`No jobs are ${state.toUpperCase()}.`)
      return EXIT.ok
    }),
  )

program
  .command('watch <id>')
  .description('follow a job to its end; exit 0 completed, 1 failed, 2 cancelled')
  .action((id: string) => run((jobs, json) => watch(jobs, id, json)))

program
  .command('cancel <id>')
  .description('end a waiting job; ask the worker of a running one to stop')
  .action((id: string) => run((jobs, json) => steered(jobs, id, 'cancel', json)))

program
  .command('retry <id>')
  .description('queue a job that has ended again, a completed one too')
  .action((id: string) => run((jobs, json) => steered(jobs, id, 'rerun', json)))

program
  .command('stats')
  .description('count jobs by state')
  .action(() =>
    run(async (jobs, json) => {
      const counts = await jobs.counts()
      if (json) printJson(counts)
      else
        for (const [state, n] of Object.entries(counts))
          print(`${state.padEnd(10)} ${String(n).padStart(10)}`)
      return EXIT.ok
    }),
  )

const quarantine = program
  .command('quarantine')
  .description('jobs that killed one worker after the other: list, retry or delete them')

quarantine
  .command('list')
  .description('list them with their crashes, the longest there first')
  .option('--name <name>', 'only jobs of this name')
  .option('--limit <n>', 'jobs at most', count, 50)
  .option('--cursor <cursor>', 'go on where a listing ended')
  .action((options: { name?: string; limit: number; cursor?: string }) =>
    run((jobs, json) => listQuarantine(jobs, options, json)),
  )

for (const [move, says, did] of [
  ['retry', 'queue them again, with fresh budgets', 'queued again'],
  ['delete', 'delete them with all that is kept of them', 'deleted'],
] as const)
  quarantine
    .command(`${move} [ids...]`)
    .description(says)
    .option('--all', 'all of them, rather than by id')
    .option('--name <name>', 'with --all: only jobs of this name')
    .action((ids: string[], options: Chosen) => {
      const which = chosen(ids, options)
      return run(async (jobs, json) => told(await jobs.quarantine[move](which), did, json))
    })

program
  .command('doctor')
  .description('look the namespace through, while it is in use, for what is lost, stuck or left over')
  .option('--fix', 'mend it')
  .addHelpText(
    'after',
    `
Exit codes: 0 nothing is wrong (any more), 1 warnings, 2 damage, 3 could not look, 64 wrong use. See docs/doctor.md.`,
  )
  .action((options: { fix?: boolean }) =>
    // Before it has looked nothing is written, not even the layout.
    doctor((action) => run(action, (given) => new Jobs(given)), options.fix ?? false, globalJson()),
  )

program
  .command('work <name>')
  .description('run a program per job, until stopped')
  .requiredOption('--exec <command>', 'shell command; payload on stdin, reports on stdout')
  .option('--concurrency <n>', 'programs at the same time', count, 1)
  .option('--id <id>', 'name of this worker')
  .option('--grace <duration>', 'time between SIGTERM and SIGKILL', duration, 2_000)
  .addHelpText(
    'after',
    `
The program gets the payload as JSON on stdin, and JOB_ID, JOB_NAME and JOB_ATTEMPT in its environment. Lines on stdout:
  {"progress": …}   replaces the job's progress
  {"log": "…"}      appends a log line (so does any line that is not one of these)
  {"result": …}     the result, if the program then ends with exit code 0
Another exit code fails the attempt with the end of stderr. When the job is cancelled, lost or this worker stops, the
program's process group gets SIGTERM, and SIGKILL after --grace.`,
  )
  .action((name: string, options: { exec: string; concurrency: number; id?: string; grace: number }) =>
    run((jobs, json) => work(jobs, name, options, json)),
  )

// A reader that closes the pipe (`| head`) is no fault of ours.
process.stdout.on('error', (error: NodeJS.ErrnoException) =>
  process.exit(error.code === 'EPIPE' ? EXIT.ok : EXIT.failed),
)
// Global options work before and after the subcommand.
const globals = (args: string[]): string[] => {
  const front: string[] = []
  const rest: string[] = []
  for (let i = 0; i < args.length; i++) {
    const arg = args[i] as string
    if (arg === '--json') front.push(arg)
    else if (/^--(redis|namespace|partitions)$/.test(arg)) front.push(arg, args[++i] ?? '')
    else rest.push(arg)
  }
  return [...front, ...rest]
}

const args = globals(process.argv.slice(2))
try {
  await program.parseAsync(args, { from: 'user' })
} catch (error) {
  process.exitCode = report(error, args.includes('--json'))
}
