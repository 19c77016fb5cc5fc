// @jobs/provision: finds or fetches the programs that the demo and the tests run.
export { environmentOf, type OnProgress, unpackDebianPackages } from './debian.ts'
export { ENGINES, type Engine, engineMissing } from './engine.ts'
export { cacheFolder, findProgram, workspaceRoot } from './path.ts'
export { findPocketsphinx, type Pocketsphinx } from './pocketsphinx.ts'
export {
  type FindOptions,
  findRedis,
  freePort,
  portIsFree,
  type RedisSource,
  type RunningRedis,
  type StartOptions,
  startRedis,
} from './redis.ts'
