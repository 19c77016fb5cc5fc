// All rooms of this gateway: opened by the first watcher of a job, closed a while after the last has left.
import type { Snapshot } from '@jobs/state'
import { Looks } from './looks.ts'
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
  private readonly looks: Looks
  private readonly most: number
  private readonly rooms = new Map<string, Room>()

  constructor(tailer: Tailer, most: number) {
    this.tailer = tailer
    this.tags = new TagRooms(tailer, () => this.admit())
    this.looks = new Looks((job) => tailer.snapshot(job))
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
    const room = this.rooms.get(job) ?? this.open(job)
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

  private open(job: string): Room {
    this.admit()
    const room: Room = new Room(job, this.tailer, () => this.letGo(job, room, LINGER_MS))
    this.rooms.set(job, room)
    return room
  }

  /** For a room more, of a job or of a tag. */
  private admit(): void {
    if (this.size >= this.most)
      throw new RoomsFullError('This gateway watches as many jobs and tags as it may; try again later.')
  }

  /** The job as it is now, or null when there is none. Throws when Redis can't be read. */
  look(job: string): Promise<Snapshot | null> {
    return this.looks.look(job)
  }

  leave(job: string, member: Member): void {
    const room = this.rooms.get(job)
    if (!room) return
    room.leave(member)
    this.letGo(job, room, LINGER_MS)
  }

  private letGo(job: string, room: Room, afterMs: number): void {
    // A join that took longer than the room was kept comes late: the channel is another room's by now.
    if (!room.empty || this.rooms.get(job) !== room) return
    this.tailer.unwatch(job, afterMs, () => {
      if (!room.empty) return false
      this.rooms.delete(job)
      return true
    })
  }
}
