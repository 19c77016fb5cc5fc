// Error codes of `error` messages. What went wrong concerns one message; the connection lives on.

export const ERROR_CODES = [
  'bad_request',
  'unauthorized',
  /** Unknown, or not for this client: one answer for both. */
  'not_found',
  'token_expired',
  'already_subscribed',
  'limit_exceeded',
  'rate_limited',
  /** Redis can't be read at the moment. */
  'unavailable',
  'too_large',
  'internal',
] as const
export type ErrorCode = (typeof ERROR_CODES)[number]
