// State × move once more, on a Redis Cluster with 16 partitions.
import { testOnCluster } from './harness.ts'

testOnCluster()
await import('./machine.test.ts')
