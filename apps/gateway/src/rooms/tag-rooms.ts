// The rooms of tags: opened by the first watcher, closed a while after the last has left.
import { type TagMember, type TagPart, TagRoom, type TagSource } from './tag-room.ts'

/** Milliseconds a room is kept after its last watcher left: pages reload. */
const LINGER_MS = 5_000

/** What the rooms need of the tailer. */
export interface TagChannels extends TagSource {
  /** Resolves once Redis has confirmed all of the parts' channels. */
  watchTag(tag: string, parts: readonly TagPart[]): Promise<void>
  unwatchTag(tag: string): void
}

export class TagRooms {
  private readonly channels: TagChannels
  private readonly admit: () => void
  private readonly rooms = new Map<string, { room: TagRoom; lingering?: NodeJS.Timeout }>()

  /** @param admit throws when this gateway has as many rooms as it may */
  constructor(channels: TagChannels, admit: () => void) {
    this.channels = channels
    this.admit = admit
  }

  get size(): number {
    return this.rooms.size
  }

  /** Throws a StateError when Redis can't be read, and what `admit` throws. A tag that no job has yet is watched all the same. */
  async join(tag: string, member: TagMember, id: string | undefined): Promise<void> {
    let open = this.rooms.get(tag)
    if (!open) {
      this.admit()
      open = { room: new TagRoom(tag, this.channels) }
      this.rooms.set(tag, open)
    }
    const { room } = open
    clearTimeout(open.lingering)
    room.expect(member)
    try {
      await this.channels.watchTag(tag, room.parts)
      await room.join(member, id)
    } finally {
      this.letGo(tag)
    }
  }

  leave(tag: string, member: TagMember): void {
    this.rooms.get(tag)?.room.leave(member)
    this.letGo(tag)
  }

  catchUp(tag: string, member: TagMember): void {
    this.rooms.get(tag)?.room.catchUp(member)
  }

  private letGo(tag: string): void {
    const open = this.rooms.get(tag)
    if (!open?.room.empty) return
    clearTimeout(open.lingering)
    open.lingering = setTimeout(() => {
      this.rooms.delete(tag)
      this.channels.unwatchTag(tag)
    }, LINGER_MS)
    open.lingering.unref()
  }
}
