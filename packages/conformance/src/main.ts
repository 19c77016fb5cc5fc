// `pnpm conformance <url>`: holds a gateway against the protocol's promises, and says which it keeps.
import { execFile } from 'node:child_process'
import { parseArgs, promisify } from 'node:util'
import { CHECKS } from './checks/index.ts'
import { type Driver, programDriver } from './driver.ts'
import { skip } from './outcome.ts'
import { redisDriver } from './redis-driver.ts'
import { type Result, run, type TokenOptions } from './run.ts'

const HELP = `pnpm conformance ws://host:port/v1/ws [options]

Holds a gateway against docs/protocol.md, from outside. Something has to make jobs go meanwhile:
  --redis URL           jobs of our library, on the Redis that the gateway reads
  --namespace NS        ... in this namespace (jobs)
  --partitions N        ... of so many partitions (1)
  --driver CMD          or a program that makes them go; see packages/conformance/README.md

A gateway that asks for tokens:
  --token TOKEN         one that lets watch every job
  --token-command CMD   a program that prints one; its arguments are what it lets watch:
                        job ids, * for every job, tag:TAG; and life:SECONDS (which may
                        be negative) and id:JTI, for tokens that end and are revoked
  --drain-command CMD   a program that tells the gateway to stop, for the last check of all

  --only NAME,NAME      the checks to run, by name or by group
  --wait MS             how long any answer may take (5000)
  --patience MS         how long a heartbeat may take (60000)
  --list                name the checks, and what each holds the gateway to
  --json                results as JSON
  --help

Exit code: 0 no check failed (those skipped are told, with the reason), 1 one did, 2 it could not run.
`

const fail = (why: string): never => {
  console.error(`${why}\nSee: pnpm conformance --help`)
  process.exit(2)
}

const number = (name: string, text: string): number => {
  const value = Number(text)
  return Number.isInteger(value) && value > 0 ? value : fail(`--${name} takes a positive number, not ${text}`)
}

const optionsOf = () => {
  try {
    return parseArgs({
      allowPositionals: true,
      options: {
        redis: { type: 'string' },
        namespace: { type: 'string', default: 'jobs' },
        partitions: { type: 'string', default: '1' },
        driver: { type: 'string' },
        token: { type: 'string' },
        'token-command': { type: 'string' },
        'drain-command': { type: 'string' },
        only: { type: 'string' },
        wait: { type: 'string', default: '5000' },
        patience: { type: 'string', default: '60000' },
        list: { type: 'boolean', default: false },
        json: { type: 'boolean', default: false },
        help: { type: 'boolean', default: false },
      },
    })
  } catch (error) {
    return fail((error as Error).message)
  }
}

const print = ({ outcome, name, promise, why, ms }: Result): void => {
  const mark = { pass: 'pass', fail: 'FAIL', skip: 'skip' }[outcome]
  console.log(`${mark}  ${name.padEnd(32)} ${promise} (${ms} ms)${why ? `\n      ${why}` : ''}`)
}

const { values, positionals } = optionsOf()
if (values.help) {
  console.log(HELP)
  process.exit(0)
}
const wanted = values.only?.split(',')
const checks = CHECKS.filter(
  ({ name }) => !wanted || wanted.some((want) => name === want || name.startsWith(`${want}/`)),
)
if (checks.length === 0) fail(`there is no check ${values.only}; --list names them`)
if (values.list) {
  for (const { name, promise } of checks) console.log(`${name.padEnd(32)} ${promise}`)
  process.exit(0)
}
const [url = ''] = positionals
if (!/^wss?:\/\/[^/]+\/v1\/ws$/.test(url)) fail('say which gateway: ws://host:port/v1/ws')
if ((values.redis === undefined) === (values.driver === undefined)) fail('give either --redis or --driver')

const exec = promisify(execFile)
const command = values['token-command']
const token = command
  ? async (of: string[] = ['*'], { lifeSeconds, id }: TokenOptions = {}) => {
      const life = lifeSeconds === undefined ? [] : [`life:${lifeSeconds}`]
      const special = [...life, ...(id === undefined ? [] : [`id:${id}`])]
      const made = exec('sh', ['-c', `${command} "$@"`, 'sh', ...of, ...special])
      if (special.length > 0)
        await made.catch(() =>
          skip(`needs a token with ${special.join(' ')}, which --token-command does not make`),
        )
      return (await made).stdout.trim()
    }
  : values.token === undefined
    ? undefined
    : async () => values.token as string

let driver: Driver
try {
  driver =
    values.driver === undefined
      ? await redisDriver({
          url: values.redis as string,
          namespace: values.namespace,
          partitions: number('partitions', values.partitions),
        })
      : programDriver(values.driver)
} catch (error) {
  fail(`The driver does not start: ${(error as Error).message}`)
  throw error
}
const drain = values['drain-command']
if (drain !== undefined) driver.drain = async () => void (await exec('sh', ['-c', drain]))
const results = await run(
  checks,
  {
    url,
    driver,
    token,
    tokenPerJob: command !== undefined,
    waitMs: number('wait', values.wait),
    patienceMs: number('patience', values.patience),
  },
  values.json ? undefined : print,
)
await driver.close()

const count = (outcome: Result['outcome']) => results.filter((result) => result.outcome === outcome).length
if (values.json) console.log(JSON.stringify(results, null, 2))
else console.log(`\n${count('pass')} pass, ${count('fail')} fail, ${count('skip')} skipped`)
process.exitCode = count('fail') > 0 ? 1 : 0
