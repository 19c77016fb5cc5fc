// All rooms of this gateway: opened by the first watcher of a job, closed a while after the last has left.
import type { Snapshot } from '@jobs/state'
import { type Member, Room } from './room.ts'
import { TagRooms } from './tag-rooms.ts'
import type { Tailer } from './tailer.ts'

/** Milliseconds a room is kept after its last watcher left: pages reload. */
const LINGER_MS = 5_000

/** Everybody together watches as many jobs as this gateway may keep rooms for. */
export class RoomsFullError extends Error {
  override name = 'RoomsFullError'
}

export class Rooms {
  readonly tags: TagRooms
  private readonly tailer: Tailer
  private readonly most: number
  private readonly rooms = new Map<string, Room>()

  constructor(tailer: Tailer, most: number) {
    this.tailer = tailer
    this.tags = new TagRooms(tailer, () => this.admit())
    this.most = most
  }

  get size(): number {
    return this.rooms.size + this.tags.size
  }

  get watchers(): number {
    let watchers = 0
    for (const room of this.rooms.values()) watchers += room.watchers
    return watchers
  }

  /** Answers false when there is no such job. Throws a StateError when Redis can't be read, and RoomsFullError. */
  async join(
    job: string,
    member: Member,
    cursor: string | undefined,
    id: string | undefined,
  ): Promise<boolean> {
    let room = this.rooms.get(job)
    if (!room) {
      this.admit()
      room = new Room(job, this.tailer)
      this.rooms.set(job, room)
    }
    room.expect(member)
    let exists = true
    try {
      await this.tailer.watch(job, room)
      exists = await room.join(member, cursor, id)
      return exists
    } finally {
      // Who guesses ids leaves no channels behind.
      this.letGo(job, room, exists ? LINGER_MS : 0)
    }
  }

  /** For a room more, of a job or of a tag. */
  private admit(): void {
    if (this.size >= this.most)
      throw new RoomsFullError('This gateway watches as many jobs and tags as it may; try again later.')
  }

  /** The job as it is now; one read serves all who ask for it at the same moment. Null when there is none. */
  look(job: string): Promise<Snapshot | null> {
    return this.rooms.get(job)?.look() ?? this.tailer.snapshot(job)
  }

  leave(job: string, member: Member): void {
    const room = this.rooms.get(job)
    if (!room) return
    room.leave(member)
    this.letGo(job, room, LINGER_MS)
  }

  private letGo(job: string, room: Room, afterMs: number): void {
    if (!room.empty) return
    this.tailer.unwatch(job, afterMs, () => {
      if (!room.empty) return false
      this.rooms.delete(job)
      return true
    })
  }
}
