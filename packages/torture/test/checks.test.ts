// What a watcher may have been told of a job, by a history that is made up: where its master was killed, and where not. And
// when a job may be taken from its worker.
import type { JobEvent } from '@jobs/state'
import { describe, expect, it } from 'vitest'
import { recoveriesOf, type Strike, type ToldNote, watchViolations } from '../src/checks.ts'

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
  const judged = (strikes: Strike[], diedAt?: number) =>
    recoveriesOf(new Map([['j', [enqueued, claimed, reaped]]]), {
      deaths: diedAt === undefined ? [] : [{ who: 'worker-1.2', kind: 'worker', at: diedAt }],
      strikes,
      slackMs: 500,
    })
  const strike = (fault: Strike['fault'], target: string, from: number, to: number): Strike => ({
    ...{ fault, target, from, to },
  })

  it.each([
    ['the worker was frozen', [strike('zombie', 'worker-1', AT - 4_000, AT + 1_000)]],
    ['its link was stalled until a lease ago', [strike('link-stalled', 'worker-1', AT - 5_000, AT - 2_000)]],
    ['Redis was away', [strike('redis-killed', 'redis', AT - 3_000, AT - 1_000)]],
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
  ])('is a violation where %s', (_, strikes) => {
    expect(judged(strikes).wrong).toHaveLength(1)
  })
  it('is a violation where its worker had died too long before, and none where it had died lately', () => {
    expect(judged([], AT - 3_000)).toEqual({ wrong: [], recoveries: [3_000], disturbed: 0 })
    expect(judged([], AT - 4_000).wrong).toHaveLength(1)
    expect(judged([strike('process-frozen', 'reaper-1', AT - 3_900, AT - 100)], AT - 4_000).wrong).toEqual([])
  })
})
