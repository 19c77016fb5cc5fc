// What a room reads of its job, so that few reads serve many: one serves all who come at the same moment to the same position,
// and that of a rush those who come after it, as long as what was heard since leads on from it.
import type { Continuation, Snapshot } from '@jobs/state'
import { granted } from '../limits.ts'
import { bump, counts } from '../metrics.ts'
import type { Room } from './room.ts'
import type { Item } from './told.ts'

/** Where a room reads from: the job at one moment, with the events after a cursor. */
export interface RoomSource {
  snapshot(job: string): Promise<Snapshot | null>
  since(job: string, cursor: string, count: number): Promise<Continuation | null>
  /** Whether nothing has happened since the event at the cursor, which is still there: the cheaper question. */
  isLast(job: string, cursor: string): Promise<boolean>
  /** A read failed: calls `recovered` until it succeeds. */
  later(room: Room, error: unknown): void
}

/** Events kept to fill in watchers that read the job a moment ago. */
const KEPT = 64
/**
 * Watchers from which on a read goes on serving those who come after it, and for how many milliseconds. Who resumes gets
 * what followed on his cursor either way; a snapshot had better not be older than what its client has just done.
 */
const RUSH = { resuming: 2, anew: 16 }
const RUSH_MS = 5_000

export class RoomReads {
  /** What was heard while somebody read, or since the read that is kept; contiguous. */
  recent: Item[] = []
  private readonly job: string
  private readonly source: RoomSource
  private running: Map<string, Promise<Continuation | null>> | undefined
  /** The last read of a rush, which serves those who come to the same position as long as `recent` leads on from it. */
  private kept: { key: string; read: Continuation } | undefined
  /** Counts how often all was forgotten: a read that began before is not kept. */
  private epoch = 0

  constructor(job: string, source: RoomSource) {
    this.job = job
    this.source = source
  }

  /** Whether what is heard is to be remembered for those who come. */
  get keeping(): boolean {
    return this.kept !== undefined
  }

  async read(
    cursor: string | undefined,
    room: { readonly watchers: number; readonly live: boolean },
  ): Promise<Continuation | null> {
    const key = cursor ?? ''
    const rush = cursor === undefined ? RUSH.anew : RUSH.resuming
    if (this.kept?.key === key && room.watchers >= rush) {
      counts.coalesced++
      return this.kept.read
    }
    let read = this.running?.get(key)
    if (read) {
      const shared = await read
      // What was not there when another asked may be there by now; a read begun since then will tell.
      if (shared && !shared.gap) {
        counts.coalesced++
        return shared
      }
      read = this.running?.get(key)
    }
    if (read) return read
    const { epoch } = this
    read = this.readAlone(cursor).finally(() => {
      this.running?.delete(key)
      if (this.running?.size === 0) this.running = undefined
    })
    this.running ??= new Map()
    this.running.set(key, read)
    const answer = await read
    if (answer && !answer.gap && room.live && epoch === this.epoch && room.watchers >= rush)
      this.keep({ key, read: answer })
    return answer
  }

  private keep(kept: { key: string; read: Continuation }): void {
    this.kept = kept
    setTimeout(() => {
      if (this.kept === kept) this.kept = undefined
    }, RUSH_MS).unref()
  }

  private async readAlone(cursor: string | undefined): Promise<Continuation | null> {
    bump(counts.reads, cursor === undefined ? 'snapshot' : 'replay')
    if (cursor !== undefined) return this.source.since(this.job, cursor, granted.replayEvents)
    const snapshot = await this.source.snapshot(this.job)
    return snapshot && { snapshot, events: [], more: false, gap: null }
  }

  hear(item: Item): void {
    const last = this.recent.at(-1)
    if (last && last.seq + 1 !== item.seq) {
      this.recent = []
      this.kept = undefined
    }
    this.recent.push(item)
    if (this.recent.length <= KEPT) return
    this.recent.shift()
    this.kept = undefined
  }

  /** Nobody reads at the moment: what was heard serves the read that is kept, if any. */
  settle(): void {
    if (!this.kept) this.recent = []
  }

  /** What is read and heard from now on may not join what was. */
  forget(): void {
    this.epoch++
    this.recent = []
    this.kept = undefined
  }
}
