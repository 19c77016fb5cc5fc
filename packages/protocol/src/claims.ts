// What a token says (JWT claims). Others than these are left alone: tokens may be made for more than us.
import { JobId, Label, Namespace } from '@jobs/state/schema'
import { z } from 'zod'

/** OpenID allows 255 characters for a subject. */
const name = z.string().min(1).max(256)
/** As many ids as a token of 8,192 characters can hold. */
const MAX_LIST = 1_000

/** `aud`, `iss` and `nbf` are checked where the signature is. */
export const TokenClaims = z.object({
  /** Who the client is: stays the same over a `refresh`, and may be revoked as a whole. */
  sub: name.optional(),
  /** Names the token, for revocation. */
  jti: name.optional(),
  /** Seconds since 1970, fractions allowed. */
  iat: z.number().optional(),
  exp: z.number(),
  /** The namespace whose jobs are meant; without it, whatever the gateway serves. */
  ns: Namespace.optional(),
  /** Ids of jobs that may be watched, or `*` for all. */
  jobs: z.union([z.literal('*'), z.array(JobId).max(MAX_LIST)]).optional(),
  /** Tags that may be watched. */
  tags: z.array(Label).max(MAX_LIST).optional(),
})
export type TokenClaims = z.infer<typeof TokenClaims>
