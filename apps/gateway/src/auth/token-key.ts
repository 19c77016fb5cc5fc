// The key that tokens are checked with: from the environment, a file or a URL. One that does not fit the algorithm stops the
// start, and no part of any is ever told.
import { createPublicKey, createSecretKey, type KeyObject } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { ConfigError } from '@jobs/service'
import { TOKEN_SECRET_BYTES } from '@jobs/state'
import {
  createLocalJWKSet,
  createRemoteJWKSet,
  customFetch,
  type JSONWebKeySet,
  type JWTVerifyGetKey,
} from 'jose'
import type { z } from 'zod'
import type { GatewayConfig } from '../config.ts'

/** The key set can't be fetched at the moment. */
export class KeysUnavailable extends Error {
  override name = 'KeysUnavailable'
  readonly code = 'KEYS_UNAVAILABLE'

  constructor(why: string) {
    super(`the key set of GATEWAY_JWT_JWKS_URL could not be fetched: ${why}`)
  }
}

/** What went wrong, in a word: a code of the system, or what the answer was. It tells nothing of the address. */
const whyNot = (error: unknown): string => {
  const { name, code, cause } = error as Error & { code?: unknown }
  if (typeof code === 'string') return code
  return cause ? whyNot(cause) : error instanceof NotFetched ? error.message : name
}

class NotFetched extends Error {}

/** Milliseconds for one fetch, within what a handshake waits; after a failure; and between looks for unknown keys. */
const FETCH_MS = 2_000
const RETRY_MS = 5_000
const COOLDOWN_MS = 30_000

const CURVES = { EdDSA: 'ed25519', ES256: 'prime256v1' } as const

const wrong = (name: string, why: string) => new ConfigError(`The configuration is wrong:\n  ${name}: ${why}`)

const contentOf = async (name: string, path: string): Promise<string> => {
  try {
    return (await readFile(path, 'utf8')).trim()
  } catch (error) {
    throw wrong(name, `the file can't be read (${(error as NodeJS.ErrnoException).code})`)
  }
}

/** @throws ConfigError */
export const tokenKeyOf = async (
  config: z.output<typeof GatewayConfig>,
): Promise<KeyObject | JWTVerifyGetKey> => {
  const {
    GATEWAY_JWT_ALGORITHM: algorithm,
    GATEWAY_JWT_SECRET: secret,
    GATEWAY_JWT_SECRET_FILE: secretFile,
    GATEWAY_JWT_PUBLIC_KEY_FILE: publicKeyFile,
    GATEWAY_JWT_JWKS_URL: jwksUrl,
  } = config
  if (jwksUrl !== undefined) return remoteKeys(new URL(jwksUrl))
  if (publicKeyFile !== undefined)
    return publicKeys(
      await contentOf('GATEWAY_JWT_PUBLIC_KEY_FILE', publicKeyFile),
      algorithm as keyof typeof CURVES,
    )
  const name = secretFile === undefined ? 'GATEWAY_JWT_SECRET' : 'GATEWAY_JWT_SECRET_FILE'
  const bytes = Buffer.from(secretFile === undefined ? (secret ?? '') : await contentOf(name, secretFile))
  if (bytes.length < TOKEN_SECRET_BYTES)
    throw wrong(name, `the secret has ${bytes.length} bytes; HS256 takes ${TOKEN_SECRET_BYTES} or more`)
  return createSecretKey(bytes)
}

const publicKeys = (text: string, algorithm: keyof typeof CURVES): KeyObject | JWTVerifyGetKey => {
  const name = 'GATEWAY_JWT_PUBLIC_KEY_FILE'
  // Who checks tokens needs no key that makes them.
  if (text.includes('PRIVATE KEY') || /"d"\s*:/.test(text))
    throw wrong(name, 'this is a private key; give the public one')
  let key: KeyObject
  try {
    if (!text.startsWith('{')) key = createPublicKey(text)
    else {
      const json = JSON.parse(text)
      if ('keys' in json) return createLocalJWKSet(json as JSONWebKeySet)
      key = createPublicKey({ key: json, format: 'jwk' })
    }
  } catch {
    throw wrong(name, 'give a public key in PEM, a JWK or a JWK set')
  }
  const curve = key.asymmetricKeyDetails?.namedCurve ?? key.asymmetricKeyType
  if (curve !== CURVES[algorithm])
    throw wrong(name, `${algorithm} takes a ${CURVES[algorithm]} key, this one is ${curve}`)
  return key
}

/**
 * A `kid` is looked up in the set only. One that is not there has the set fetched again, at most twice a minute; while it
 * can't be fetched, at most once in five seconds: what clients send is no way to load the server of keys.
 */
const remoteKeys = (url: URL): JWTVerifyGetKey => {
  let failedAt = Number.NEGATIVE_INFINITY
  let why = ''
  return createRemoteJWKSet(url, {
    timeoutDuration: FETCH_MS,
    cooldownDuration: COOLDOWN_MS,
    [customFetch]: async (from, options) => {
      if (performance.now() - failedAt < RETRY_MS) throw new KeysUnavailable(why)
      try {
        const response = await fetch(from, options)
        // The body too, within the same time.
        const text = await response.text()
        if (response.status !== 200) throw new NotFetched(`HTTP ${response.status}`)
        createLocalJWKSet(JSON.parse(text) as JSONWebKeySet)
        return new Response(text)
      } catch (error) {
        failedAt = performance.now()
        why = whyNot(error)
        throw new KeysUnavailable(why)
      }
    },
  })
}
