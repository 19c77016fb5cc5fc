// The Redis driver as a program of the line protocol: a model for drivers of other gateways.
import { createInterface } from 'node:readline'
import type { Answer, Told } from './driver.ts'
import { redisDriver } from './redis-driver.ts'

const [url = 'redis://127.0.0.1:6379', namespace = 'jobs'] = process.argv.slice(2)
const driver = await redisDriver({ url, namespace, partitions: 1 })
const { create, claim, progress, log, complete, trim, keep, lose, outage, revoke } = driver

const act = async ({
  do: command,
  job = '',
  tags,
  value,
  line = '',
  result,
  ms = 0,
  token = '',
}: Told): Promise<Partial<Answer>> => {
  switch (command) {
    case 'create':
      return { job: await create(tags ? { tags } : {}) }
    case 'claim':
      await claim(job)
      return {}
    case 'progress':
      await progress(job, value)
      return {}
    case 'log':
      await log(job, line)
      return {}
    case 'complete':
      await complete(job, result)
      return {}
    case 'trim':
      await trim(job)
      return {}
    case 'keep':
      await keep(job)
      return {}
    case 'lose':
      await lose(job)
      return {}
    case 'outage':
      await outage(ms)
      return {}
    case 'revoke':
      await revoke(token)
      return {}
    default:
      return { unsupported: true }
  }
}

for await (const text of createInterface({ input: process.stdin })) {
  const told = JSON.parse(text) as Told
  act(told)
    .catch((error: Error) => ({ error: error.message }))
    .then((answer) => process.stdout.write(`${JSON.stringify({ id: told.id, ...answer })}\n`))
}
await driver.close()
