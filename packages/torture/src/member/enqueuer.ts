// A backend of the fleet: enqueues by a seed, cancels now and then, and says which jobs were accepted. What was not
// confirmed is asked for again under the same id, or left in doubt.
import { createInterface } from 'node:readline'
import { type Ack, connectJobs, isStateError } from '@jobs/state'
import { randomOf } from '../../../state/test/random.ts'
import { type Deed, type Payload, RETENTION_MS, STALL_MS, tortureJob } from '../job.ts'
import { started } from './notes.ts'

const { REDIS_URL = '', JOBS_NAMESPACE = '', JOBS_PARTITIONS = '1', NAME = '', SEED = '0' } = process.env
const { ACK = 'memory' } = process.env
/** Jobs a second, about. */
const RATE = 6
const random = randomOf(Number(SEED))
const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms))

const options = {
  ...{ url: REDIS_URL, namespace: JOBS_NAMESPACE, partitions: Number(JOBS_PARTITIONS) },
  ack: ACK as Ack,
}
const jobs = await started(() => connectJobs(options))
let going = process.env.GOING === 'yes'
let stopping = false
let busy = 0

const deed = (): Deed => {
  const at = random.below(100)
  if (at < 77) return 'complete'
  if (at < 85) return 'throw'
  if (at < 90) return 'checkpoint'
  return at < 95 ? 'final' : at < 99 ? 'hang' : 'block'
}

const ask = async (n: number): Promise<void> => {
  const id = `${NAME}-${n}-${random.below(1e6)}`
  const payload: Payload = {
    deed: deed(),
    steps: random.chance(0.2) ? 40 + random.below(40) : 2 + random.below(10),
    stepMs: 20 + random.below(60),
    deaf: random.chance(0.5),
    logs: random.chance(0.2),
  }
  const options = {
    id,
    retentionMs: RETENTION_MS,
    // A poisoned worker takes the jobs of others with it; these are to be done all the same.
    maxCrashes: 50,
    maxAttempts: 5,
    ...(payload.deed === 'hang' ? { stallMs: STALL_MS } : {}),
    backoff: { delayMs: random.below(200) },
    ...(random.chance(0.1) ? { delayMs: random.below(1_000) } : {}),
    ...(random.chance(0.2) ? { priority: random.chance(0.5) ? ('high' as const) : ('low' as const) } : {}),
    ...(random.chance(0.1) ? { tags: ['x'], owner: 'ann' } : {}),
  }
  const cancelAfterMs = random.chance(0.06) ? random.below(1_500) : undefined
  const asks = random.chance(0.7) ? 3 : 1
  for (let tries = 0; tries < asks; tries++)
    try {
      await jobs.enqueue(tortureJob, payload, options)
      console.log(`accepted ${id}`)
      break
    } catch (error) {
      if (!isStateError(error)) throw error
      if (tries === asks - 1) return
    }
  if (cancelAfterMs === undefined) return
  await pause(cancelAfterMs)
  await jobs.cancel(id).catch((error) => {
    if (!isStateError(error)) throw error
  })
}

createInterface({ input: process.stdin }).on('line', async (line) => {
  going = line === 'go'
  if (going) return
  while (busy > 0) await pause(20)
  console.log(`resting ${line}`)
})
process.on('SIGTERM', async () => {
  stopping = true
  while (busy > 0) await pause(20)
  await jobs.close()
  process.exit(0)
})
console.log('ready')
for (let n = 0; !stopping; n++) {
  await pause(random.below(2_000 / RATE))
  // While Redis is away a backend has no more than so many requests open.
  if (!going || stopping || busy >= 50) continue
  busy++
  void ask(n).finally(() => {
    busy--
  })
}
