// Throws cases at a gateway and watches it: it lives, says nothing outside the contract, keeps nothing of what has gone, and
// the others hear every event in order all the while.
import { readdirSync, readFileSync } from 'node:fs'
import { connect } from 'node:net'
import { CLOSE, ServerMessage } from '@jobs/protocol'
import { openWatcher, until } from '@jobs/testkit'
import { Follower, type Harness, startHarness } from '../harness.ts'
import { openRaw } from '../raw.ts'
import { JWT, sign } from '../tokens.ts'
import { type Case, caseOf, type Known } from './cases.ts'
import { randomOf } from './random.ts'

const CASES_AT_ONCE = 16
/** Cases after which the process has what it keeps for good: caches, compiled code. */
const WARM_UP = 300
const CLOSE_CODES = new Set([1002, 1003, 1007, 1008, 1009, ...Object.values(CLOSE).map(({ code }) => code)])
const STATUSES = new Set([101, 200, 204, 304, 400, 401, 403, 404, 405, 408, 413, 426, 429, 431, 503])
/** Bytes that the process may have grown by beside its heap. A heap that leaks ends the process at its own limit. */
const GROWTH = 160 * 1_048_576
/** The limits on newcomers are tested elsewhere; here they would keep cases out. */
const SETTINGS = {
  GATEWAY_ACCEPTS_PER_SECOND: '100000',
  GATEWAY_MAX_CONNECTIONS_PER_ADDRESS: '100000',
  NODE_OPTIONS: '--max-old-space-size=128',
}

export const startFuzzed = ({ tokens = false } = {}): Promise<Harness> =>
  startHarness({
    env: tokens ? { ...SETTINGS, ...JWT, GATEWAY_MAX_CONNECTIONS_PER_SUBJECT: '100000' } : SETTINGS,
  })

export interface Report {
  seed: number
  cases: number
  /** How often each kind ended in which way. */
  ends: Record<string, number>
  /** Empty when all is well. */
  faults: string[]
}

export const fuzz = async (
  h: Harness,
  { seed, seconds, tokens = false }: { seed: number; seconds: number; tokens?: boolean },
): Promise<Report> => {
  const report: Report = { seed, cases: 0, ends: {}, faults: [] }
  const fault = (why: string) => report.faults.push(why)
  let over = false
  let stopped = false
  void h.gateway.exited.then((exit) => {
    if (!stopped)
      fault(
        `the gateway ended: ${JSON.stringify(exit)} ${[...h.gateway.stderr, ...h.gateway.stdout].slice(-3).join('\n')}`,
      )
    over = true
  })

  // Somebody who watches, and whose job goes on.
  const job = await h.enqueue()
  const held = await h.claim(job)
  const witness = new Follower(job, '0-0')
  const witnessed = ['jobs.v1.json', ...(tokens ? [`bearer.${await sign()}`] : [])]
  witness.subscribe(await openWatcher(h.url(), witnessed))
  await witness.watcher?.next('live')
  const files = filesOf(h)
  const ended = await h.enqueue()
  await h.jobs.transitions.complete(await h.claim(ended), '1')
  const secret = await h.enqueue()
  const known: Known = {
    names: [job, ended, secret, 'no-such-job', (await h.jobs.get(ended))?.cursor ?? '0-0'],
    // None of them is for the third job.
    tokens: tokens
      ? [
          await sign({ jobs: [job, ended], tags: ['batch-7'] }),
          await sign({ jobs: [ended], sub: 'bob', jti: 'one' }),
          await sign({ jobs: [], sub: undefined }),
        ]
      : [],
  }
  const hidden = tokens ? secret : undefined
  let op = 0
  const working = (async () => {
    while (!over) {
      await h.jobs.transitions.progress(held, ++op, String(op))
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
  })()

  const throwOne = async (number: number): Promise<void> => {
    const thrown = caseOf(randomOf(seed + number), known)
    const end = await (thrown.kind === 'upgrade' ? upgrade(h, thrown) : converse(h, thrown, hidden))
    report.cases++
    const name = `${thrown.kind} ${end.how}`
    report.ends[name] = (report.ends[name] ?? 0) + 1
    for (const why of end.faults)
      fault(
        `case ${number} (${thrown.kind}): ${why}; it said: ${JSON.stringify(thrown.bytes.toString('latin1')).slice(0, 600)}`,
      )
  }
  let number = 0
  const round = (goOn: () => boolean) =>
    Promise.all(
      Array.from({ length: CASES_AT_ONCE }, async () => {
        while (!over && report.faults.length === 0 && goOn()) await throwOne(number++)
      }),
    )
  await round(() => number < WARM_UP)
  // A gateway that is gone is told of by its end.
  const rss = report.faults.length > 0 ? 0 : rssOf(h)
  const end = performance.now() + seconds * 1_000
  await round(() => performance.now() < end)

  if (report.faults.length === 0) {
    const left = await leftOver(h, job, files)
    if (left) fault(left)
    const growth = rssOf(h) - rss
    if (growth > GROWTH) fault(`the process grew by ${growth >> 20} MiB`)
  }
  over = true
  await working
  if (report.faults.length > 0) {
    // What ends the process may be told after what that did to a client.
    await Promise.race([h.gateway.exited, new Promise((resolve) => setTimeout(resolve, 1_000))])
    return report
  }
  await h.jobs.transitions.complete(held, '1')
  await until(
    () => {
      witness.take()
      return witness.complete
    },
    { what: 'the end of the job that was watched all the while' },
  ).catch((error: Error) => fault(error.message))
  const last = op + 3
  if (
    witness.told.length !== last ||
    witness.told.some((seq, i) => seq !== i + 1) ||
    witness.resets.length > 0
  )
    fault(
      `the watcher was told ${witness.told.length} of ${last} events, with ${witness.resets.length} resets`,
    )
  witness.watcher?.terminate()
  stopped = true
  if (h.gateway.stderr.length > 0) fault(`stderr: ${h.gateway.stderr.slice(0, 5).join('\n')}`)
  const errors = h.gateway.stdout.filter((line) => /"level":(50|60|"error"|"fatal")/.test(line))
  if (errors.length > 0) fault(`the log: ${errors[0]}`)
  return report
}

interface End {
  how: string
  faults: string[]
}

/** Says the case after a good handshake, then that no more comes: whatever it was, the connection ends. */
const converse = async (h: Harness, { bytes, closes }: Case, hidden?: string): Promise<End> => {
  const client = await openRaw(h.gateway.port)
  const faults: string[] = client.faults
  if (!client.head.startsWith('HTTP/1.1 101 ')) {
    client.socket.destroy()
    return { how: 'refused', faults: [`refused: ${client.head}`] }
  }
  client.send(bytes)
  client.socket.end()
  const code = await ending(client.ended, client.socket)
  if (code === 'late') faults.push('the connection does not end')
  else if (code !== null && code !== closes && !CLOSE_CODES.has(code))
    if (code !== 1005)
      // A close without a code is answered without one.
      faults.push(`closed with ${code}`)
  for (const message of client.messages) {
    const { error } = ServerMessage.safeParse(message)
    if (error) faults.push(`told what the contract does not know: ${JSON.stringify(message).slice(0, 300)}`)
    if (hidden !== undefined && message.job === hidden && message.type !== 'error')
      faults.push(`told what is not granted: ${JSON.stringify(message).slice(0, 300)}`)
    if (message.code === 'internal') faults.push(`told: ${JSON.stringify(message)}`)
  }
  return { how: String(code), faults }
}

const upgrade = async (h: Harness, { bytes }: Case): Promise<End> => {
  const socket = connect(h.gateway.port, '127.0.0.1')
  let answer = ''
  socket.on('error', () => undefined)
  socket.on('data', (chunk) => {
    answer += chunk.toString('latin1')
  })
  const ended = new Promise<null>((resolve) => socket.on('close', () => resolve(null)))
  socket.end(bytes)
  if ((await ending(ended, socket)) === 'late')
    return { how: 'late', faults: ['the connection does not end'] }
  const status = /^HTTP\/1\.1 (\d{3}) /.exec(answer)?.[1]
  // Half a request may end without an answer.
  if (answer === '') return { how: 'none', faults: [] }
  const allowed = status !== undefined && STATUSES.has(Number(status))
  return { how: status ?? 'other', faults: allowed ? [] : [`answered ${answer.slice(0, 200)}`] }
}

const ending = async <T>(ended: Promise<T>, socket: { destroy(): unknown }): Promise<T | 'late'> => {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<'late'>((resolve) => {
    timer = setTimeout(() => resolve('late'), 20_000)
  })
  const how = await Promise.race([ended, late])
  clearTimeout(timer)
  socket.destroy()
  return how
}

const filesOf = (h: Harness): number => readdirSync(`/proc/${h.gateway.pid}/fd`).length
const rssOf = (h: Harness): number =>
  Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${h.gateway.pid}/status`, 'utf8'))?.[1]) * 1_024

/** What is left of clients that are gone. A room stays open for some seconds after its last. */
const leftOver = async (h: Harness, watched: string, files: number): Promise<string | null> => {
  const look = async () => {
    const channels = (await h.redis.client().pubsub('CHANNELS', '*:jobs:*')) as string[]
    const rooms = channels.filter((name) => !name.endsWith(watched))
    if (rooms.length > 0) return `rooms are left: ${rooms.slice(0, 5)}`
    const more = filesOf(h) - files
    return more > 0 ? `${more} file descriptors are left` : null
  }
  try {
    await until(async () => (await look()) === null, { timeoutMs: 15_000 })
    return null
  } catch {
    return await look().catch((error: Error) => error.message)
  }
}
