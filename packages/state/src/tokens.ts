// Tokens for those who watch: what a backend hands to a browser beside a job's id, and the gateway checks.
import { createPrivateKey, createSecretKey, type JsonWebKey, type KeyObject, randomBytes } from 'node:crypto'
import { z } from 'zod'
import { StateError } from './errors.ts'
import { JobId, Label, LIMITS } from './schema/limits.ts'
import { TOKEN_AUDIENCE, TOKEN_CHARS, TOKEN_LIFE_MS, TOKEN_SECRET_BYTES } from './schema/token.ts'

interface Common {
  /** `aud`: what GATEWAY_JWT_AUDIENCE says; default: `jobs`. */
  audience?: string
  /** `iss`: what GATEWAY_JWT_ISSUER says, if it says anything. */
  issuer?: string
  /** Milliseconds that a token lives unless it is asked for another life; default: 15 minutes. */
  lifeMs?: number
}

/** How tokens are signed; GATEWAY_JWT_ALGORITHM says the same. */
export type TokenOptions =
  | (Common & {
      algorithm: 'HS256'
      /** At least 32 bytes; a string counts in UTF-8. */
      secret: string | Uint8Array
    })
  | (Common & {
      algorithm: 'EdDSA' | 'ES256'
      /** PEM, or a JWK. */
      privateKey: string | JsonWebKey
      /** `kid`: which key of the gateway's JWK set this is. */
      keyId?: string
    })

const lifeMs = z.int().min(1_000).max(LIMITS.tokenLifeMs)
const name = z.string().min(1).max(256)

const TokenFor = z
  .strictObject({
    /** Ids of the jobs it lets watch, or `*` for every job of the namespace. */
    jobs: z.union([z.literal('*'), z.array(JobId).readonly()]).optional(),
    /** Tags it lets watch. */
    tags: z.array(Label).readonly().optional(),
    /** Who gets it: a refresh keeps to the subject, and `revoke({ subject })` ends all that it has. */
    subject: name.optional(),
    /** Milliseconds that it lives, a day at most. */
    lifeMs: lifeMs.optional(),
    /** Names it for `revoke({ jti })`; default: random. */
    jti: name.optional(),
  })
  .refine(
    ({ jobs, tags }) => (jobs?.length ?? 0) + (tags?.length ?? 0) > 0,
    'name jobs or tags that it lets watch',
  )
export type TokenFor = z.input<typeof TokenFor>

export interface Token {
  token: string
  /** For `revoke({ jti })`. */
  jti: string
  /** Milliseconds since 1970. */
  expiresAt: number
}

const CURVES = { EdDSA: 'ed25519', ES256: 'prime256v1' } as const

/** @throws StateError INVALID_OPTIONS; nothing of the key is told */
const keyOf = (options: TokenOptions): KeyObject => {
  if (options.algorithm === 'HS256') {
    const secret = Buffer.from(options.secret as string)
    if (secret.length < TOKEN_SECRET_BYTES)
      throw wrong(`the secret has ${secret.length} bytes; HS256 takes ${TOKEN_SECRET_BYTES} or more`)
    return createSecretKey(secret)
  }
  const { privateKey: given, algorithm } = options
  let key: KeyObject
  try {
    key = createPrivateKey(typeof given === 'string' ? given : { key: given, format: 'jwk' })
  } catch {
    throw wrong('the private key is neither PEM nor a JWK')
  }
  const curve = key.asymmetricKeyDetails?.namedCurve ?? key.asymmetricKeyType
  if (curve !== CURVES[algorithm])
    throw wrong(`${algorithm} takes a ${CURVES[algorithm]} key, this one is ${curve}`)
  return key
}

const wrong = (why: string) =>
  new StateError('INVALID_OPTIONS', `The options of \`tokens\` are wrong: ${why}.`)

export class Minter {
  private readonly options: TokenOptions
  private readonly namespace: string
  private readonly key: KeyObject

  /** @throws StateError INVALID_OPTIONS */
  constructor(options: TokenOptions, namespace: string) {
    if (options.lifeMs !== undefined && !lifeMs.safeParse(options.lifeMs).success)
      throw wrong(`lifeMs is 1,000 to ${LIMITS.tokenLifeMs}`)
    this.options = options
    this.namespace = namespace
    this.key = keyOf(options)
  }

  /** @throws StateError INVALID_OPTIONS */
  check(asked: TokenFor): TokenFor {
    const parsed = TokenFor.safeParse(asked)
    if (parsed.success) return parsed.data
    throw new StateError('INVALID_OPTIONS', `The token can't be made. ${z.prettifyError(parsed.error)}`)
  }

  /** @throws StateError TOO_LARGE */
  async sign(checked: TokenFor): Promise<Token> {
    const { jobs, tags, subject, jti = randomBytes(16).toString('base64url'), lifeMs } = checked
    const { algorithm, audience = TOKEN_AUDIENCE, issuer } = this.options
    const keyId = 'keyId' in this.options ? this.options.keyId : undefined
    const now = Date.now()
    const expiresAt = now + (lifeMs ?? this.options.lifeMs ?? TOKEN_LIFE_MS)
    // Only who mints needs it.
    const { SignJWT } = await import('jose')
    const token = await new SignJWT({
      ns: this.namespace,
      ...(jobs ? { jobs } : {}),
      ...(tags ? { tags } : {}),
      aud: audience,
      ...(issuer === undefined ? {} : { iss: issuer }),
      ...(subject === undefined ? {} : { sub: subject }),
      jti,
      // To the millisecond: one made right after `revoke({ subject })` is another than those before it.
      iat: now / 1_000,
      exp: expiresAt / 1_000,
    })
      .setProtectedHeader({ alg: algorithm, typ: 'JWT', ...(keyId === undefined ? {} : { kid: keyId }) })
      .sign(this.key)
    if (token.length > TOKEN_CHARS)
      throw new StateError(
        'TOO_LARGE',
        `The token has ${token.length} characters; at most ${TOKEN_CHARS} are taken. Tag the jobs, and name the tag.`,
      )
    return { token, jti, expiresAt }
  }
}
