// What a watcher may have been told of a job, by a history that is made up: where its master was killed, and where not. When
// a job may be taken from its worker, how a process may end, and what a reaper must not find.
import type { JobEvent } from '@jobs/state'
import { describe, expect, it } from 'vitest'
import { recoveriesOf, type Strike, type ToldNote, watchViolations } from '../src/checks.ts'
import { damageIn } from '../src/fleet.ts'
import { type Death, howEnded, mayEndItself } from '../src/member.ts'

const event = (
  seq: number,
  move: 'enqueue' | 'claim' | 'complete',
  state: string,
  at: number,
  more = {},
): JobEvent =>
  ({ seq, at, type: 'state', move, state, attempt: move === 'enqueue' ? 0 : 1, ...more }) as JobEvent
const enqueued = event(1, 'enqueue', 'QUEUED', 1_000, { name: 'torture' })
const claimed = event(2, 'claim', 'PROCESSING', 1_100, { worker: 'a' })
const claimedAgain = event(2, 'claim', 'PROCESSING', 4_000, { worker: 'b' })
const completed = event(3, 'complete', 'COMPLETED', 1_200)
const completedAgain = event(3, 'complete', 'COMPLETED', 4_200)

/** What is there: the first claim went with its master, and the job was run by another worker. */
const stream = new Map([['j', [enqueued, claimedAgain, completedAgain]]])
const KILLED_UNTIL = 3_000
const told = (at: number, ...all: ToldNote['told']): ToldNote => ({
  ...{ does: 'told', at, job: 'j', detail: 'all', completed: 'COMPLETED', told: all },
})
const events = (...items: JobEvent[]) => ({
  events: items,
  from: items[0]?.seq ?? 0,
  to: items.at(-1)?.seq ?? 0,
})
const LATER = 20_000

it('what the stream has may be told, whatever was struck', () => {
  for (const until of [undefined, KILLED_UNTIL])
    expect(
      watchViolations(told(LATER, events(enqueued, claimedAgain, completedAgain)), stream, until),
    ).toEqual([])
})

describe('of a history that went with its master', () => {
  const lost = events(enqueued, claimed)
  const after = events(claimedAgain, completedAgain)

  it('a watcher that is told reset, and then what the stream has, was told well', () => {
    const all = told(LATER, lost, { reset: 'redis_recovered' }, events(enqueued), after)
    expect(watchViolations(all, stream, KILLED_UNTIL)).toEqual([])
  })
  it('a watcher that saw the end before the loss was told well', () => {
    expect(watchViolations(told(1_300, lost, events(completed)), stream, KILLED_UNTIL)).toEqual([])
  })
  it.each([
    [
      'no master was killed',
      told(LATER, lost, { reset: 'redis_recovered' }, events(enqueued), after),
      undefined,
    ],
    ['nobody tells of the loss', told(LATER, lost, events(completedAgain)), KILLED_UNTIL],
    [
      'what is told after the reset is not in the stream',
      told(LATER, { reset: 'ahead' }, lost, events(completed)),
      KILLED_UNTIL,
    ],
    [
      'an event is left out after the reset',
      told(LATER, { reset: 'ahead' }, events(enqueued), { ...events(completedAgain), from: 2 }),
      KILLED_UNTIL,
    ],
    [
      'the reset has another reason',
      told(LATER, lost, { reset: 'trimmed' }, events(enqueued), after),
      KILLED_UNTIL,
    ],
    [
      'the job is said not to exist',
      { ...told(LATER, { reset: 'not_found' }), completed: null },
      KILLED_UNTIL,
    ],
    ['the end is told long after the loss', told(LATER, lost, events(completed)), KILLED_UNTIL],
  ])('it is a violation that %s', (_, all, until) => {
    expect(watchViolations(all, stream, until)).not.toEqual([])
  })
})

describe('a job that is taken from its worker', () => {
  const AT = 60_000
  const reaped = event(3, 'reap' as 'claim', 'QUEUED', AT, { worker: 'worker-1.2', reason: 'worker_lost' })
  const judged = (strikes: Strike[], diedAt?: number, more: Partial<Death> = {}) =>
    recoveriesOf(new Map([['j', [enqueued, claimed, reaped]]]), {
      deaths:
        diedAt === undefined
          ? []
          : [{ who: 'worker-1.2', kind: 'worker', at: diedAt, how: 'killed', ...more }],
      strikes,
      slackMs: 500,
    })
  const strike = (fault: Strike['fault'], target: string, from: number, to: number): Strike => ({
    ...{ fault, target, from, to },
  })

  it.each([
    ['the worker was frozen', [strike('zombie', 'worker-1', AT - 4_000, AT + 1_000)]],
    ['its link was stalled until a lease ago', [strike('link-stalled', 'worker-1', AT - 5_000, AT - 2_000)]],
    ['all links were cut', [strike('clients-killed', 'redis', AT - 3_000, AT - 1_000)]],
    ['its master was killed', [strike('master-killed', 'partition-3', AT - 3_000, AT - 1_000)]],
  ])('is no violation where %s', (_, strikes) => {
    expect(judged(strikes).wrong).toEqual([])
  })
  it.each([
    ['nothing was struck', []],
    ['another worker was frozen', [strike('zombie', 'worker-2', AT - 4_000, AT + 1_000)]],
    ['the worker was frozen long ago', [strike('zombie', 'worker-1', AT - 20_000, AT - 10_000)]],
    ['the worker was frozen later', [strike('zombie', 'worker-1', AT + 100, AT + 4_000)]],
    ['only a reaper was frozen', [strike('process-frozen', 'reaper-1', AT - 4_000, AT + 1_000)]],
    ['scripts were flushed', [strike('scripts-flushed', 'redis', AT - 1_000, AT + 1_000)]],
    ['Redis was killed', [strike('redis-killed', 'redis', AT - 3_000, AT - 1_000)]],
    ['Redis was restarted', [strike('redis-restarted', 'redis', AT - 3_000, AT - 1_000)]],
    ['Redis was frozen', [strike('redis-frozen', 'redis', AT - 3_000, AT - 1_000)]],
    ['clients were paused', [strike('clients-paused', 'redis', AT - 3_000, AT - 1_000)]],
    ['memory was full', [strike('memory-full', 'redis', AT - 3_000, AT - 1_000)]],
    ['other workers were killed with their host', [strike('host-killed', 'host', AT - 3_000, AT - 1_000)]],
  ])('is a violation where %s', (_, strikes) => {
    expect(judged(strikes).wrong).toHaveLength(1)
  })
  it('is a violation where its worker had died too long before, and none where it had died lately', () => {
    expect(judged([], AT - 3_000)).toEqual({ wrong: [], recoveries: [3_000], disturbed: 0 })
    expect(judged([], AT - 4_000).wrong).toHaveLength(1)
    expect(judged([strike('process-frozen', 'reaper-1', AT - 3_900, AT - 100)], AT - 4_000).wrong).toEqual([])
  })

  describe('that stopped in order', () => {
    const stopped = (strikes: Strike[]) =>
      judged(strikes, AT - 2_000, { how: 'stopped', askedAt: AT - 2_600 }).wrong
    it.each([
      ['Redis was away meanwhile', [strike('redis-frozen', 'redis', AT - 2_500, AT - 1_000)]],
      ['Redis came back a lease before', [strike('redis-killed', 'redis', AT - 6_000, AT - 4_500)]],
      ['its link was cut a lease before', [strike('link-cut', 'worker-1', AT - 4_500, AT - 4_500)]],
      ['it was frozen a lease before', [strike('process-frozen', 'worker-1', AT - 7_000, AT - 4_500)]],
    ])('is no violation where %s', (_, strikes) => {
      expect(stopped(strikes)).toEqual([])
    })
    it.each([
      ['nothing was struck', []],
      ['Redis was away long before', [strike('redis-frozen', 'redis', AT - 8_000, AT - 5_200)]],
      ['Redis was away later', [strike('redis-frozen', 'redis', AT - 1_900, AT - 1_000)]],
      ['another link was cut', [strike('link-cut', 'worker-2', AT - 2_500, AT - 2_500)]],
      ['only a reaper was frozen', [strike('process-frozen', 'reaper-1', AT - 4_000, AT + 1_000)]],
      ['a host was killed', [strike('host-killed', 'host', AT - 4_000, AT - 1_000)]],
    ])('is a violation where %s', (_, strikes) => {
      expect(stopped(strikes)).toHaveLength(1)
    })
  })
})

describe('a process that has ended', () => {
  const exit = (code: number | null, signal: NodeJS.Signals | null = null) => ({ code, signal })
  it.each([
    ['stopped in order', 'asked', exit(0), 'stopped'],
    ['was asked while it started', 'asked', exit(null, 'SIGTERM'), 'killed'],
    ['was killed by the driver', 'killed', exit(null, 'SIGKILL'), 'killed'],
    ['was asked, and failed', 'asked', exit(1), 'itself'],
    ['was asked, and killed by somebody else', 'asked', exit(null, 'SIGKILL'), 'itself'],
    ['was killed by somebody else', undefined, exit(null, 'SIGKILL'), 'itself'],
    ['ended though nobody had asked', undefined, exit(0), 'itself'],
  ] as const)('%s', (_, ended, how, is) => {
    expect(howEnded(ended, how)).toBe(is)
  })

  it('by itself, may have done so where it is a worker, a poison job is about, and it was killed', () => {
    const killed = exit(null, 'SIGKILL')
    expect(mayEndItself('worker', killed, true)).toBe(true)
    expect(mayEndItself('worker', killed, false)).toBe(false)
    expect(mayEndItself('worker', exit(null, 'SIGSEGV'), true)).toBe(false)
    expect(mayEndItself('worker', exit(0), true)).toBe(false)
    for (const kind of ['keeper', 'reaper', 'gateway', 'enqueuer', 'watcher'] as const)
      expect(mayEndItself(kind, killed, true)).toBe(false)
  })
})

it('of what a reaper says, damage that it found is told, mended or not, and nothing else', () => {
  const line = (msg: string, outcome = 'mended') =>
    JSON.stringify({
      ...{ level: 40, time: 1, service: 'reaper', code: 'not_queued', partition: 3, about: 'j' },
      ...{ says: 'QUEUED, and in no queue.', outcome, msg },
    })
  expect(damageIn(line('found damage'))).toBe(
    'not_queued of j in partition 3, mended: QUEUED, and in no queue.',
  )
  expect(damageIn(line('found damage', 'left'))).toContain('left')
  expect(damageIn(line('repaired'))).toBeUndefined()
  expect(damageIn(JSON.stringify({ job: 'found damage', msg: 'repaired' }))).toBeUndefined()
  expect(damageIn('found damage')).toBeUndefined()
})
