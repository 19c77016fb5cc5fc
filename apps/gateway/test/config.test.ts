// What a configuration of tokens and origins must say, and that nothing of a key is told when it does not.
import { generateKeyPairSync } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { loadConfig } from '@jobs/service'
import { afterAll, expect, it } from 'vitest'
import { tokenKeyOf } from '../src/auth/token-key.ts'
import { GatewayConfig } from '../src/config.ts'

const dir = mkdtempSync(join(tmpdir(), 'jobs-config-'))
afterAll(() => rmSync(dir, { recursive: true, force: true }))
let files = 0
const file = (content: string | Buffer): string => {
  const path = join(dir, String(files++))
  writeFileSync(path, content)
  return path
}
const load = async (env: Record<string, string>) => {
  const config = loadConfig(GatewayConfig, env)
  return config.GATEWAY_AUTH === 'jwt' ? tokenKeyOf(config) : undefined
}

const ed = generateKeyPairSync('ed25519')
const ec = generateKeyPairSync('ec', { namedCurve: 'prime256v1' })
const pem = (key: typeof ed.publicKey) => key.export({ type: 'spki', format: 'pem' })
const jwk = (key: typeof ed.publicKey) => JSON.stringify(key.export({ format: 'jwk' }))
const privatePem = ed.privateKey.export({ type: 'pkcs8', format: 'pem' })
const secret = 'x'.repeat(32)

const HS = { GATEWAY_AUTH: 'jwt', GATEWAY_JWT_ALGORITHM: 'HS256' }
const ED = { GATEWAY_AUTH: 'jwt', GATEWAY_JWT_ALGORITHM: 'EdDSA' }
const ES = { GATEWAY_AUTH: 'jwt', GATEWAY_JWT_ALGORITHM: 'ES256' }

it.each<[string, Record<string, string>]>([
  ['a secret', { ...HS, GATEWAY_JWT_SECRET: secret }],
  ['a secret in a file', { ...HS, GATEWAY_JWT_SECRET_FILE: file(`${secret}\n`) }],
  ['a key in PEM', { ...ED, GATEWAY_JWT_PUBLIC_KEY_FILE: file(pem(ed.publicKey)) }],
  ['a JWK', { ...ES, GATEWAY_JWT_PUBLIC_KEY_FILE: file(jwk(ec.publicKey)) }],
  ['a JWK set', { ...ES, GATEWAY_JWT_PUBLIC_KEY_FILE: file(`{"keys":[${jwk(ec.publicKey)}]}`) }],
  ['an address', { ...ES, GATEWAY_JWT_JWKS_URL: 'https://keys.example/jwks' }],
])('takes %s', async (_, env) => {
  expect(await load(env)).toBeDefined()
})

it.each<[string, Record<string, string>, string]>([
  ['no algorithm', { GATEWAY_AUTH: 'jwt', GATEWAY_JWT_SECRET: secret }, 'GATEWAY_JWT_ALGORITHM'],
  ['no key', HS, 'GATEWAY_JWT_SECRET'],
  ['two keys', { ...HS, GATEWAY_JWT_SECRET: secret, GATEWAY_JWT_SECRET_FILE: '/a' }, 'one of them'],
  ['a secret for EdDSA', { ...ED, GATEWAY_JWT_SECRET: secret }, 'no key for EdDSA'],
  ['a short secret', { ...HS, GATEWAY_JWT_SECRET: 'hunter2' }, 'has 7 bytes'],
  ['a short secret in a file', { ...HS, GATEWAY_JWT_SECRET_FILE: file('hunter2\n') }, 'has 7 bytes'],
  ['a file that is not there', { ...HS, GATEWAY_JWT_SECRET_FILE: join(dir, 'none') }, 'ENOENT'],
  ['a private key', { ...ED, GATEWAY_JWT_PUBLIC_KEY_FILE: file(privatePem) }, 'private key'],
  ['a key of another kind', { ...ES, GATEWAY_JWT_PUBLIC_KEY_FILE: file(pem(ed.publicKey)) }, 'prime256v1'],
  ['a key that is none', { ...ED, GATEWAY_JWT_PUBLIC_KEY_FILE: file('hunter2') }, 'PEM, a JWK'],
  ['keys by plain HTTP', { ...ED, GATEWAY_JWT_JWKS_URL: 'http://keys.example/' }, 'use https'],
  ['a secret that nobody uses', { GATEWAY_JWT_SECRET: secret }, 'say jwt'],
  ['an origin with a path', { GATEWAY_ORIGINS: 'https://app.example/a' }, 'GATEWAY_ORIGINS'],
  ['an origin that is a pattern', { GATEWAY_ORIGINS: '*' }, 'GATEWAY_ORIGINS'],
  ['DEBUG in production', { NODE_ENV: 'production', DEBUG: 'ioredis:*' }, 'DEBUG'],
  ['DEBUG of everything in production', { NODE_ENV: 'production', DEBUG: 'http,*' }, 'DEBUG'],
])('refuses %s', async (_, env, says) => {
  const error = await load(env).then(
    () => undefined,
    (thrown) => thrown,
  )
  expect(error).toMatchObject({ code: 'INVALID_CONFIG', message: expect.stringContaining(says) })
  for (const hidden of ['hunter2', secret]) expect(String(error.stack)).not.toContain(hidden)
})

it('takes DEBUG of other things in production', async () => {
  expect(await load({ NODE_ENV: 'production', DEBUG: 'http,-ioredis*' })).toBeUndefined()
})
