// What those who issue tokens and those who check them agree on.

/** `aud` when nothing else is configured at either end. */
export const TOKEN_AUDIENCE = 'jobs'
/** Milliseconds that a token lives when nothing is said. */
export const TOKEN_LIFE_MS = 900_000
/** Characters of a token: it has to fit into a header beside others. */
export const TOKEN_CHARS = 8_192
export const TOKEN_ALGORITHMS = ['HS256', 'EdDSA', 'ES256'] as const
export type TokenAlgorithm = (typeof TOKEN_ALGORITHMS)[number]
/** Bytes of a secret for HS256: as many as the hash has (RFC 7518, 3.2). */
export const TOKEN_SECRET_BYTES = 32
