// The memory that the loop shares with the thread that beats for it.
import { expect, it } from 'vitest'
import { Board, Page } from '../src/board.ts'

const attempt = (n: number) => ({ id: `job-${n}`, fence: `${n}-nonce`, leaseMs: 5_000 })

/** What the other side sees, which has the memory only. */
const seen = (board: Board<string>, minAgeMs = 0) =>
  board.pages
    .map(({ memory }) => new Page(memory))
    .flatMap((page) => Array.from({ length: page.slots }, (_, slot) => page.read(slot, minAgeMs)?.attempt))
    .filter((found) => found !== undefined)

it('shows what is held and no more, and grows as it must', () => {
  const board = new Board<string>(() => undefined)
  const slots = Array.from({ length: 1_000 }, (_, n) => board.hold(attempt(n), 'x'))
  expect(seen(board)).toEqual(slots.map((_, n) => attempt(n)))
  for (const slot of slots.slice(10)) board.release(slot)
  expect(seen(board)).toEqual(slots.slice(0, 10).map((_, n) => attempt(n)))
})

it('uses slots again rather than grow', () => {
  let pages = 0
  const board = new Board<string>(() => pages++)
  for (let n = 0; n < 1_000; n++) board.release(board.hold(attempt(n), 'x'))
  expect(pages).toBe(1)
})

it('holds the longest id, fence and lease that there are', () => {
  const board = new Board<string>(() => undefined)
  const longest = { id: 'i'.repeat(128), fence: `${2 ** 31}-${'n'.repeat(12)}`, leaseMs: 3_600_000 }
  board.hold(longest, 'x')
  expect(seen(board)).toEqual([longest])
})

it('shows nothing that is younger than asked', () => {
  const board = new Board<string>(() => undefined)
  board.hold(attempt(1), 'x')
  expect(seen(board, 60_000)).toEqual([])
})

it('knows an answer to an attempt whose slot has another now', () => {
  const board = new Board<string>(() => undefined)
  const slot = board.hold(attempt(1), 'first')
  const turn = (board.pages[0] as Page).read(slot, 0)?.turn as number
  board.release(slot)
  expect(board.hold(attempt(2), 'second')).toBe(slot)
  expect(board.holder(slot, turn)).toBeUndefined()
})

it('keeps the slot of an attempt that is lost until it is released: nobody shares it', () => {
  const board = new Board<string>(() => undefined)
  const lost = board.hold(attempt(1), 'lost')
  board.silence(lost)
  expect(seen(board)).toEqual([])
  const second = board.hold(attempt(2), 'second')
  board.release(lost)
  const third = board.hold(attempt(3), 'third')
  expect(second).not.toBe(third)
  expect(seen(board)).toEqual(expect.arrayContaining([attempt(2), attempt(3)]))
})
