// Jobs on a Redis Cluster: while slots of busy partitions move and masters die, no job is lost, doubled or stuck.
import { startCluster, type TestCluster } from '@jobs/testkit'
import { afterAll, afterEach, beforeAll, expect, it } from 'vitest'
import { type Load, startLoad } from './load.ts'

let cluster: TestCluster
let load: Load | undefined
beforeAll(async () => {
  cluster = await startCluster()
})
afterEach(() => load?.stop())
afterAll(() => cluster.stop())

it('ends every job once while the slots of busy partitions move', async () => {
  load = await startLoad(cluster.url, { partitions: 16 })
  await load.progress(200)
  for (const keys of load.keys.slice(0, 6)) {
    await cluster.moveSlotOf(keys.prefix)
    await load.progress(50)
  }
  expect(await load.check()).toMatchObject({ lost: 0, resets: 0, rewritten: 0, told: [] })
})

it('ends every job once while a master is killed and comes back', async () => {
  load = await startLoad(cluster.url, { partitions: 16 })
  await load.progress(200)
  const { master } = await cluster.holders(load.keys[0]?.prefix ?? '')
  await master.server.kill('SIGKILL')
  await load.progress(60)
  await master.server.restart()
  await cluster.settled()
  await load.progress(100)
  console.info(await load.check())
})
