// The attempts a worker holds, in memory shared with whoever beats for them: one slot each. The loop that runs the
// handlers writes; writing takes under a microsecond and wakes nobody, so short jobs cost nothing more.
import type { Beating } from './outcomes.ts'

/** Bytes: turn (int32), length (int32), start (float64), then "<id> <fence> <leaseMs>": at most 128 + 1 + 30 + 1 + 7
 * characters. */
const SLOT_BYTES = 192
const TEXT_AT = 16
const FIRST_PAGE_SLOTS = 16

// Every thread of a process counts performance.now() from another start.
const OFFSET_MS = Number(process.hrtime.bigint()) / 1e6 - performance.now()

/** Milliseconds of a clock that all threads of a process share, and that never steps. */
export const sharedNow = (): number => performance.now() + OFFSET_MS

/** A run of slots. A slot's turn is 0 while it is free, and another number each time it is used. */
export class Page {
  readonly memory: SharedArrayBuffer
  readonly slots: number
  private readonly ints: Int32Array
  private readonly floats: Float64Array
  private readonly text: Buffer

  constructor(memory: SharedArrayBuffer) {
    this.memory = memory
    this.slots = memory.byteLength / SLOT_BYTES
    this.ints = new Int32Array(memory)
    this.floats = new Float64Array(memory)
    this.text = Buffer.from(memory)
  }

  write(slot: number, turn: number, { id, fence, leaseMs }: Beating): void {
    const at = slot * SLOT_BYTES
    const length = this.text.write(`${id} ${fence} ${leaseMs}`, at + TEXT_AT, SLOT_BYTES - TEXT_AT, 'latin1')
    this.ints[at / 4 + 1] = length
    this.floats[at / 8 + 1] = sharedNow()
    Atomics.store(this.ints, at / 4, turn)
  }

  clear(slot: number): void {
    Atomics.store(this.ints, (slot * SLOT_BYTES) / 4, 0)
  }

  /** The attempt in a slot, when there is one that has been held for so long. */
  read(slot: number, minAgeMs: number): { turn: number; attempt: Beating } | null {
    const at = slot * SLOT_BYTES
    const turn = Atomics.load(this.ints, at / 4)
    if (turn === 0 || sharedNow() - (this.floats[at / 8 + 1] as number) < minAgeMs) return null
    const text = this.text.toString('latin1', at + TEXT_AT, at + TEXT_AT + (this.ints[at / 4 + 1] as number))
    // It may have been given to another attempt while it was read.
    if (Atomics.load(this.ints, at / 4) !== turn) return null
    const [id = '', fence = '', leaseMs] = text.split(' ')
    return { turn, attempt: { id, fence, leaseMs: Number(leaseMs) } }
  }
}

/** Held by the writer: hands out slots, and grows by pages. Slots count through all pages. */
export class Board<T> {
  readonly pages: Page[] = []
  private readonly onPage: (page: Page) => void
  private readonly where: { page: Page; slot: number }[] = []
  private readonly holders: (T | undefined)[] = []
  private readonly turns: number[] = []
  private readonly free: number[] = []
  private turn = 0

  /** @param onPage told of each page before its first slot is used */
  constructor(onPage: (page: Page) => void) {
    this.onPage = onPage
  }

  hold(attempt: Beating, holder: T): number {
    if (this.free.length === 0) this.grow()
    const slot = this.free.pop() as number
    this.turn = (this.turn % 0x7fffffff) + 1
    this.turns[slot] = this.turn
    this.holders[slot] = holder
    const { page, slot: own } = this.where[slot] as { page: Page; slot: number }
    page.write(own, this.turn, attempt)
    return slot
  }

  /** No more beats; the slot stays taken until it is released. */
  silence(slot: number): void {
    const { page, slot: own } = this.where[slot] as { page: Page; slot: number }
    page.clear(own)
  }

  release(slot: number): void {
    if (this.holders[slot] === undefined) return
    this.silence(slot)
    this.holders[slot] = undefined
    this.free.push(slot)
  }

  /** Who holds the slot, if it is still the same turn. */
  holder(slot: number, turn: number): T | undefined {
    return this.turns[slot] === turn ? this.holders[slot] : undefined
  }

  private grow(): void {
    const slots = Math.max(FIRST_PAGE_SLOTS, this.where.length)
    const page = new Page(new SharedArrayBuffer(slots * SLOT_BYTES))
    this.pages.push(page)
    this.onPage(page)
    const first = this.where.length
    for (let slot = 0; slot < slots; slot++) this.where.push({ page, slot })
    // The lowest slots are taken first.
    for (let slot = first + slots - 1; slot >= first; slot--) this.free.push(slot)
  }
}
