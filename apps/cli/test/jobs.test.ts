// The command as its user runs it: a process, its lines, its exit codes.
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import {
  fromSource,
  startProcess,
  startTestRedis,
  type TestProcess,
  type TestRedis,
  until,
} from '@jobs/testkit'
import { afterAll, beforeAll, expect, it } from 'vitest'

let redis: TestRedis
let dir: string
beforeAll(async () => {
  redis = await startTestRedis()
  dir = await mkdtemp(join(tmpdir(), 'jobs-cli-test-'))
})
afterAll(async () => {
  await redis.stop()
  await rm(dir, { recursive: true, force: true })
})

const start = (...args: string[]): TestProcess =>
  startProcess(process.execPath, [...fromSource('apps/cli/src/main.ts'), ...args], {
    env: { REDIS_URL: redis.url, JOBS_NAMESPACE: 'cli' },
  })

const run = async (...args: string[]) => {
  const command = start(...args)
  command.end()
  const { code } = await command.exited
  return { code, out: command.stdout, err: command.stderr }
}

const enqueue = async (name: string, ...more: string[]): Promise<string> => {
  const { out } = await run('enqueue', name, '--payload', '{"n":7}', ...more)
  return out[0] as string
}

const working = async (name: string, script: string, ...more: string[]) => {
  const worker = start('work', name, '--exec', script, '--json', ...more)
  await worker.line((line) => line.includes('"ready"'))
  return worker
}

it('runs a program per job: payload in, progress, log and result out; watch exits 0', async () => {
  const worker = await working(
    'sum',
    `read payload; echo '{"progress":{"done":1,"total":2}}'; echo plain words; echo "{\\"result\\":{\\"got\\":$payload}}"`,
  )
  const id = await enqueue('sum')
  const { code, out } = await run('watch', id, '--json')
  expect(code).toBe(0)
  const events = out.map((line) => JSON.parse(line))
  expect(events.slice(0, -1).map(({ seq }) => seq)).toEqual(events.slice(0, -1).map((_, i) => i + 1))
  expect(events.find(({ type }) => type === 'log')).toMatchObject({ line: 'plain words' })
  expect(events.at(-1)).toMatchObject({
    id,
    name: 'sum',
    state: 'COMPLETED',
    attempt: 1,
    progress: { done: 1, total: 2 },
    result: { got: { n: 7 } },
  })
  await worker.kill('SIGTERM')
  expect(await worker.exited).toEqual({ code: 0, signal: null })
})

it('fails a job with the end of stderr when the program exits otherwise; watch exits 1; retry queues it again', async () => {
  const worker = await working('bad', 'echo "no such thing" >&2; exit 3')
  const id = await enqueue('bad', '--max-attempts', '1')
  expect((await run('watch', id)).code).toBe(1)
  const job = JSON.parse((await run('get', id, '--json')).out[0] as string)
  expect(job).toMatchObject({
    state: 'FAILED',
    error: { code: 'EXIT_3', message: 'no such thing' },
    payload: { n: 7 },
  })
  await worker.kill('SIGKILL')
  expect((await run('retry', id)).code).toBe(0)
  expect((await run('list', '--state', 'queued', '--json')).out.map((line) => JSON.parse(line).id)).toContain(
    id,
  )
  expect((await run('cancel', id)).code).toBe(0)
  expect((await run('watch', id)).code).toBe(2)
})

it('ends a cancelled program by SIGTERM, and by SIGKILL one that does not listen', async () => {
  const heard = join(dir, 'heard')
  const worker = await working(
    'long',
    `trap 'echo TERM > ${heard}' TERM; while true; do sleep 0.1; done`,
    '--grace',
    '300ms',
  )
  const id = await enqueue('long')
  await worker.line((line) => line.includes('"active"'))
  expect((await run('cancel', id)).code).toBe(0)
  expect((await run('watch', id)).code).toBe(2)
  expect((await readFile(heard, 'utf8')).trim()).toBe('TERM')
  await worker.kill('SIGTERM')
})

it('hands running jobs back when the worker is stopped, and ends their programs', async () => {
  const pidFile = join(dir, 'pid')
  const worker = await working('held', `echo $$ > ${pidFile}; sleep 60`)
  const id = await enqueue('held')
  await worker.line((line) => line.includes('"active"'))
  await until(() => readFile(pidFile, 'utf8').catch(() => ''), { what: 'the program' })
  await worker.kill('SIGTERM')
  expect(JSON.parse((await run('get', id, '--json')).out[0] as string)).toMatchObject({
    state: 'QUEUED',
    failures: 0,
  })
  const pid = Number(await readFile(pidFile, 'utf8'))
  expect(() => process.kill(pid, 0)).toThrow()
})

it('pages a listing without missing or repeating', async () => {
  const ids = []
  for (let i = 0; i < 5; i++) ids.push(await enqueue('paged', '--delay', '1h'))
  const seen: string[] = []
  let cursor: string[] = []
  for (;;) {
    const { out } = await run('list', '--state', 'SCHEDULED', '--limit', '2', '--json', ...cursor)
    const lines = out.map((line) => JSON.parse(line))
    seen.push(...lines.filter(({ id }) => id).map(({ id }) => id))
    const last = lines.at(-1)
    if (!last?.cursor || last.id) break
    cursor = ['--cursor', last.cursor]
  }
  expect(seen.sort()).toEqual(ids.sort())
  expect(JSON.parse((await run('stats', '--json')).out[0] as string)).toMatchObject({ SCHEDULED: 5 })
})

it.each([
  ['an unknown job', ['get', 'nope'], 1, 'UNKNOWN_JOB'],
  ['a bad id', ['get', 'a{b'], 64, 'INVALID_JOB_ID'],
  ['a bad name', ['enqueue', 'a b', '--payload', '1'], 64, 'INVALID_JOB_NAME'],
  ['a payload that is not JSON', ['enqueue', 'x', '--payload', '{'], 64, 'INVALID_PAYLOAD'],
  ['an unknown state', ['list', '--state', 'DANCING'], 64, 'INVALID_STATE'],
  ['a listing cursor that is none', ['list', '--state', 'QUEUED', '--cursor', '?'], 64, 'INVALID_CURSOR'],
])('tells one error for %s and changes nothing', async (_, args, exit, code) => {
  // What earlier tests left expires by itself, which would look like a change.
  await redis.client().flushall()
  await run('stats')
  const before = await redis.digest()
  const { code: got, err } = await run(...args, '--json')
  expect(got).toBe(exit)
  expect(err.map((line) => JSON.parse(line).error.code)).toEqual([code])
  expect(await redis.digest()).toBe(before)
})

it('says which Redis it can’t reach and exits 69', async () => {
  const { code, err } = await run('stats', '--redis', 'redis://127.0.0.1:1')
  expect(code).toBe(69)
  expect(err.join()).toContain('127.0.0.1:1')
})

it.each([['--help'], ['work', '--help'], ['enqueue', '--help']])('helps: %s', async (...args) => {
  const { code, out } = await run(...args)
  expect(code).toBe(0)
  expect(out.join('\n')).toContain('Usage: jobs')
})
