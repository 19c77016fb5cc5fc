// Connects to the address it is given, and says what came of it. A process of its own: what Node trusts is read at its start.
import { RedisLink } from '../src/redis.ts'

const link = new RedisLink({ url: process.argv[2] as string, deadlineMs: 3_000 })
try {
  await link.connect()
  console.log(await link.call('PING'))
} catch (error) {
  console.log((error as { code: string }).code)
}
await link.close()
