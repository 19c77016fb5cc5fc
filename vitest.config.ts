// One configuration for every package: tests run from source, on a real Redis, three files at a time.
import { defineConfig } from 'vitest/config'

export default defineConfig({
  resolve: { conditions: ['@jobs/source'] },
  ssr: { resolve: { conditions: ['@jobs/source', 'node'] } },
  test: {
    include: ['{packages,apps,examples}/*/test/**/*.test.ts'],
    testTimeout: 90_000,
    hookTimeout: 180_000,
    // Two cores, and half of a file's time is waiting for a lease, an outage or a process.
    maxWorkers: 3,
  },
})
