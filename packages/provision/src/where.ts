// `pnpm redis`: says where Redis and the other engines come from, and fetches them if need be; before tests that would
// all ask at once. Fails only without the Redis that the tests need.
import { ENGINES } from './engine.ts'
import { findRedis } from './redis.ts'

const onProgress = (line: string) => console.log(`  … ${line}`)

try {
  console.log(`Redis: ${(await findRedis({ onProgress })).described}`)
} catch (error) {
  console.error((error as Error).message)
  process.exit(1)
}
if (!process.env.JOBS_REDIS_ENGINE)
  for (const engine of ENGINES)
    try {
      const source = await findRedis({ env: { ...process.env, JOBS_REDIS_ENGINE: engine }, onProgress })
      console.log(`${engine}: ${source.described}`)
    } catch (error) {
      console.log(`${engine}: its tests will be skipped. ${(error as Error).message}`)
    }
