// `pnpm redis`: says where Redis comes from, and fetches it if need be; before tests that would all ask at once.
import { findRedis } from './redis.ts'

try {
  const source = await findRedis({ onProgress: (line) => console.log(`  … ${line}`) })
  console.log(`Redis: ${source.described}`)
} catch (error) {
  console.error((error as Error).message)
  process.exit(1)
}
