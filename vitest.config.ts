// One configuration for every package: tests run from source, on a real Redis, several files at a time.
import { defineConfig } from 'vitest/config'

export default defineConfig({
  resolve: { conditions: ['@jobs/source'] },
  ssr: { resolve: { conditions: ['@jobs/source', 'node'] } },
  test: {
    include: ['{packages,apps,examples}/*/test/**/*.test.ts'],
    testTimeout: 60_000,
    hookTimeout: 120_000,
    // Two cores: more files at a time only make the waits longer.
    maxWorkers: 2,
  },
})
