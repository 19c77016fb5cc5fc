// One socket: what a client says, what it is answered. Knows rooms only by name, and nothing of Redis.
import { randomBytes } from 'node:crypto'
import {
  CLOSE,
  ClientMessage,
  type Close,
  type ErrorCode,
  LIMITS_V1,
  type ServerMessage,
  TIMES_V1,
} from '@jobs/protocol'
import { isStateError } from '@jobs/state'
import type { RawData, WebSocket } from 'ws'
import type { z } from 'zod'
import { Outbox } from './outbox.ts'
import type { Member } from './room.ts'
import type { Rooms } from './rooms.ts'

/** Milliseconds that a client is asked to wait while Redis is away. */
const RETRY_AFTER_MS = 1_000
/** Jobs read at the same time for one connection: a result may be large, and many of them are asked for at once. */
const READS_AT_ONCE = 8

type Subscribe = Extract<ClientMessage, { type: 'subscribe' }>

export class Connection {
  readonly id = randomBytes(9).toString('base64url')
  private readonly socket: WebSocket
  private readonly rooms: Rooms
  private readonly outbox: Outbox
  private readonly onFault: (error: unknown) => void
  private readonly subscriptions = new Map<string, Member>()
  /** Watched jobs that have not been read yet. */
  private readonly unread = new Map<string, { member: Member; asked: Subscribe }>()
  private reading = 0
  private readonly heartbeat: NodeJS.Timeout
  private pong: NodeJS.Timeout | undefined
  private errors = 0
  private greeted = false
  private tokens: number = LIMITS_V1.commandBurst
  private tokensAt = performance.now()

  constructor(socket: WebSocket, rooms: Rooms, onFault: (error: unknown) => void) {
    this.socket = socket
    this.rooms = rooms
    this.onFault = onFault
    this.outbox = new Outbox(
      socket,
      () => this.cut(CLOSE.slowConsumer),
      () => this.readOn(),
    )
    socket.on('message', (data, binary) => this.receive(data, binary))
    // Answered by ws, and paid for like any other message.
    socket.on('ping', () => this.takeToken())
    socket.on('pong', () => clearTimeout(this.pong))
    // Violations of the WebSocket protocol: ws closes the socket with the right code by itself.
    socket.on('error', () => undefined)
    socket.on('close', () => this.closed())
    this.heartbeat = setInterval(() => this.beat(), TIMES_V1.heartbeat)
    this.say({
      type: 'welcome',
      connection: this.id,
      heartbeatMs: TIMES_V1.heartbeat,
      limits: LIMITS_V1,
      time: Date.now(),
    })
  }

  say(message: ServerMessage): void {
    this.outbox.push(JSON.stringify(message))
  }

  close({ code, reason }: Close): void {
    this.outbox.flush(true)
    this.socket.close(code, reason)
  }

  /** For a client that does not read: a close frame would wait behind what it does not take. */
  private cut(why: Close): void {
    this.socket.close(why.code, why.reason)
    this.socket.terminate()
  }

  private closed(): void {
    clearInterval(this.heartbeat)
    clearTimeout(this.pong)
    this.outbox.stop()
    this.unread.clear()
    for (const [job, member] of this.subscriptions) this.rooms.leave(job, member)
    this.subscriptions.clear()
  }

  private beat(): void {
    if (this.socket.readyState !== this.socket.OPEN) return
    this.socket.ping()
    this.pong = setTimeout(() => this.cut(CLOSE.noPong), TIMES_V1.pong)
    // Pages can't see control frames.
    this.say({ type: 'heartbeat' })
  }

  private receive(data: RawData, binary: boolean): void {
    if (this.socket.readyState !== this.socket.OPEN) return
    if (binary) {
      this.socket.close(1003, 'text frames only')
      return
    }
    if (!this.takeToken()) return
    let raw: unknown
    try {
      raw = JSON.parse(data.toString())
    } catch {
      this.malformed('not JSON', raw)
      return
    }
    if (!Array.isArray(raw)) {
      this.take(raw)
      return
    }
    if (raw.length === 0 || raw.length > LIMITS_V1.messagesPerFrame) {
      this.malformed(`a list has 1 to ${LIMITS_V1.messagesPerFrame} messages`, null)
      return
    }
    for (const [i, message] of raw.entries()) {
      // The frame itself has paid for the first.
      if (i === 0 || this.takeToken()) this.take(message)
      if (this.socket.readyState !== this.socket.OPEN) return
    }
  }

  private take(raw: unknown): void {
    const parsed = ClientMessage.safeParse(raw)
    if (parsed.success) this.handle(parsed.data)
    else
      this.malformed(
        asksForTag(raw) ? 'tag subscriptions are not offered by this gateway yet' : reasonOf(parsed.error),
        raw,
      )
  }

  private handle(message: ClientMessage): void {
    switch (message.type) {
      case 'hello':
        if (this.greeted) this.malformed('hello comes once', message)
        this.greeted = true
        return
      case 'ping':
        this.say({ type: 'pong', ...echo(message.id) })
        return
      case 'refresh':
        this.malformed('this gateway asks for no token, so there is none to refresh', message)
        return
      case 'unsubscribe':
        this.unsubscribe(message.job, message.id)
        return
      case 'subscribe':
        for (const job of message.jobs ?? [message.job as string]) this.subscribe(job, message)
        this.readOn()
    }
  }

  private subscribe(job: string, asked: Subscribe): void {
    const { detail = 'all', id } = asked
    if (this.subscriptions.has(job)) {
      this.error('already_subscribed', 'This connection watches that job already.', id, job)
      return
    }
    if (this.subscriptions.size >= LIMITS_V1.subscriptions) {
      this.error('limit_exceeded', `A connection watches at most ${LIMITS_V1.subscriptions} jobs.`, id, job)
      return
    }
    const member: Member = {
      detail,
      say: (message, direct) => this.outbox.push(message, direct),
      left: () => {
        if (this.subscriptions.get(job) === member) this.subscriptions.delete(job)
      },
    }
    this.subscriptions.set(job, member)
    this.unread.set(job, { member, asked })
  }

  /** Reads watched jobs while the client takes what it asked for. */
  private readOn(): void {
    for (const [job, { member, asked }] of this.unread) {
      if (this.reading >= READS_AT_ONCE || !this.outbox.hasRoom) return
      this.unread.delete(job)
      this.reading++
      void this.join(job, member, asked).finally(() => {
        this.reading--
        this.readOn()
      })
    }
  }

  private async join(job: string, member: Member, { cursor, id }: Subscribe): Promise<void> {
    // Whoever left meanwhile was told so already.
    const leave = () => {
      const watches = this.subscriptions.get(job) === member
      member.left()
      return watches
    }
    try {
      const exists = await this.rooms.join(job, member, cursor, id)
      // The same words for a job that is unknown and one that is not for this client.
      if (!exists && leave())
        this.error('not_found', 'There is no such job, or it is not for you to watch.', id, job)
    } catch (error) {
      const watches = leave()
      const known = isStateError(error)
      if (!known) this.onFault(error)
      if (!watches) return
      if (known) this.error('unavailable', 'Jobs cannot be read at the moment; try again.', id, job, true)
      else this.error('internal', 'The gateway failed at this; try again.', id, job, true)
    }
  }

  private unsubscribe(job: string, id: string | undefined): void {
    const member = this.subscriptions.get(job)
    if (!member) {
      this.error('not_found', 'This connection does not watch that job.', id, job)
      return
    }
    this.subscriptions.delete(job)
    this.unread.delete(job)
    this.rooms.leave(job, member)
    this.say({ type: 'unsubscribed', job, code: 'requested', ...echo(id) })
  }

  private malformed(why: string, raw: unknown): void {
    const id = (raw as { id?: unknown } | null | undefined)?.id
    this.error(
      'bad_request',
      `This message is not understood: ${why}.`,
      typeof id === 'string' ? id.slice(0, 128) : undefined,
    )
    if (++this.errors >= LIMITS_V1.errors) this.close(CLOSE.tooManyErrors)
  }

  private error(code: ErrorCode, message: string, id?: string, job?: string, retryable = false): void {
    this.say({
      type: 'error',
      code,
      message,
      retryable,
      ...(retryable ? { retryAfterMs: RETRY_AFTER_MS } : {}),
      ...(job === undefined ? {} : { job }),
      ...echo(id),
    })
  }

  /** A bucket that fills at the granted rate. What overflows is refused; who goes on is cut off. */
  private takeToken(): boolean {
    const now = performance.now()
    this.tokens = Math.min(
      LIMITS_V1.commandBurst,
      this.tokens + ((now - this.tokensAt) / 1_000) * LIMITS_V1.commandsPerSecond,
    )
    this.tokensAt = now
    this.tokens -= 1
    if (this.tokens >= 0) return true
    if (this.tokens < -LIMITS_V1.commandBurst) this.close(CLOSE.rateLimited)
    else
      this.error(
        'rate_limited',
        `At most ${LIMITS_V1.commandsPerSecond} messages a second.`,
        undefined,
        undefined,
        true,
      )
    return false
  }
}

const echo = (id: string | undefined) => (id === undefined ? {} : { id })

const asksForTag = (raw: unknown): boolean =>
  typeof raw === 'object' &&
  raw !== null &&
  'tag' in raw &&
  'type' in raw &&
  (raw.type === 'subscribe' || raw.type === 'unsubscribe')

const reasonOf = (error: z.ZodError): string => {
  const [issue] = error.issues
  const where = issue?.path.length ? `${issue.path.join('.')}: ` : ''
  return `${where}${issue?.message ?? 'it does not fit the protocol'}`.slice(0, 300)
}
