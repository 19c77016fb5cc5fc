// The backend: takes audio, enqueues jobs, serves the page. What happens to a job the page hears from the gateway.
import { randomBytes } from 'node:crypto'
import { createReadStream, createWriteStream } from 'node:fs'
import { readFile, realpath, rm } from 'node:fs/promises'
import { basename, join, sep } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { fileURLToPath } from 'node:url'
import multipart from '@fastify/multipart'
import { commonConfig, createLogger, loadConfig, runService, tellFinding } from '@jobs/service'
import { connectJobs, isStateError, type JobDefinition } from '@jobs/state'
import Fastify, { type FastifyReply } from 'fastify'
import { z } from 'zod'
import { digest, transcribe } from './jobs.ts'
import { samplesIn } from './samples.ts'
import { readWav, WavError } from './wav.ts'

const UPLOAD_BYTES = 50 * 1024 * 1024
const PAGE = fileURLToPath(new URL('../public/', import.meta.url))
const ASSETS = {
  '/': ['index.html', 'text/html'],
  '/app.js': ['app.js', 'text/javascript'],
  '/style.css': ['style.css', 'text/css'],
  '/icon.svg': ['icon.svg', 'image/svg+xml'],
} as const

const Config = z.object({
  ...commonConfig,
  BACKEND_PORT: z.coerce.number().int().min(0).max(65_535).default(8_000),
  /** The gateway's port, for the page. */
  GATEWAY_PORT: z.coerce.number().int(),
  DATA_DIR: z.string(),
  /** Recordings that the first button transcribes. */
  SAMPLES_DIR: z.string(),
  WORKLOAD: z.enum(['transcribe', 'digest']).default('transcribe'),
})

await runService('backend', async () => {
  const config = loadConfig(Config, process.env)
  const log = createLogger('backend', config.LOG_LEVEL)
  const jobs = await connectJobs({
    url: config.REDIS_URL,
    namespace: config.JOBS_NAMESPACE,
    partitions: config.JOBS_PARTITIONS,
    allowUnsafeRedis: config.JOBS_ALLOW_UNSAFE_REDIS,
    onFinding: tellFinding(log),
  })
  const definition: JobDefinition<{ file: string; title: string }> =
    config.WORKLOAD === 'transcribe' ? transcribe : digest
  const app = Fastify({ logger: false, bodyLimit: 65_536 })
  await app.register(multipart, { limits: { fileSize: UPLOAD_BYTES, files: 1 } })

  const gateway = `ws://127.0.0.1:${config.GATEWAY_PORT}/v1/ws`
  app.addHook('onRequest', async (request, reply) => {
    // The gateway is on loopback, so the page is, too; both names of it are.
    const connect = `connect-src 'self' ${gateway.replace('/v1/ws', '')} ws://localhost:${config.GATEWAY_PORT}`
    reply.header(
      'content-security-policy',
      `default-src 'self'; ${connect}; base-uri 'none'; frame-ancestors 'none'`,
    )
    reply.header('x-content-type-options', 'nosniff')
    const { origin } = request.headers
    // Another site's page must not steer this one's jobs.
    if (request.method !== 'GET' && origin && new URL(origin).host !== request.headers.host)
      return fail(reply, 403, 'FORBIDDEN', 'This request comes from another site.')
  })

  app.setErrorHandler((error: Error & { statusCode?: number; code?: string }, _request, reply) => {
    if (error instanceof WavError) return fail(reply, 415, error.code, error.message)
    if (isStateError(error, 'INVALID_JOB_ID', 'INVALID_PAYLOAD', 'TOO_LARGE'))
      return fail(reply, 400, error.code, error.message)
    if (isStateError(error)) return fail(reply, 503, error.code, error.message)
    const status = error.statusCode ?? 500
    if (status >= 500) log.error({ err: error.message }, 'a request failed')
    return fail(
      reply,
      status,
      error.code ?? 'INTERNAL',
      status >= 500 ? 'The backend failed at this.' : error.message,
    )
  })

  const enqueue = async (file: string, title: string) => {
    if (config.WORKLOAD === 'transcribe') readWav(await readFile(file))
    return jobs.enqueue(definition, { file, title }, { maxCrashes: 10 })
  }

  for (const [path, [file, type]] of Object.entries(ASSETS))
    app.get(path, (_request, reply) =>
      reply.type(`${type}; charset=utf-8`).send(createReadStream(join(PAGE, file))),
    )

  app.get('/config', () => ({ gatewayPort: config.GATEWAY_PORT, workload: config.WORKLOAD }))

  app.get('/jobs', async () => {
    const states = ['QUEUED', 'PROCESSING', 'SCHEDULED', 'COMPLETED', 'FAILED', 'CANCELLED'] as const
    const pages = await Promise.all(states.map((state) => jobs.list({ state, limit: 50 })))
    const found = pages.flatMap((page) => page.jobs).sort((a, b) => a.createdAt - b.createdAt)
    const titles = await Promise.all(found.map(({ id }) => jobs.payload(id)))
    return {
      jobs: found.map(({ id }, i) => ({ id, title: (titles[i] as { title?: string } | null)?.title ?? id })),
    }
  })

  app.post('/samples', async (_request, reply) => {
    const enqueued = []
    for (const { file, title } of await samplesIn(config.SAMPLES_DIR, config.DATA_DIR))
      enqueued.push({ id: (await enqueue(file, title)).id, title })
    return reply.code(202).send({ jobs: enqueued })
  })

  app.post('/jobs', async (request, reply) => {
    if (!request.isMultipart()) {
      const body = z.object({ path: z.string().max(4_096) }).safeParse(request.body)
      if (!body.success)
        return fail(reply, 400, 'BAD_REQUEST', 'Send a file as multipart form data, or {"path": …}.')
      const file = await allowedPath(body.data.path, [config.SAMPLES_DIR, config.DATA_DIR])
      if (!file)
        return fail(reply, 404, 'UNKNOWN_FILE', 'There is no such file among the recordings and uploads.')
      const title = basename(file)
      return reply.code(202).send({ jobs: [{ id: (await enqueue(file, title)).id, title }] })
    }
    const part = await request.file()
    if (!part) return fail(reply, 400, 'BAD_REQUEST', 'The form holds no file.')
    const file = join(config.DATA_DIR, `upload-${randomBytes(12).toString('hex')}.wav`)
    const title =
      basename(part.filename)
        .replace(/[^\w .-]/g, '')
        .slice(0, 80) || 'recording'
    try {
      await pipeline(part.file, createWriteStream(file))
      if (part.file.truncated)
        return fail(reply, 413, 'TOO_LARGE', `A recording may have ${UPLOAD_BYTES / 1024 / 1024} MB at most.`)
      return reply.code(202).send({ jobs: [{ id: (await enqueue(file, title)).id, title }] })
    } catch (error) {
      await rm(file, { force: true })
      throw error
    }
  })

  app.post<{ Params: { id: string } }>('/jobs/:id/cancel', async (request, reply) => {
    const outcome = await jobs.cancel(request.params.id)
    if (outcome.ok) return { state: outcome.state }
    if (outcome.reason === 'unknown_job') return fail(reply, 404, 'UNKNOWN_JOB', 'There is no such job.')
    return fail(reply, 409, 'ENDED', `The job is ${outcome.state} already.`)
  })

  app.post('/worker/kill', (_request, reply) => {
    // The supervisor that started this backend owns the worker, too.
    if (!process.send) return fail(reply, 409, 'NO_SUPERVISOR', 'This backend was not started by the demo.')
    process.send('kill-worker')
    return reply.code(202).send({})
  })

  await app.listen({ host: '127.0.0.1', port: config.BACKEND_PORT })
  const address = app.server.address()
  log.info({ port: typeof address === 'object' ? address?.port : 0 }, 'listening')
  return {
    log,
    service: {
      stop: async () => {
        app.server.closeAllConnections()
        await app.close()
        await jobs.close()
      },
    },
  }
})

function fail(reply: FastifyReply, status: number, code: string, message: string) {
  return reply.code(status).send({ error: { code, message } })
}

/** The real path, if it lies under one of the folders; links that lead out are not followed. */
async function allowedPath(path: string, folders: string[]): Promise<string | undefined> {
  try {
    const real = await realpath(path)
    const roots = await Promise.all(folders.map((folder) => realpath(folder)))
    return roots.some((root) => real.startsWith(root + sep)) ? real : undefined
  } catch {
    // No such file: the same answer as for one that is not for us.
    return undefined
  }
}
