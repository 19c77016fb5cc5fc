// What a configuration of tokens and origins must say, and that nothing of a key is told when it does not.
import { createSecretKey, generateKeyPairSync } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { loadConfig } from '@jobs/service'
import { fromSource, startProcess } from '@jobs/testkit'
import { type JWTVerifyGetKey, jwtVerify, SignJWT } from 'jose'
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

const signer = { HS256: createSecretKey(Buffer.from(secret)), EdDSA: ed.privateKey, ES256: ec.privateKey }

it.each<[string, Record<string, string>]>([
  ['a secret', { ...HS, GATEWAY_JWT_SECRET: secret }],
  ['a secret in a file', { ...HS, GATEWAY_JWT_SECRET_FILE: file(`${secret}\n`) }],
  ['a key in PEM', { ...ED, GATEWAY_JWT_PUBLIC_KEY_FILE: file(pem(ed.publicKey)) }],
  ['a JWK', { ...ES, GATEWAY_JWT_PUBLIC_KEY_FILE: file(jwk(ec.publicKey)) }],
  ['a JWK set', { ...ES, GATEWAY_JWT_PUBLIC_KEY_FILE: file(`{"keys":[${jwk(ec.publicKey)}]}`) }],
])('takes %s, and checks tokens with it', async (_, env) => {
  const alg = env.GATEWAY_JWT_ALGORITHM as keyof typeof signer
  const token = await new SignJWT({ sub: 'ann' }).setProtectedHeader({ alg }).sign(signer[alg])
  const { payload } = await jwtVerify(token, (await load(env)) as JWTVerifyGetKey)
  expect(payload.sub).toBe('ann')
})

it('takes the address of a key set, and asks it for nothing yet', async () => {
  const key = await load({ ...ES, GATEWAY_JWT_JWKS_URL: 'https://keys.example/jwks' })
  expect((key as { jwks?: () => unknown }).jwks?.()).toBeUndefined()
  expect(key).toBeTypeOf('function')
})

it('starts in a container as the operations page runs it: with what the image sets and the command adds', async () => {
  const read = (path: string) => readFileSync(new URL(`../../../${path}`, import.meta.url), 'utf8')
  const settings = (text: string) =>
    Object.fromEntries([...text.matchAll(/\b([A-Z_]+)=(\S+)/g)].map(([, name, value]) => [name, value]))
  const [, image = ''] = /FROM base AS gateway\n[\s\S]*?^ENV (.*)$/m.exec(read('Dockerfile')) ?? []
  const [command = ''] =
    /docker run -d --name gateway [\s\S]*? jobs-gateway\n/.exec(read('docs/operations.md')) ?? []
  const env: Record<string, string> = { ...settings(image), ...settings(command.replaceAll('-e ', '')) }
  expect(Object.keys(env)).toEqual(expect.arrayContaining(['GATEWAY_HOST', 'GATEWAY_AUTH', 'REDIS_URL']))
  const mounted = { ...env, GATEWAY_JWT_SECRET_FILE: file(secret) }
  expect(await load(mounted)).toBeDefined()
})

it.each<[string, string[], number, string]>([
  ['prints its settings for --help', ['--help'], 0, 'GATEWAY_PORT=8080'],
  ['refuses other arguments', ['--port', '1'], 2, "Unknown option '--port'"],
])('%s', async (_, args, code, says) => {
  const gateway = startProcess(process.execPath, [...fromSource('apps/gateway/src/main.ts'), ...args])
  expect((await gateway.exited).code).toBe(code)
  expect(gateway.stdout.join('\n')).toContain(says)
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
