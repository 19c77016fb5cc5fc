// Hears from the sentinels that another server is the master now. A failover in order leaves the old one writable for
// some 8 s, and throws away what it took meanwhile: whoever is connected there must leave at once.
import { Redis } from 'ioredis'
import type { Address } from './address.ts'
import { type LinkOptions, profile, typed } from './connection.ts'

const CHANNEL = '+switch-master'

/** Calls `changed` whenever a sentinel has another master. Answers how to end it. */
export const watchMaster = (options: LinkOptions, address: Address, changed: () => void): (() => void) => {
  const { sentinelUsername, sentinelPassword, sentinelTLS, name } = address.options
  const clients = address.nodes.map(({ host, port }) => {
    const client = new Redis({
      ...profile(options),
      host,
      port,
      ...(sentinelUsername ? { username: sentinelUsername } : {}),
      ...(sentinelPassword ? { password: sentinelPassword } : {}),
      ...(sentinelTLS ? { tls: sentinelTLS } : {}),
    })
    const trouble = (error: unknown) => options.onTrouble?.(typed(error, `${host}:${port}`))
    client.on('error', trouble)
    // Lost meanwhile: the next connection subscribes again.
    client.on('ready', () => client.subscribe(CHANNEL).catch(trouble))
    // "<name> <old host> <old port> <new host> <new port>"
    client.on('message', (_channel, message: string) => message.startsWith(`${name} `) && changed())
    client.connect().catch(trouble)
    return client
  })
  return () => {
    for (const client of clients) client.disconnect()
  }
}
