// A gateway that asks for tokens, and tokens of every kind: as they should be, and as no library would make them.
import { createHmac, randomBytes } from 'node:crypto'
import { openWatcher, type Watcher } from '@jobs/testkit'
import { SignJWT } from 'jose'
import { expect } from 'vitest'
import { type Harness, startHarness } from './harness.ts'

export const SECRET = randomBytes(32).toString('base64url')
export const JWT = { GATEWAY_AUTH: 'jwt', GATEWAY_JWT_ALGORITHM: 'HS256', GATEWAY_JWT_SECRET: SECRET }
const key = Buffer.from(SECRET)
export const now = () => Math.floor(Date.now() / 1_000)
/** What no output may hold. */
const secrets: string[] = [SECRET]

/** A token that is as it should be, but for what is said. Undefined leaves a claim out. */
export const sign = async (
  claims: object = {},
  header: object = {},
  by: Uint8Array = key,
): Promise<string> => {
  const all = { jobs: '*', aud: 'jobs', iss: 'us', sub: 'ann', iat: now(), exp: now() + 600, ...claims }
  const jwt = new SignJWT(JSON.parse(JSON.stringify(all)))
  const token = await jwt
    .setProtectedHeader({ alg: 'HS256', ...header })
    .sign(by, { crit: { 'x-ours': true } })
  secrets.push(token)
  return token
}

export const encode = (part: object) => Buffer.from(JSON.stringify(part)).toString('base64url')

/** Signed by hand, as no library would. */
export const forge = (header: object, by: string | Buffer = SECRET): string => {
  const text = `${encode(header)}.${encode({ jobs: '*', aud: 'jobs', iss: 'us', exp: now() + 600 })}`
  const token = `${text}.${createHmac('sha256', by).update(text).digest('base64url')}`
  secrets.push(token)
  return token
}

export const startGuarded = async (env: Record<string, string> = {}) => {
  const h = await startHarness({
    env: { ...JWT, GATEWAY_JWT_ISSUER: 'us', LOG_LEVEL: 'trace', ...env },
  })
  const hello = async (token: string): Promise<Watcher> => {
    const watcher = await openWatcher(h.url())
    watcher.send({ type: 'hello', token })
    return watcher
  }
  return {
    h,
    hello,
    welcomed: async (claims: object = {}): Promise<Watcher> => {
      const watcher = await hello(await sign(claims))
      await watcher.next('welcome')
      return watcher
    },
    get: (path: string, token?: string, headers: Record<string, string> = {}) =>
      fetch(`http://127.0.0.1:${h.gateway.port}${path}`, {
        headers: { ...headers, ...(token === undefined ? {} : { authorization: `Bearer ${token}` }) },
      }),
  }
}
export type Guarded = Awaited<ReturnType<typeof startGuarded>>

export const expectNothingTold = (h: Harness): void => {
  const output = [...h.gateway.stdout, ...h.gateway.stderr].join('\n')
  expect(output).toContain('"audit":true')
  for (const secret of secrets) {
    expect(output).not.toContain(secret)
    const signature = secret.split('.')[2]
    if (signature) expect(output).not.toContain(signature)
  }
}
