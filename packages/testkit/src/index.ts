// @jobs/testkit: for tests only. A real Redis, real processes, a proxy that cuts, a stranger's WebSocket client.
export { type ClusterNode, startCluster, type TestCluster } from './cluster.ts'
export { type CommandPoint, type CommandProxy, startCommandProxy } from './command-proxy.ts'
export { type Exit, fromSource, startApp, startProcess, type TestApp, type TestProcess } from './process.ts'
export { type CuttingProxy, startProxy } from './proxy.ts'
export { startTestRedis, type TestRedis } from './redis.ts'
export { type SentinelServer, startSentinel, type TestSentinel } from './sentinel.ts'
export { until } from './until.ts'
export { type Message, openWatcher, type Watcher } from './watcher.ts'
