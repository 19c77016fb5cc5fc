// Close codes as data. The range of a code says what a client does about it, so that a client need not know each.

/** By the hundreds of a code. */
const CLIENT_DOES: Record<number, string> = {
  40: 'stay away: the same again ends the same way',
  41: 'get a new token first',
  42: 'back off with full jitter, 0.5 to 20 s',
  43: 'come back within the announced spread',
}

export const CLOSE = {
  badRequest: { code: 4000, reason: 'bad request' },
  forbidden: { code: 4003, reason: 'forbidden' },
  unsupportedProtocol: { code: 4006, reason: 'unsupported protocol' },
  messageTooLarge: { code: 4009, reason: 'message too large' },
  tooManyErrors: { code: 4010, reason: 'too many errors' },
  unauthorized: { code: 4100, reason: 'unauthorized' },
  tokenExpired: { code: 4101, reason: 'token expired' },
  revoked: { code: 4102, reason: 'revoked' },
  internal: { code: 4200, reason: 'internal' },
  noHello: { code: 4201, reason: 'no hello in time' },
  noPong: { code: 4202, reason: 'no pong' },
  slowConsumer: { code: 4203, reason: 'slow consumer' },
  rateLimited: { code: 4204, reason: 'rate limited' },
  tooManyConnections: { code: 4205, reason: 'too many connections' },
  redisUnavailable: { code: 4206, reason: 'Redis unavailable' },
  draining: { code: 4300, reason: 'draining' },
  rebalance: { code: 4301, reason: 'rebalance' },
} as const

export type Close = (typeof CLOSE)[keyof typeof CLOSE]

/** What a client does after this close, or null for a code outside our ranges. */
export const clientDoes = (code: number): string | null => CLIENT_DOES[Math.floor(code / 100)] ?? null
