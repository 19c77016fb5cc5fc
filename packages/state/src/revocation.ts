// Tokens that are no longer to be accepted, and what gateways read and hear of them. One is kept for as long as any token
// may live (LIMITS.tokenLifeMs), so that what is forgotten has expired.
import { StateError } from './errors.ts'
import type { Keys } from './keys.ts'
import type { RedisLink } from './redis.ts'

/** One token by its `jti`, or all tokens of a subject that were issued up to now. */
export type Revoked = { jti: string } | { subject: string }

/** `what` is `jti:<jti>` or `sub:<subject>`; `at` the milliseconds of the moment. */
export interface Revocation {
  what: string
  at: number
}

const MAX_NAME = 256

/** @throws StateError INVALID_OPTIONS */
export const nameOfRevoked = (revoked: Revoked): string => {
  const given = Object.entries(revoked)
  const [[kind, name] = []] = given
  if (given.length !== 1 || (kind !== 'jti' && kind !== 'subject') || typeof name !== 'string')
    throw new StateError('INVALID_OPTIONS', 'Say what to revoke: either { jti } or { subject }, as a string.')
  if (name === '' || name.length > MAX_NAME)
    throw new StateError('INVALID_OPTIONS', `A ${kind} to revoke has 1 to ${MAX_NAME} characters.`)
  return kind === 'jti' ? `jti:${name}` : `sub:${name}`
}

/** @param keys of partition 0 */
export const readRevocations = async (link: RedisLink, keys: Keys): Promise<Revocation[]> => {
  const pairs = (await link.call('ZRANGE', keys.revoked, 0, -1, 'WITHSCORES')) as [string, string][]
  return pairs.map(([what, at]) => ({ what, at: Number(at) }))
}

/** A message of the channel that is named like the key. */
export const revocationOfMessage = (message: string): Revocation => {
  const end = message.indexOf(' ')
  return { what: message.slice(end + 1), at: Number(message.slice(0, end)) }
}
