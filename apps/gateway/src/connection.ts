// One socket: what a client says, what it is answered. Knows rooms only by name, and nothing of Redis.
import { randomBytes } from 'node:crypto'
import { CLOSE, ClientMessage, type Close, EchoId, type ServerMessage, TIMES_V1 } from '@jobs/protocol'
import type { RawData, WebSocket } from 'ws'
import type { z } from 'zod'
import type { Auth } from './auth.ts'
import { Credentials } from './credentials.ts'
import { type Grant, NOTHING } from './grant.ts'
import { granted } from './limits.ts'
import { Outbox } from './outbox.ts'
import type { Rooms } from './rooms.ts'
import { echo, errorOf, Subscriptions } from './subscriptions.ts'

/** Milliseconds that a client is asked to wait which sends too many messages. */
const SLOW_DOWN_MS = 1_000

export interface ConnectionOptions {
  auth: Auth
  /** Of the handshake; without one the client is yet to send its token. */
  grant: Grant | undefined
  /** The client's address, for the audit log. */
  peer: string
  heartbeatMs: number
  onFault: (error: unknown) => void
}

export class Connection {
  readonly id = randomBytes(9).toString('base64url')
  private readonly socket: WebSocket
  private readonly outbox: Outbox
  private readonly subscriptions: Subscriptions
  private readonly credentials: Credentials
  private readonly heartbeatMs: number
  private readonly heartbeat: NodeJS.Timeout
  private readonly pongMs: number
  private pong: NodeJS.Timeout | undefined
  private errors = 0
  private greeted = false
  /** Messages that came while a token was being judged. */
  private held: unknown[] | undefined
  private tokens = granted.commandBurst
  private tokensAt = performance.now()

  constructor(socket: WebSocket, rooms: Rooms, options: ConnectionOptions) {
    const { auth, grant, peer, heartbeatMs, onFault } = options
    this.socket = socket
    this.heartbeatMs = heartbeatMs
    this.pongMs = Math.min(TIMES_V1.pong, heartbeatMs)
    const outbox = new Outbox(
      socket,
      () => this.cut(CLOSE.slowConsumer),
      () => this.subscriptions.readOn(),
    )
    this.outbox = outbox
    const holder = {
      connection: this.id,
      peer,
      say: (message: ServerMessage) => this.say(message),
      close: (why: Close) => this.close(why),
      regranted: () => this.subscriptions.narrow(),
    }
    const credentials = new Credentials(auth, holder, grant)
    this.credentials = credentials
    this.subscriptions = new Subscriptions(
      {
        get grant() {
          return credentials.grant ?? NOTHING
        },
        shares: auth.shares.subscriptions,
        refused: (what) =>
          auth.audit({
            what: 'job' in what ? 'job' : 'tag',
            reason: 'not granted',
            connection: this.id,
            subject: credentials.grant?.subject,
            peer,
            ...what,
          }),
        get hasRoom() {
          return outbox.hasRoom
        },
        push: (message, asked) => outbox.push(message, asked),
        fault: onFault,
      },
      rooms,
    )
    socket.on('message', (data, binary) => this.receive(data, binary))
    // Answered by ws, and paid for like any other message.
    socket.on('ping', () => this.takeToken())
    socket.on('pong', () => {
      clearTimeout(this.pong)
      this.pong = undefined
    })
    // Violations of the WebSocket protocol: ws closes the socket with the right code by itself.
    socket.on('error', () => undefined)
    socket.on('close', () => this.closed())
    this.heartbeat = setInterval(() => this.beat(), heartbeatMs)
    if (credentials.grant) this.welcome()
  }

  private welcome(): void {
    const expiresAt = this.credentials.grant?.expiresAt
    this.say({
      type: 'welcome',
      connection: this.id,
      heartbeatMs: this.heartbeatMs,
      limits: granted,
      time: Date.now(),
      ...(expiresAt === undefined ? {} : { expiresAt }),
    })
  }

  /** Bytes that the client has not taken yet. */
  get queuedBytes(): number {
    return this.outbox.queuedBytes
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
    this.credentials.end()
    this.subscriptions.end()
  }

  private beat(): void {
    if (this.socket.readyState !== this.socket.OPEN) return
    this.socket.ping()
    this.pong ??= setTimeout(() => this.cut(CLOSE.noPong), this.pongMs)
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
        else void this.hold(this.credentials.refresh(message.token))
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
      if (accepted) this.welcome()
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

const reasonOf = (error: z.ZodError): string => {
  const [issue] = error.issues
  const where = issue?.path.length ? `${issue.path.join('.')}: ` : ''
  return `${where}${issue?.message ?? 'it does not fit the protocol'}`.slice(0, 300)
}
