// @jobs/testkit: for tests only. A real Redis, real processes, a proxy that cuts, a stranger's WebSocket client.
export { ENGINES, type Engine, engineMissing } from '@jobs/provision'
export { type Exit, fromSource, startApp, startProcess, type TestApp, type TestProcess } from './process.ts'
export { type CuttingProxy, startProxy } from './proxy.ts'
export { startTestRedis, type TestRedis } from './redis.ts'
export { until } from './until.ts'
export { type Message, openWatcher, type Watcher } from './watcher.ts'
