// The links of the fleet: one cutting proxy between each process and Redis, and one before each gateway.
import { type CuttingProxy, startProxy } from '@jobs/testkit'

export interface Network {
  /** The proxy's port, to be given to who connects. */
  link(name: string, toPort: number): Promise<number>
  of(name: string): CuttingProxy
  /** Every link carries everything at once. */
  heal(): void
  close(): Promise<void>
}

export const startNetwork = (): Network => {
  const links = new Map<string, CuttingProxy>()
  return {
    link: async (name, toPort) => {
      const known = links.get(name) ?? (await startProxy(toPort))
      links.set(name, known)
      return known.port
    },
    of: (name) => {
      const link = links.get(name)
      if (!link) throw new Error(`There is no link of ${name}.`)
      return link
    },
    heal: () => {
      for (const link of links.values()) {
        link.stall(false)
        link.refuse(false)
        link.slow(0)
      }
    },
    close: async () => {
      await Promise.all([...links.values()].map((link) => link.close()))
    },
  }
}
