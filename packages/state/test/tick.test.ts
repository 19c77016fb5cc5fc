// What one tick of the process sends, and how many answers it hears.
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { defineJob } from '../src/define.ts'
import { Tick } from '../src/tick.ts'
import { type Stage, startStage } from './stage.ts'

const turn = () => new Promise((resolve) => setImmediate(resolve))

describe('a tick', () => {
  it('hears so many answers, in order, and sends what follows from them before the next are heard', async () => {
    const tick = new Tick()
    const told: string[] = []
    const follow = () => {
      if (told.at(-1) !== 'heard') told.push('heard')
      if (told.filter((what) => what === 'asked').length > 2) return
      told.push('asked')
      tick.send(() => told.push('sent'))
    }
    const order: number[] = []
    tick.hear(40, (i) => {
      order.push(i)
      if (i === 0 || i === 39) follow()
    })
    expect(order).toHaveLength(32)
    await turn()
    expect(order).toEqual(Array.from({ length: 40 }, (_, i) => i))
    await turn()
    expect(told).toEqual(['heard', 'asked', 'sent', 'heard', 'asked', 'sent'])
  })

  it('hears a lone answer at once', () => {
    let heard = false
    new Tick().hear(1, () => {
      heard = true
    })
    expect(heard).toBe(true)
  })

  it('sends what is added at its end with the rest', async () => {
    const tick = new Tick()
    const moves: string[] = ['first']
    let sent: string[] = []
    tick.send(() => {
      sent = [...moves]
    })
    tick.finally(() => moves.push('last'))
    await turn()
    expect(sent).toEqual(['first', 'last'])
  })
})

describe('a take', () => {
  let stage: Stage
  beforeAll(async () => {
    stage = await startStage()
  })
  afterAll(() => stage.stop())

  it('finds what is enqueued after it in the same tick, for as many slots as are free at its end', async () => {
    const { transitions } = stage.jobs
    const job = defineJob({ name: 'late' })
    const [keys] = transitions.keys
    if (!keys) throw new Error('There is a partition.')
    // The first enqueue of a job name asks for the rights before it goes out.
    await stage.jobs.enqueue(job, {}, { delayMs: 3_600_000 })
    let free = 1
    const taken = transitions.take(keys, 'late', () => free, { worker: 'w', nonce: 'n', leaseMs: 5_000 })
    const made = await Promise.all([
      ...[1, 2, 3].map((n) => stage.jobs.enqueue(job, { n })),
      Promise.resolve().then(() => {
        free = 2
      }),
    ])
    const { grants } = await taken
    expect(grants.map(({ id }) => id)).toEqual([made[0]?.id, made[1]?.id])
  })
})
