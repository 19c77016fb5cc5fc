// The two kinds of job of this example, and what they report.
import { defineJob } from '@jobs/state'
import { z } from 'zod'

/** Speech to text. Each utterance's text comes as a log line; progress counts seconds of audio. */
export const transcribe = defineJob({
  name: 'transcribe',
  payload: z.object({ file: z.string(), title: z.string() }),
  progress: z.object({ done: z.number(), total: z.number(), unit: z.literal('s'), words: z.number() }),
  result: z.object({ title: z.string(), text: z.string(), words: z.number(), seconds: z.number() }),
})

/** Where PocketSphinx can't be had: gzip and SHA-256 of a real file. Progress counts bytes. */
export const digest = defineJob({
  name: 'digest',
  payload: z.object({ file: z.string(), title: z.string() }),
  progress: z.object({ done: z.number(), total: z.number(), unit: z.literal('bytes') }),
  result: z.object({
    title: z.string(),
    text: z.string(),
    sha256: z.string(),
    bytes: z.number(),
    gzipBytes: z.number(),
  }),
})
