// Python's websockets library follows a job by protocol.md alone.
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { cacheFolder, findProgram, unpackDebianPackages, workspaceRoot } from '@jobs/provision'
import { startProcess } from '@jobs/testkit'
import { expect, it } from 'vitest'
import { startHarness } from './harness.ts'

const python = existsSync('/usr/bin/python3') ? '/usr/bin/python3' : findProgram('python3')

it.runIf(python !== undefined && findProgram('apt-get') !== undefined)('Python follows a job', async () => {
  const root = await unpackDebianPackages(['python3-websockets'], { cacheDir: cacheFolder() })
  const h = await startHarness()
  const id = await h.enqueue()
  const stranger = startProcess(
    python as string,
    [join(workspaceRoot(), 'apps/gateway/test/follow.py'), h.url(), id],
    { env: { PYTHONPATH: join(root, 'usr/lib/python3/dist-packages') } },
  )
  await stranger.line((line) => line === 'live')
  const held = await h.claim(id)
  for (let op = 1; op <= 50; op++) await h.jobs.transitions.progress(held, op, `{"done":${op}}`)
  await h.jobs.transitions.complete(held, '1')
  expect(await stranger.exited).toEqual({ code: 0, signal: null })
  const expected = Array.from({ length: 53 }, (_, i) => String(i + 1))
  expect(stranger.stdout.filter((line) => line !== 'live')).toEqual([...expected, 'complete COMPLETED'])
  await h.stop()
})
