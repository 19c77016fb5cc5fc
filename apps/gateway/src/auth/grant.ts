// What a client may watch, and until when.
import type { TokenClaims } from '@jobs/protocol'

export interface Grant {
  /** Who this is, for limits and the audit log. */
  readonly subject: string | undefined
  /** Of the token, for its revocation. */
  readonly tokenId: string | undefined
  /** Milliseconds since 1970 at which it was issued, as far as is told, and ends; undefined: never. */
  readonly issuedAt: number | undefined
  readonly expiresAt: number | undefined
  mayWatchJob(job: string): boolean
  mayWatchTag(tag: string): boolean
}

/** With GATEWAY_AUTH=none. */
export const EVERYTHING: Grant = {
  subject: undefined,
  tokenId: undefined,
  issuedAt: undefined,
  expiresAt: undefined,
  mayWatchJob: () => true,
  mayWatchTag: () => true,
}

/** Before a token has come. */
export const NOTHING: Grant = { ...EVERYTHING, mayWatchJob: () => false, mayWatchTag: () => false }

/**
 * What a token grants is told by ids alone: nothing is read of a job that is not for this client, so that neither the
 * answer nor its time tells whether there is one.
 */
export const grantOf = ({ sub, jti, iat, exp, jobs = [], tags = [] }: TokenClaims): Grant => {
  const [ids, labels] = [new Set(jobs), new Set(tags)]
  return {
    subject: sub,
    tokenId: jti,
    issuedAt: iat === undefined ? undefined : Math.floor(iat * 1_000),
    expiresAt: Math.floor(exp * 1_000),
    mayWatchJob: jobs === '*' ? () => true : (job) => ids.has(job),
    mayWatchTag: (tag) => labels.has(tag),
  }
}
