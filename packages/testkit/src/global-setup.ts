// Once before all tests: says where Redis comes from, and fetches it if need be.
import { findRedis } from '@jobs/provision'

export default async (): Promise<void> => {
  const source = await findRedis({ onProgress: (line) => console.log(`  … ${line}`) })
  console.log(`Redis: ${source.described}`)
}
