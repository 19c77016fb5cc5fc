// What plain HTTP reads: few reads for many who ask, and no answer from before the question.
import type { Snapshot } from '@jobs/state'
import { expect, it } from 'vitest'
import { Looks } from '../src/rooms/looks.ts'

const setUp = () => {
  const reads: PromiseWithResolvers<Snapshot | null>[] = []
  const looks = new Looks(() => {
    const read = Promise.withResolvers<Snapshot | null>()
    reads.push(read)
    return read.promise
  })
  const at = (seq: number) => ({ seq }) as Snapshot
  const settle = () => new Promise<void>((resolve) => setImmediate(resolve))
  return { looks, reads, at, settle }
}

it('answers all who ask while a read is under way by the one that follows it', async () => {
  const { looks, reads, at, settle } = setUp()
  const first = looks.look('a')
  const later = [looks.look('a'), looks.look('a')]
  const other = looks.look('b')
  expect(reads).toHaveLength(2)
  reads[1]?.resolve(null)
  expect(await other).toBe(null)
  reads[0]?.resolve(at(1))
  expect(await first).toEqual({ seq: 1 })
  await settle()
  expect(reads).toHaveLength(3)
  reads[2]?.resolve(at(2))
  expect(await Promise.all(later)).toEqual([{ seq: 2 }, { seq: 2 }])
  void looks.look('a')
  expect(reads).toHaveLength(4)
})

it('reads again for those who wait when a read failed', async () => {
  const { looks, reads, at, settle } = setUp()
  const failed = looks.look('a').catch(() => 'failed')
  const next = looks.look('a')
  reads[0]?.reject(new Error('gone'))
  expect(await failed).toBe('failed')
  await settle()
  reads[1]?.resolve(at(1))
  expect(await next).toEqual({ seq: 1 })
})
