// The life of a token on an open connection: told before it ends, put off, over, revoked.
import { randomBytes } from 'node:crypto'
import { must, skip } from '../outcome.ts'
import type { Bench, Check, TokenOptions } from '../run.ts'

const tokenOf = async ({ token, tokenPerJob }: Bench, options: TokenOptions = {}): Promise<string> => {
  if (!token || !tokenPerJob) return skip('needs tokens of its own (give --token-command)')
  return token(['*'], options)
}

const LIFE_S = 2

export const tokens: Check[] = [
  {
    name: 'token/refresh',
    promise:
      '`expiring` comes before a token ends; after its end nothing new is begun, and a refresh puts the end off',
    run: async (bench) => {
      const job = await bench.driver.create()
      const client = await bench.open({ token: await tokenOf(bench, { lifeSeconds: LIFE_S }) })
      const welcome = await client.find('`welcome`', ({ type }) => type === 'welcome')
      must(welcome.expiresAt > welcome.time, '`welcome` tells when the token expires', welcome)
      const { inMs } = await client.find('`expiring`', ({ type }) => type === 'expiring')
      must(inMs >= 0 && inMs < (LIFE_S * 1_000) / 2, '`expiring` comes when little of its life is left', inMs)
      await new Promise((resolve) => setTimeout(resolve, inMs + 50))
      client.subscribe(job, { id: 'late' })
      const error = await client.next('error')
      must(error.code === 'token_expired' && error.id === 'late', 'token_expired with the id', error)
      client.send({ type: 'refresh', token: await tokenOf(bench) })
      client.subscribe(job)
      await client.find('`live`', ({ type }) => type === 'live')
    },
  },
  {
    name: 'token/expired',
    promise: 'a token that has expired is answered `token_expired` and closes the connection with 4101',
    run: async (bench) => {
      const token = await tokenOf(bench, { lifeSeconds: -60 })
      const client = await bench.open({ token: undefined })
      client.send({ type: 'hello', token })
      const code = await client.end()
      must(code === 4101, 'close code 4101', code)
      const error = client.messages.find(({ type }) => type === 'error')
      must(error?.code === 'token_expired', 'token_expired', error)
    },
  },
  {
    name: 'token/revoked',
    promise: 'a connection whose token is revoked is closed with 4102 within 5 s',
    run: async (bench) => {
      const id = randomBytes(9).toString('base64url')
      const client = await bench.open({ token: await tokenOf(bench, { id }) })
      await client.settle()
      await bench.driver.revoke(id)
      const code = await client.end(5_000)
      must(code === 4102, 'close code 4102', code)
    },
  },
]
