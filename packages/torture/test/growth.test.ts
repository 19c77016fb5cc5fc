// What counts as growing, and what is noise: by looks that are made up.
import { describe, expect, it } from 'vitest'
import { randomOf } from '../../state/test/random.ts'
import { ENOUGH, growthOf, type Look, type ProcessLook } from '../src/growth.ts'

const WINDOWS = 30
const still = { mb: 120, handles: 30, bytes: 3_000_000, connections: 40, consumers: 12 }
type Figures = typeof still

/** Looks of one process beside Redis, of which some figures are functions of the window. */
const looksOf = (
  grows: Partial<Record<keyof Figures, (n: number) => number>>,
  windows = WINDOWS,
  who: (n: number) => string = () => 'gateway-2.1',
): Look[] =>
  Array.from({ length: windows }, (_, n) => {
    const of = (name: keyof Figures) => grows[name]?.(n) ?? still[name]
    const process: ProcessLook = { mb: of('mb'), handles: of('handles') }
    return {
      processes: new Map([[who(n), process]]),
      redis: { bytes: of('bytes'), connections: of('connections'), consumers: of('consumers') },
    }
  })

describe('what grows with every window is told', () => {
  it.each([
    [
      'memory of a process',
      { mb: (n: number) => 120 + 5 * n },
      'gateway-2.1 grew from 195 to 245 MB in 30 windows',
    ],
    [
      'files and sockets of a process',
      { handles: (n: number) => 30 + n },
      'gateway-2.1 held 45 files and sockets, then 55',
    ],
    [
      'connections to Redis',
      { connections: (n: number) => 40 + 2 * n },
      'Redis had 70 connections when all was quiet, then 90',
    ],
    [
      'bytes of Redis',
      { bytes: (n: number) => 3_000_000 * (1 + n / 5) },
      'Redis used 12000000 bytes without jobs, then 18000000',
    ],
    [
      'names of workers in a group',
      { consumers: (n: number) => 12 + 4 * n },
      'the group of a queue has 128 consumers',
    ],
  ])('%s', (_, grows, says) => {
    expect(growthOf(looksOf(grows))).toEqual([says])
  })
})

it('what comes late and stays is told', () => {
  const late = (before: number, after: number) => (n: number) => (n < 18 ? before : after)
  expect(
    growthOf(looksOf({ mb: late(120, 200), handles: late(30, 50), connections: late(40, 60) })),
  ).toHaveLength(3)
})

describe('what does not grow from window to window is not told', () => {
  it.each([
    ['figures that stay', {}],
    [
      'a process and a Redis that warm up',
      {
        mb: (n: number) => 120 + Math.min(n, 9) * 12,
        bytes: (n: number) => 1_000_000 * Math.min(n + 1, 9),
        connections: (n: number) => Math.min(40, 4 * n),
      },
    ],
    [
      'one look that is high',
      {
        mb: (n: number) => (n === 27 ? 900 : 120),
        handles: (n: number) => (n === 28 ? 400 : 30),
        connections: (n: number) => (n === 29 ? 300 : 40),
        bytes: (n: number) => (n === 27 ? 9e8 : 3e6),
      },
    ],
    [
      'what shrinks',
      {
        mb: (n: number) => 300 - 5 * n,
        handles: (n: number) => 60 - n,
        connections: (n: number) => 100 - 2 * n,
      },
    ],
    ['a worker a window, forgotten after ninety', { consumers: (n: number) => Math.min(n, 90) }],
  ])('%s', (_, grows) => {
    expect(growthOf(looksOf(grows, 120))).toEqual([])
  })

  it('noise of a tenth, by a hundred seeds', () => {
    for (let seed = 1; seed <= 100; seed++) {
      const random = randomOf(seed)
      const noisy = (name: keyof Figures) => () => still[name] * (0.9 + random.below(200) / 1_000)
      const names: (keyof Figures)[] = ['mb', 'handles', 'bytes', 'connections', 'consumers']
      const grows = Object.fromEntries(names.map((name) => [name, noisy(name)]))
      expect(growthOf(looksOf(grows, ENOUGH)), `seed ${seed}`).toEqual([])
    }
  })

  it('processes that were started again, each by itself too short a time to be judged', () => {
    const again = (n: number) => `worker-1.${Math.floor(n / (ENOUGH - 1))}`
    expect(
      growthOf(looksOf({ mb: (n) => 120 + 20 * n, handles: (n) => 30 + 5 * n }, WINDOWS, again)),
    ).toEqual([])
  })
})

it('several servers may have several times as much', () => {
  const looks = looksOf({ connections: (n) => 40 + 2 * n })
  expect(growthOf(looks, 1)).toHaveLength(1)
  expect(growthOf(looks, 6)).toEqual([])
})
