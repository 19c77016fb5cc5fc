// The ops port tells what it can, and never ends the process that it is asked about.
import { expect, it } from 'vitest'
import { serveOps } from '../src/ops.ts'

it('answers 500 where the metrics cannot be told, and goes on', async () => {
  let broken = true
  const ops = await serveOps('127.0.0.1', 0, () => null, {
    contentType: 'text/plain',
    text: async () => {
      if (broken) throw new Error('no such collector')
      return 'up 1\n'
    },
  })
  const get = (path: string) => fetch(`http://127.0.0.1:${ops.port}${path}`)
  const response = await get('/metrics')
  expect(response.status).toBe(500)
  expect(await response.json()).toEqual({ error: 'the metrics cannot be told: no such collector' })
  expect((await get('/livez')).status).toBe(200)
  broken = false
  expect(await (await get('/metrics')).text()).toBe('up 1\n')
  await ops.close()
})
