// A process of many workers, one behind each proxy, to be killed under all of them. A line `stop <name>` stops one.
import { createInterface } from 'node:readline'
import { Jobs } from '@jobs/state'
import { type LifeWorker, startLifeWorker } from './life.ts'

const { NAMESPACE = '', STRAIGHT = '', WORKERS = '[]' } = process.env
const straight = new Jobs({ url: STRAIGHT, namespace: NAMESPACE })
const workers = new Map<string, LifeWorker>()
createInterface({ input: process.stdin }).on('line', (line) => {
  void workers.get(line.slice('stop '.length))?.stop({ graceMs: 0 })
})
await Promise.all(
  (JSON.parse(WORKERS) as { name: string; port: number }[]).map(async ({ name, port }) => {
    // A frozen connection is noticed by nobody before the end.
    const patient = { deadlineMs: 60_000, commandTimeoutMs: 30_000 }
    const jobs = new Jobs({ url: `redis://127.0.0.1:${port}`, namespace: NAMESPACE, ...patient })
    workers.set(name, await startLifeWorker(jobs, name, { straight }))
  }),
)
