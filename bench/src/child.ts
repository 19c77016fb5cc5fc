// A measured client is a process of its own, so that neither peer inherits the other's heap, timers or compiled code.
import { spawn } from 'node:child_process'
import { fileURLToPath } from 'node:url'

/** Runs a file of the bench in a process of its own; its last line of stdout is the JSON of the answer. */
export const runChild = <T>(file: URL, args: object): Promise<T> =>
  new Promise((resolve, reject) => {
    const child = spawn(
      process.execPath,
      ['--conditions=@jobs/source', fileURLToPath(file), JSON.stringify(args)],
      { stdio: ['ignore', 'pipe', 'inherit'] },
    )
    let output = ''
    child.stdout.on('data', (chunk) => {
      output += chunk
    })
    child.once('error', reject)
    child.once('close', (code) => {
      const last = output.trim().split('\n').at(-1) ?? ''
      if (code === 0 && last) resolve(JSON.parse(last) as T)
      else reject(new Error(`${fileURLToPath(file)} ${JSON.stringify(args)} ended with ${code}: ${last}`))
    })
  })
