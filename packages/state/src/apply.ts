// Sends moves to Redis: what one tick of the process produces goes out as one call per partition, in order. Nothing
// waits for a batch to fill, and no call waits for another's reply.
import { isStateError, StateError } from './errors.ts'
import { located, type RedisLink } from './redis.ts'
import { CALLS, type CallName, MOVES, type MoveName } from './schema/machine.ts'
import { SCRIPTS } from './scripts.generated.ts'
import type { Tick } from './tick.ts'

/** Moves and characters of one call at most: a script that runs longer keeps every other client waiting. */
const MOVES_A_CALL = 128
const CHARACTERS_A_CALL = 1_048_576

export type Name = MoveName | CallName

/** Redis stopped at this one move, since what is kept of its job is broken. The other moves of the call were made. */
export class MoveFailed extends StateError {}

interface Waiting {
  name: Name
  args: readonly string[]
  resolve: (answer: string[]) => void
  reject: (error: unknown) => void
}

const allowedOom = (name: Name) => ({ ...MOVES, ...CALLS })[name].allowOom
const ALLOWED_OOM = new Set(([...Object.keys(MOVES), ...Object.keys(CALLS)] as Name[]).filter(allowedOom))

export class Applier {
  private readonly link: RedisLink
  private readonly prefix: string
  private readonly tick: Tick
  private waiting: Waiting[] = []
  private late: (() => Waiting)[] = []

  /** @param prefix of the partition's keys */
  constructor(link: RedisLink, prefix: string, tick: Tick) {
    this.link = link
    this.prefix = prefix
    this.tick = tick
  }

  /** The move's answer, as its Lua file gives it. Rejects with a StateError; then repeating it is safe. */
  send(name: Name, ...args: string[]): Promise<string[]> {
    return new Promise((resolve, reject) => {
      this.waiting.push({ name, args, resolve, reject })
      this.schedule()
    })
  }

  /** The same, behind all that the tick sends otherwise, and with arguments of that moment. */
  sendLast(name: Name, args: () => string[]): Promise<string[]> {
    return new Promise((resolve, reject) => {
      this.late.push(() => ({ name, args: args(), resolve, reject }))
      this.schedule()
    })
  }

  /** All of them or none: each is judged before the first is made. */
  async all(name: Name, items: readonly (readonly string[])[]): Promise<string[][]> {
    const argv = [this.prefix, this.link.publish, 'all']
    for (const args of items) argv.push(name, String(args.length), ...args)
    return answersOf(await this.link.script(SCRIPTS.apply, this.prefix, argv), items.length)
  }

  private schedule(): void {
    if (this.waiting.length + this.late.length === 1) this.tick.send(() => this.flush())
  }

  private flush(): void {
    const all = this.waiting
    for (const made of this.late) all.push(made())
    this.waiting = []
    this.late = []
    let from = 0
    let characters = 0
    for (let i = 0; i < all.length; i++) {
      for (const arg of (all[i] as Waiting).args) characters += arg.length
      if (i + 1 - from < MOVES_A_CALL && characters < CHARACTERS_A_CALL && i + 1 < all.length) continue
      void this.deliver(from === 0 && i + 1 === all.length ? all : all.slice(from, i + 1))
      from = i + 1
      characters = 0
    }
  }

  private async deliver(moves: Waiting[], memoryFull = false): Promise<void> {
    const argv = [this.prefix, this.link.publish, 'each']
    for (const { name, args } of moves) argv.push(name, String(args.length), ...args)
    const script = memoryFull ? SCRIPTS.applyOom : SCRIPTS.apply
    let answers: string[][]
    try {
      answers = answersOf(await this.link.script(script, this.prefix, argv), moves.length)
    } catch (error) {
      // Nothing was executed. What frees memory or keeps a live worker alive is let through, the rest is refused.
      const full = !memoryFull && isStateError(error, 'REDIS_OUT_OF_MEMORY')
      const saved = full ? moves.filter(({ name }) => ALLOWED_OOM.has(name)) : []
      if (saved.length > 0) void this.deliver(saved, true)
      for (const move of moves) if (!full || !ALLOWED_OOM.has(move.name)) move.reject(error)
      return
    }
    this.tick.hear(moves.length, (i) => {
      const move = moves[i] as Waiting
      const answer = answers[i] as string[]
      if (answer[0] === 'error')
        move.reject(
          new MoveFailed(
            'REDIS_REFUSED',
            `${move.name} failed in Redis: ${located(String(answer[1]), script).slice(0, 200)}`,
          ),
        )
      else move.resolve(answer)
    })
  }
}

/** The flat reply cut into its answers. */
const answersOf = (reply: unknown, count: number): string[][] => {
  const flat = reply as (string | number)[]
  const answers: string[][] = []
  for (let at = 0; answers.length < count; ) {
    const size = Number(flat[at])
    if (!(size > 0))
      throw new StateError('REDIS_REFUSED', 'Redis gave an answer that apply.lua does not give.')
    answers.push(flat.slice(at + 1, at + 1 + size) as string[])
    at += 1 + size
  }
  return answers
}
