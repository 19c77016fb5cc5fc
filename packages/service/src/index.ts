// @jobs/service: what every process shares.
export { ConfigError, commonConfig, flagSetting, loadConfig, portSetting, settingsOf } from './config.ts'
export { closeServer, listen, type Metrics, type OpsServer, type Readiness, serveOps } from './ops.ts'
export { tellFinding, waitForRedis } from './redis-start.ts'
export { createLogger, describe, HelpAsked, runService, type Service } from './run.ts'
