// All rooms of this gateway: opened by the first watcher of a job, closed a while after the last has left.
import { type Member, Room } from './room.ts'
import type { Tailer } from './tailer.ts'

export class Rooms {
  private readonly tailer: Tailer
  private readonly onError: (error: unknown) => void
  private readonly rooms = new Map<string, Room>()

  constructor(tailer: Tailer, onError: (error: unknown) => void) {
    this.tailer = tailer
    this.onError = onError
  }

  /** Answers false when there is no such job. Throws a StateError when Redis can't be read. */
  async join(
    job: string,
    member: Member,
    cursor: string | undefined,
    id: string | undefined,
  ): Promise<boolean> {
    let room = this.rooms.get(job)
    if (!room) {
      room = new Room(job, this.tailer, this.onError)
      this.rooms.set(job, room)
    }
    await this.tailer.watch(job, room)
    try {
      return await room.join(member, cursor, id)
    } finally {
      this.letGo(job, room)
    }
  }

  leave(job: string, member: Member): void {
    const room = this.rooms.get(job)
    if (!room) return
    room.leave(member)
    this.letGo(job, room)
  }

  private letGo(job: string, room: Room): void {
    if (room.empty)
      this.tailer.unwatch(
        job,
        () => room.empty,
        () => this.rooms.delete(job),
      )
  }
}
