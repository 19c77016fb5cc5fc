// Who a request comes from. One place for WebSockets and for HTTP routes: Origin, then token, then what it grants.
import type { KeyObject } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import { CLOSE, type Close, type ErrorCode, TokenClaims } from '@jobs/protocol'
import { LIMITS, TOKEN_CHARS } from '@jobs/state'
import { errors, type JWTVerifyGetKey, jwtVerify } from 'jose'
import type { Refusal } from '../http/refusal.ts'
import type { Shares } from '../limits.ts'
import type { Audit } from './audit.ts'
import { EVERYTHING, type Grant, grantOf } from './grant.ts'
import type { JudgeOrigin } from './origin.ts'
import type { Revocations } from './revocations.ts'
import { KeysUnavailable } from './token-key.ts'

/** Why a token is not accepted: as an `error` message, as a close, and as a status. */
export interface Denied {
  status: number
  code: ErrorCode
  message: string
  close: Close
}

/** Nothing rejects; all settle within 3 s. `peer` is the client's address. */
export interface Auth {
  /** Why the page that asks may not; undefined: it may, if its token does. Comes before the others. */
  refusalOfPage(request: IncomingMessage, peer: string): Refusal | undefined
  /** What the token of a plain HTTP request grants, or why the request is refused. */
  ofRequest(request: IncomingMessage, peer: string): Promise<Grant | Refusal>
  /** The same for an upgrade; undefined: a token is needed, it has none, and may still send it in `hello`. */
  ofUpgrade(request: IncomingMessage, peer: string): Promise<Grant | Refusal | undefined>
  ofToken(token: string): Promise<Grant | Denied>
  /** Calls once, when the grant is revoked. Answers how to stop listening. */
  onRevoked(grant: Grant, tell: () => void): () => void
  readonly audit: Audit
  readonly shares: Shares
}

interface Common {
  judgeOrigin: JudgeOrigin
  audit: Audit
  shares: Shares
}

/** GATEWAY_AUTH=none: everybody may watch everything, and no token is looked at. */
export const openToAll = ({ judgeOrigin, audit, shares }: Common): Auth => ({
  refusalOfPage: pageJudge(judgeOrigin, audit),
  ofRequest: async () => EVERYTHING,
  ofUpgrade: async () => EVERYTHING,
  ofToken: async () => EVERYTHING,
  onRevoked: () => () => undefined,
  audit,
  shares,
})

export interface TokenRules extends Common {
  algorithm: string
  key: KeyObject | JWTVerifyGetKey
  audience: string
  issuer: string | undefined
  namespace: string
  inQuery: boolean
  revocations: Revocations
  onFault: (error: unknown) => void
}

/** Seconds that clocks may differ by. */
const TOLERANCE_S = LIMITS.clockAheadMs / 1_000
/** Milliseconds until a judgement is given up. */
const JUDGE_MS = 3_000
/** Milliseconds that a refusal is held back: who tries one token after the other gains nothing by speed. */
const HOLD_BACK_MS = 100
/** Refusals held back at the same time; those beyond go out at once, so that a flood holds no memory. */
const HELD_BACK = 1_000

const denied = (message: string): Denied => ({
  status: 401,
  code: 'unauthorized',
  message,
  close: CLOSE.unauthorized,
})
const EXPIRED: Denied = {
  status: 401,
  code: 'token_expired',
  message: 'The token has expired; get a new one.',
  close: CLOSE.tokenExpired,
}
const REVOKED: Denied = { ...denied('The token was revoked; get a new one.'), close: CLOSE.revoked }
const UNAVAILABLE: Denied = {
  status: 503,
  code: 'unavailable',
  message: 'Tokens cannot be checked at the moment; try again.',
  close: CLOSE.internal,
}
const NO_TOKEN = denied('A token is needed: send it as Authorization: Bearer <token>.')

export const isDenied = (judged: Grant | Denied): judged is Denied => 'close' in judged

/** GATEWAY_AUTH=jwt. */
export const tokenAuth = (rules: TokenRules): Auth => {
  const { judgeOrigin, audit, shares, revocations, inQuery } = rules
  const options = {
    algorithms: [rules.algorithm],
    audience: rules.audience,
    ...(rules.issuer === undefined ? {} : { issuer: rules.issuer }),
    requiredClaims: ['exp'],
    clockTolerance: TOLERANCE_S,
  }

  const judge = async (token: string): Promise<Grant | Denied> => {
    if (token === '' || token.length > TOKEN_CHARS)
      return denied(`A token has 1 to ${TOKEN_CHARS} characters.`)
    let claims: TokenClaims
    try {
      const verified = await jwtVerify(token, rules.key as JWTVerifyGetKey, options)
      const parsed = TokenClaims.safeParse(verified.payload)
      if (!parsed.success)
        return denied(
          `The token's claim \`${parsed.error.issues[0]?.path.join('.')}\` is not what it has to be.`,
        )
      claims = parsed.data
    } catch (error) {
      return reasonOf(error, rules.onFault)
    }
    const now = Date.now() / 1_000
    if (claims.ns !== undefined && claims.ns !== rules.namespace)
      return denied("The token's claim `ns` names another namespace than this gateway's.")
    if (claims.iat !== undefined && claims.iat > now + TOLERANCE_S)
      return denied("The token's claim `iat` lies in the future.")
    // A revocation is kept for so long: what lives longer would come back.
    if (claims.exp - (claims.iat ?? now) > LIMITS.tokenLifeMs / 1_000 + TOLERANCE_S)
      return denied('The token lives longer than a day, which none may.')
    const grant = grantOf(claims)
    return revocations.covers(grant) ? REVOKED : grant
  }

  let heldBack = 0
  const ofToken = async (token: string): Promise<Grant | Denied> => {
    let late: NodeJS.Timeout | undefined
    const given = new Promise<Denied>((resolve) => {
      late = setTimeout(() => resolve(UNAVAILABLE), JUDGE_MS - HOLD_BACK_MS)
    })
    const judged = await Promise.race([judge(token), given])
    clearTimeout(late)
    if (!isDenied(judged) || heldBack >= HELD_BACK) return judged
    heldBack++
    await new Promise((resolve) => setTimeout(resolve, HOLD_BACK_MS))
    heldBack--
    return judged
  }

  const ofUpgrade = async (request: IncomingMessage, peer: string): Promise<Grant | Refusal | undefined> => {
    const token = tokenOf(request, inQuery)
    if (typeof token !== 'string') return token
    const judged = await ofToken(token)
    if (!isDenied(judged)) return judged
    audit({ what: 'token', reason: judged.message, peer })
    return asRefusal(judged)
  }

  return {
    refusalOfPage: pageJudge(judgeOrigin, audit),
    ofUpgrade,
    ofRequest: async (request, peer) => (await ofUpgrade(request, peer)) ?? asRefusal(NO_TOKEN),
    ofToken,
    onRevoked: (grant, tell) => revocations.hold(grant, tell),
    audit,
    shares,
  }
}

const pageJudge = (judgeOrigin: JudgeOrigin, audit: Audit) => (request: IncomingMessage, peer: string) => {
  const refusal = judgeOrigin(request)
  if (refusal) audit({ what: 'origin', reason: request.headers.origin ?? 'no Origin', peer })
  return refusal
}

const asRefusal = ({ status, code, message }: Denied): Refusal => ({
  status,
  code,
  message,
  headers: status === 401 ? { 'www-authenticate': 'Bearer' } : { 'retry-after': '2' },
})

/** What was wrong, without a word of the token: until its signature has held, nothing in it is to be believed or told. */
const reasonOf = (error: unknown, onFault: (error: unknown) => void): Denied => {
  if (error instanceof errors.JWTExpired) return EXPIRED
  if (error instanceof errors.JWTClaimValidationFailed)
    return denied(
      `The token's claim \`${error.claim}\` ${error.reason === 'missing' ? 'is missing' : 'does not fit'}.`,
    )
  if (error instanceof KeysUnavailable) {
    onFault(error)
    return UNAVAILABLE
  }
  return denied('This is no token that was signed for this gateway.')
}

/** Query parameters that carry tokens elsewhere; and what looks like one, whatever it is called. */
const TOKEN_PARAMETERS = ['token', 'access_token']
const LOOKS_LIKE_TOKEN = /^eyJ[\w-]+\.[\w-]*\./

const badRequest = (message: string): Refusal => ({ status: 400, message })

/** A URL is logged by every proxy on its way, and kept in the history of the browser. */
export const tokenInQuery = ({ url = '' }: IncomingMessage): boolean => {
  const at = url.indexOf('?')
  if (at < 0) return false
  const query = new URLSearchParams(url.slice(at + 1))
  return (
    TOKEN_PARAMETERS.some((name) => query.has(name)) ||
    [...query.values()].some((value) => LOOKS_LIKE_TOKEN.test(value))
  )
}

/** The one token that the request carries, or undefined. Two are no token: nobody could say which was meant. */
const tokenOf = (request: IncomingMessage, inQuery: boolean): string | Refusal | undefined => {
  const { headers, rawHeaders, url = '' } = request
  const found: string[] = []
  for (let i = 0; i < rawHeaders.length; i += 2) {
    if (rawHeaders[i]?.toLowerCase() !== 'authorization') continue
    const bearer = /^bearer +(\S+)$/i.exec(rawHeaders[i + 1] ?? '')?.[1]
    if (bearer === undefined) return asRefusal(NO_TOKEN)
    found.push(bearer)
  }
  for (const offered of (headers['sec-websocket-protocol'] ?? '').split(',')) {
    const name = offered.trim()
    if (name.startsWith('bearer.')) found.push(name.slice('bearer.'.length))
  }
  const given = inQuery ? new URLSearchParams(url.split('?')[1]).getAll('token') : []
  found.push(...given)
  if (found.length > 1) return badRequest('there are several tokens in this request: send one')
  return found[0]
}
