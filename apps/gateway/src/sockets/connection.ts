// One socket: what a client says, what it is answered. Knows rooms only by name, and nothing of Redis.
import { randomUUID } from 'node:crypto'
import { CLOSE, ClientMessage, type Close, EchoId, type ServerMessage } from '@jobs/protocol'
import type { RawData, WebSocket } from 'ws'
import type { z } from 'zod'
import type { Auth } from '../auth/auth.ts'
import { Credentials, type Holder } from '../auth/credentials.ts'
import { type Grant, NOTHING } from '../auth/grant.ts'
import type { PublicSocket } from '../http/public-socket.ts'
import { granted, type Tally } from '../limits.ts'
import type { Rooms } from '../rooms/rooms.ts'
import type { Told } from '../rooms/told.ts'
import type { Beating, Heartbeats } from './heartbeats.ts'
import { Outbox, type Owner } from './outbox.ts'
import { type Client, echo, errorOf, Subscriptions } from './subscriptions.ts'

/** Milliseconds that a client is asked to wait which sends too many messages. */
const SLOW_DOWN_MS = 1_000

/** What all connections of a gateway share. */
export interface Host {
  auth: Auth
  rooms: Rooms
  heartbeats: Heartbeats
  /** Redis has been away for so long that clients are told. */
  readonly redisAway: boolean
  onFault: (error: unknown) => void
  /** @param code that its socket was closed with */
  onClosed: (connection: Connection, code: number) => void
}

export interface Accepted {
  /** Of the handshake; without one the client is yet to send its token. */
  grant: Grant | undefined
  /** The client's address, for the audit log. */
  peer: string
}

/**
 * There are thousands: what listens to its socket, and what its parts call, are methods, since a closure for each would keep
 * some 100 bytes.
 */
export class Connection implements Holder, Client, Owner, Beating {
  readonly connection = randomUUID()
  readonly peer: string
  private readonly host: Host
  private readonly socket: PublicSocket
  private readonly outbox: Outbox
  private readonly subscriptions: Subscriptions
  private readonly credentials: Credentials
  private readonly part: number
  private errors = 0
  private greeted = false
  /** Messages that came while a token was being judged. */
  private held: unknown[] | undefined
  private tokens = granted.commandBurst
  private tokensAt = performance.now()

  constructor(socket: PublicSocket, host: Host, { grant, peer }: Accepted) {
    this.socket = socket
    this.host = host
    this.peer = peer
    this.outbox = new Outbox(socket, this)
    this.credentials = new Credentials(host.auth, this, grant)
    this.subscriptions = new Subscriptions(this, host.rooms)
    socket.connection = this
    socket.on('message', onMessage)
    socket.on('ping', onPing)
    socket.on('pong', onPong)
    socket.on('error', onError)
    socket.on('close', onClose)
    this.part = host.heartbeats.add(this)
    if (!this.credentials.grant) return
    this.outbox.greet(JSON.stringify(this.welcome))
    this.greetWithTrouble()
  }

  private get welcome(): ServerMessage {
    const expiresAt = this.credentials.grant?.expiresAt
    return {
      type: 'welcome',
      connection: this.connection,
      heartbeatMs: this.host.heartbeats.periodMs,
      limits: granted,
      time: Date.now(),
      ...(expiresAt === undefined ? {} : { expiresAt }),
    }
  }

  /** Bytes that the client has not taken yet. */
  get queuedBytes(): number {
    return this.outbox.queuedBytes
  }

  say(message: ServerMessage): void {
    this.outbox.push(JSON.stringify(message))
  }

  private greetWithTrouble(): void {
    if (this.host.redisAway) this.sayRedis(false)
  }

  /** Not before its welcome, which tells it then. */
  sayRedis(available: boolean): void {
    if (this.credentials.grant) this.say({ type: 'redis', available })
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

  get grant(): Grant {
    return this.credentials.grant ?? NOTHING
  }

  get shares(): Tally {
    return this.host.auth.shares.subscriptions
  }

  get hasRoom(): boolean {
    return this.outbox.hasRoom
  }

  push(message: string | Told, asked?: boolean): void {
    this.outbox.push(message, asked)
  }

  refused(what: { job: string } | { tag: string }): void {
    this.host.auth.audit({
      what: 'job' in what ? 'job' : 'tag',
      reason: 'not granted',
      connection: this.connection,
      subject: this.credentials.grant?.subject,
      peer: this.peer,
      ...what,
    })
  }

  fault(error: unknown): void {
    this.host.onFault(error)
  }

  regranted(): void {
    this.subscriptions.narrow()
  }

  slow(): void {
    this.cut(CLOSE.slowConsumer)
  }

  drained(): void {
    this.subscriptions.readOn()
  }

  silent(): void {
    this.cut(CLOSE.noPong)
  }

  pinged(): void {
    // Answered by ws, and paid for like any other message.
    this.takeToken()
  }

  ponged(): void {
    this.host.heartbeats.answered(this)
  }

  closed(code: number): void {
    this.host.heartbeats.remove(this, this.part)
    this.outbox.stop()
    this.credentials.end()
    this.subscriptions.end()
    this.host.onClosed(this, code)
  }

  beat(): void {
    if (this.socket.readyState !== this.socket.OPEN) return
    this.socket.ping()
    this.host.heartbeats.ask(this)
    // Pages can't see control frames.
    this.say({ type: 'heartbeat' })
  }

  receive(data: RawData, binary: boolean): void {
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
    if (raw.length === 0 || raw.length > granted.messagesPerFrame) {
      this.malformed(`a list has 1 to ${granted.messagesPerFrame} messages`, null)
      return
    }
    for (const [i, message] of raw.entries()) {
      // The frame itself has paid for the first.
      if (i === 0 || this.takeToken()) this.take(message)
      if (this.socket.readyState !== this.socket.OPEN) return
    }
  }

  private take(raw: unknown): void {
    if (this.held) {
      this.held.push(raw)
      return
    }
    const parsed = ClientMessage.safeParse(raw)
    if (parsed.success) this.handle(parsed.data)
    else this.malformed(reasonOf(parsed.error), raw)
  }

  private handle(message: ClientMessage): void {
    if (!this.credentials.grant && message.type !== 'hello') {
      this.unauthorized('Say hello with a token first.', 'id' in message ? message.id : undefined)
      return
    }
    switch (message.type) {
      case 'hello':
        this.hello(message.token)
        return
      case 'ping':
        this.say({ type: 'pong', ...echo(message.id) })
        return
      case 'refresh':
        if (this.credentials.grant?.expiresAt === undefined)
          this.malformed('this gateway asks for no token, so there is none to refresh', message)
        else void this.hold(this.credentials.present(message.token))
        return
      case 'unsubscribe':
        this.subscriptions.unsubscribe(message)
        return
      case 'subscribe':
        if (this.credentials.expired)
          this.say(errorOf('token_expired', 'The token has expired: refresh it.', { id: message.id }))
        else this.subscriptions.subscribe(message)
    }
  }

  private hello(token: string | undefined): void {
    const { grant } = this.credentials
    if (!grant && token === undefined) {
      this.unauthorized('This gateway asks for a token: send it in hello.', undefined)
      return
    }
    if (this.greeted) this.malformed('hello comes once', { type: 'hello' })
    else if (grant?.expiresAt !== undefined && token !== undefined)
      this.malformed('the token came with the handshake; send another one as refresh', { type: 'hello' })
    this.greeted = true
    if (grant || token === undefined) return
    const welcomed = this.credentials.present(token).then((accepted) => {
      if (!accepted) return
      this.say(this.welcome)
      this.greetWithTrouble()
    })
    void this.hold(welcomed)
  }

  /**
   * Nothing more is read while a token is judged: what comes after it is under the new one. What had been read already, a
   * chunk of the socket at most, waits.
   */
  private async hold(judged: Promise<unknown>): Promise<void> {
    this.held = []
    this.socket.pause()
    await judged
    const { held } = this
    this.held = undefined
    this.socket.resume()
    for (const raw of held) {
      if (this.socket.readyState !== this.socket.OPEN) return
      this.take(raw)
    }
  }

  private unauthorized(message: string, id: string | undefined): void {
    this.say(errorOf('unauthorized', message, { id }))
    if (++this.errors >= granted.errors) this.close(CLOSE.tooManyErrors)
  }

  private malformed(why: string, raw: unknown): void {
    const id = EchoId.safeParse((raw as { id?: unknown } | null | undefined)?.id)
    this.say(errorOf('bad_request', `This message is not understood: ${why}.`, { id: id.data }))
    if (++this.errors >= granted.errors) this.close(CLOSE.tooManyErrors)
  }

  /** A bucket that fills at the granted rate. What overflows is refused; who goes on is cut off. */
  private takeToken(): boolean {
    const now = performance.now()
    this.tokens = Math.min(
      granted.commandBurst,
      this.tokens + ((now - this.tokensAt) / 1_000) * granted.commandsPerSecond,
    )
    this.tokensAt = now
    this.tokens -= 1
    if (this.tokens >= 0) return true
    if (this.tokens < -granted.commandBurst) this.close(CLOSE.rateLimited)
    else
      this.say(
        errorOf('rate_limited', `At most ${granted.commandsPerSecond} messages a second.`, {
          retryAfterMs: SLOW_DOWN_MS,
        }),
      )
    return false
  }
}

const of = (socket: WebSocket) => (socket as PublicSocket).connection as Connection

function onMessage(this: WebSocket, data: RawData, binary: boolean): void {
  of(this).receive(data, binary)
}

function onPing(this: WebSocket): void {
  of(this).pinged()
}

function onPong(this: WebSocket): void {
  of(this).ponged()
}

/** Violations of the WebSocket protocol: ws closes the socket with the right code by itself. */
const onError = () => undefined

function onClose(this: WebSocket, code: number): void {
  of(this).closed((this as PublicSocket).closedWith ?? code)
}

const reasonOf = (error: z.ZodError): string => {
  const [issue] = error.issues
  const where = issue?.path.length ? `${issue.path.join('.')}: ` : ''
  return `${where}${issue?.message ?? 'it does not fit the protocol'}`.slice(0, 300)
}
