// One utterance through PocketSphinx. Its audio goes in by a pipe: when this process dies, the pipe closes and the
// recogniser ends with it.
import { spawn } from 'node:child_process'
import { join } from 'node:path'
import type { Pocketsphinx } from '@jobs/provision'
import { writeWav } from './wav.ts'

/** @throws Error when PocketSphinx fails; the signal's reason when it fires */
export const recognize = async (
  sphinx: Pocketsphinx,
  samples: Int16Array,
  signal: AbortSignal,
): Promise<string> => {
  signal.throwIfAborted()
  const { program, env, modelDir } = sphinx
  const args = [
    program,
    ...['-infile', '/dev/stdin'],
    ...['-hmm', join(modelDir, 'en-us')],
    ...['-lm', join(modelDir, 'en-us.lm.bin')],
    ...['-dict', join(modelDir, 'cmudict-en-us.dict')],
    ...['-logfn', '/dev/null'],
  ]
  // Node's own pipes are sockets, which /dev/stdin can't open again: cat makes a real pipe of them.
  const child = spawn('/bin/sh', ['-c', 'cat | "$@"', 'recognize', ...args], {
    env: { ...process.env, ...env },
    stdio: ['pipe', 'pipe', 'pipe'],
    detached: true,
  })
  // The whole group: the shell, cat and the recogniser.
  const stop = () => {
    if (child.pid !== undefined) process.kill(-child.pid, 'SIGKILL')
  }
  signal.addEventListener('abort', stop, { once: true })
  try {
    let text = ''
    let complaint = ''
    child.stdout.on('data', (chunk) => {
      text += chunk
    })
    child.stderr.on('data', (chunk) => {
      complaint = (complaint + chunk).slice(-500)
    })
    // It may end before it has read everything; its exit code tells.
    child.stdin.on('error', () => undefined)
    child.stdin.end(writeWav(samples))
    const code = await new Promise<number | null>((resolve, reject) => {
      child.once('error', reject)
      child.once('close', resolve)
    })
    signal.throwIfAborted()
    if (code !== 0) throw new Error(`PocketSphinx ended with ${code}: ${complaint.trim() || 'no message'}`)
    return text.split('\n').join(' ').replace(/\s+/g, ' ').trim()
  } finally {
    signal.removeEventListener('abort', stop)
  }
}
