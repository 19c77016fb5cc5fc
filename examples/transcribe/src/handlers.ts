// What a worker does for each kind of job.
import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { readFile, stat } from 'node:fs/promises'
import { createGzip } from 'node:zlib'
import type { Pocketsphinx } from '@jobs/provision'
import type { Handler, JobDefinition } from '@jobs/state'
import type { digest, transcribe } from './jobs.ts'
import { recognize } from './recognize.ts'
import { readWav, SAMPLE_RATE, utterances } from './wav.ts'

type HandlerOf<D> = D extends JobDefinition<infer P, infer G, infer R> ? Handler<P, G, R> : never

const seconds = (samples: number) => Math.round((samples / SAMPLE_RATE) * 10) / 10
const wordsOf = (text: string) => (text === '' ? 0 : text.split(' ').length)

export const transcriber =
  (sphinx: Pocketsphinx): HandlerOf<typeof transcribe> =>
  async ({ payload, progress, log, signal }) => {
    const samples = readWav(await readFile(payload.file))
    const total = seconds(samples.length)
    const parts: string[] = []
    let words = 0
    progress({ done: 0, total, unit: 's', words })
    for (const { start, end } of utterances(samples)) {
      const text = await recognize(sphinx, samples.subarray(start, end), signal)
      if (text !== '') {
        parts.push(text)
        log(text)
      }
      words += wordsOf(text)
      progress({ done: seconds(end), total, unit: 's', words })
    }
    return { title: payload.title, text: parts.join(' '), words, seconds: total }
  }

export const digester: HandlerOf<typeof digest> = async ({ payload, progress, log, signal }) => {
  const total = (await stat(payload.file)).size
  const hash = createHash('sha256')
  const gzip = createGzip({ level: 9 })
  let done = 0
  let gzipBytes = 0
  const zipped = (async () => {
    for await (const chunk of gzip) gzipBytes += (chunk as Buffer).length
  })()
  for await (const chunk of createReadStream(payload.file, { signal })) {
    hash.update(chunk)
    if (!gzip.write(chunk)) await new Promise((resolve) => gzip.once('drain', resolve))
    done += (chunk as Buffer).length
    progress({ done, total, unit: 'bytes' })
  }
  gzip.end()
  await zipped
  const sha256 = hash.digest('hex')
  log(`SHA-256 ${sha256}`)
  return { title: payload.title, text: `SHA-256 ${sha256}`, sha256, bytes: done, gzipBytes }
}
