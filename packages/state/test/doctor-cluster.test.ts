// The doctor on a cluster: every partition on every node is looked through, and mended where it is.
import { examine, Jobs, type Keys, partitionOf } from '@jobs/state'
import { startCluster, type TestCluster } from '@jobs/testkit'
import { afterAll, beforeAll, expect, it, vi } from 'vitest'
import { anyJob } from './harness.ts'
import { reapOnce } from './reaper.ts'

const PARTITIONS = 16

let cluster: TestCluster
let jobs: Jobs
beforeAll(async () => {
  cluster = await startCluster()
  jobs = new Jobs({ url: cluster.url, namespace: 'doctor', partitions: PARTITIONS })
})
afterAll(async () => {
  await jobs.close()
  await cluster.stop()
})

it('finds what is lost in each of 16 partitions, mends it, and then finds nothing', async () => {
  const items = Array.from({ length: 64 }, (_, n) => ({ payload: n, options: { tags: ['red'] } }))
  const made = await jobs.enqueueMany(anyJob, items)
  const ids = made.flatMap((item) => (item.ok ? [item.id] : []))
  const used = new Set(ids.map((id) => partitionOf(id, PARTITIONS)))
  expect(used.size).toBeGreaterThan(8)
  await reapOnce(jobs, { minIdleMs: 0, maxGapMs: 0 })
  const { keys: all, keysFor } = jobs.transitions
  for (const keys of all) await jobs.link.call('DEL', keys.work('any'))
  const [lost = ''] = ids
  await jobs.link.call('DEL', keysFor(lost).job(lost))

  const calls = vi.spyOn(jobs.link, 'callAt')
  const found = await examine(jobs)
  // Each master’s keys are gone through once, not once for each of its partitions.
  const begun = calls.mock.calls.filter(([, name, cursor]) => name === 'SCAN' && cursor === '0')
  expect(begun).toHaveLength(cluster.nodes.length / 2)
  calls.mockRestore()
  expect(found.counts).toMatchObject({
    not_queued: { found: ids.length - 1 },
    stream_without_hash: { found: 1 },
    layout_missing: { found: 1 },
  })
  const mended = await examine(jobs, { fix: true })
  expect(mended.damages.filter(({ outcome }) => outcome !== 'mended')).toEqual([])
  expect((await examine(jobs)).damages).toEqual([])
  const claimant = { worker: 'w', nonce: 'n', leaseMs: 60_000 }
  for (const keys of all as Keys[])
    for (const grant of (await jobs.transitions.take(keys, 'any', 100, claimant)).grants)
      await jobs.transitions.complete(grant, '1')
  expect(await jobs.counts()).toMatchObject({ QUEUED: 0, PROCESSING: 0, COMPLETED: ids.length })
})
