// The token of one connection, from hello to its end: none yet, granted, about to expire, expired, revoked. It knows no
// socket: event streams over HTTP use it as well.
import { CLOSE, type Close, type ServerMessage, TIMES_V1 } from '@jobs/protocol'
import { errorOf } from '../sockets/subscriptions.ts'
import { type Auth, type Denied, isDenied } from './auth.ts'
import type { Grant } from './grant.ts'

/** Part of a token's life after which its client is told that it ends. */
const WARN_AT = 0.8
/** Milliseconds until a refresh is tried again that could not be judged. */
const RETRY_AFTER_MS = 2_000
/** Node takes no longer timers. */
const MAX_TIMER_MS = 2 ** 31 - 1

export interface Holder {
  readonly connection: string
  readonly peer: string | undefined
  say(message: ServerMessage): void
  close(why: Close): void
  /** Another token is in force: what it does not cover ends. */
  regranted(): void
}

export class Credentials {
  private readonly auth: Auth
  private readonly holder: Holder
  private current: Grant | undefined
  private warned = false
  private timer: NodeJS.Timeout | undefined
  private release: () => void = () => undefined
  private ended = false
  /** It has a share of what its subject may have. */
  private counted = false

  /** Without a grant a token has to come in time. */
  constructor(auth: Auth, holder: Holder, grant: Grant | undefined) {
    this.auth = auth
    this.holder = holder
    if (grant) this.begin(grant)
    else this.timer = setTimeout(() => holder.close(CLOSE.noHello), TIMES_V1.hello)
  }

  get grant(): Grant | undefined {
    return this.current
  }

  /** Expired, and in the grace in which it may still be refreshed: what is watched goes on, nothing is begun. */
  get expired(): boolean {
    return this.current?.expiresAt !== undefined && Date.now() >= this.current.expiresAt
  }

  end(): void {
    this.ended = true
    clearTimeout(this.timer)
    this.release()
    if (this.counted) this.auth.shares.connections.giveBack(this.current?.subject)
    this.counted = false
  }

  /** The first token, or another for the same subject. Answers whether it was accepted. */
  async present(token: string): Promise<boolean> {
    const before = this.current
    // The first came in time, whatever it is.
    if (!before) clearTimeout(this.timer)
    const judged = await this.auth.ofToken(token)
    if (this.ended) return false
    if (isDenied(judged)) {
      // What is wrong is not the token; the one before goes on, and so does its clock.
      if (before && judged.code === 'unavailable') return this.putOff(judged)
      return this.deny(judged)
    }
    if (!before) return this.begin(judged)
    if (before.subject !== judged.subject) return this.deny(ANOTHER)
    this.accept(judged)
    this.holder.regranted()
    return true
  }

  /** Who it is stays the same from here on. */
  private begin(grant: Grant): boolean {
    this.counted = this.auth.shares.connections.take(grant.subject)
    // Told as a close, by hello or by handshake: a page can't see the status of a refused upgrade.
    if (!this.counted) return this.deny(TOO_MANY, 'connection', grant.subject)
    this.accept(grant)
    return true
  }

  private putOff({ code, message }: Denied): false {
    this.holder.say(errorOf(code, message, { retryAfterMs: RETRY_AFTER_MS }))
    return false
  }

  private deny(
    { code, message, close }: Denied,
    what: 'token' | 'connection' = 'token',
    subject = this.current?.subject,
  ): false {
    const { connection, peer } = this.holder
    this.auth.audit({ what, reason: message, connection, peer, subject })
    this.holder.say(errorOf(code, message))
    this.holder.close(close)
    return false
  }

  private accept(grant: Grant): void {
    clearTimeout(this.timer)
    this.release()
    this.current = grant
    this.warned = false
    this.release = this.auth.onRevoked(grant, () => this.holder.close(CLOSE.revoked))
    this.watchClock(grant)
  }

  /** Warns when most of the token's life is over, and closes a grace after its end. */
  private watchClock(grant: Grant): void {
    const { expiresAt, issuedAt = Date.now() } = grant
    if (expiresAt === undefined || this.ended) return
    const warnAt = issuedAt + WARN_AT * (expiresAt - issuedAt)
    const tick = () => {
      const now = Date.now()
      if (!this.warned && now >= warnAt) {
        this.warned = true
        this.holder.say({ type: 'expiring', inMs: Math.max(0, expiresAt - now) })
      }
      const next = this.warned ? expiresAt + TIMES_V1.grace : warnAt
      if (this.warned && now >= next) this.holder.close(CLOSE.tokenExpired)
      else this.timer = setTimeout(tick, Math.min(MAX_TIMER_MS, Math.max(1, next - now)))
    }
    // After the welcome.
    this.timer = setTimeout(tick, Math.min(MAX_TIMER_MS, Math.max(1, warnAt - Date.now())))
  }
}

const ANOTHER: Denied = {
  status: 401,
  code: 'unauthorized',
  message: 'A refresh keeps to the subject of the token before; open another connection.',
  close: CLOSE.unauthorized,
}

const TOO_MANY: Denied = {
  status: 429,
  code: 'limit_exceeded',
  message: "This token's subject has as many connections as it may.",
  close: CLOSE.tooManyConnections,
}
