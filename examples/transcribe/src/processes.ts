// The demo's child processes: started from source, watched, stopped in order.
import { type ChildProcess, spawn } from 'node:child_process'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { workspaceRoot } from '@jobs/provision'

export interface Child {
  readonly name: string
  readonly pid: number
  /** The fields of its first log line with this message. */
  said(message: string): Promise<Record<string, unknown>>
  onMessage(listener: (message: unknown) => void): void
  /** Called when it ends without being told to. */
  onLoss(listener: (why: string) => void): void
  kill(): void
  stop(): Promise<void>
}

const STOP_MS = 8_000
const alive = new Set<ChildProcess>()
process.on('exit', () => {
  for (const child of alive) child.kill('SIGKILL')
})

export const startChild = (name: string, main: string, env: Record<string, string>): Child => {
  const child = spawn(
    process.execPath,
    ['--conditions=@jobs/source', '--import', import.meta.resolve('tsx'), join(workspaceRoot(), main)],
    // A group of its own: Ctrl-C reaches the demo alone, which then stops its children in order.
    { env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'pipe', 'ipc'], detached: true },
  )
  alive.add(child)
  const lines: string[] = []
  const heard = new Set<(line: string) => void>()
  let toldToStop = false
  let lost: (why: string) => void = () => undefined
  let ended: string | undefined
  for (const stream of [child.stdout, child.stderr])
    if (stream)
      createInterface({ input: stream }).on('line', (line) => {
        lines.push(line)
        if (lines.length > 50) lines.shift()
        for (const listener of heard) listener(line)
      })
  const exited = new Promise<void>((resolve) => {
    child.once('close', (code, signal) => {
      alive.delete(child)
      ended = `${name} ended (${signal ?? `exit code ${code}`}). Its last lines:\n${lines.slice(-5).join('\n')}`
      for (const listener of heard) listener('')
      if (!toldToStop) lost(ended)
      resolve()
    })
  })
  return {
    name,
    pid: child.pid ?? 0,
    said: (message) =>
      new Promise((resolve, reject) => {
        const look = (line: string) => {
          if (ended) return reject(new Error(ended))
          if (!line.includes(`"msg":"${message}"`)) return
          heard.delete(look)
          resolve(JSON.parse(line) as Record<string, unknown>)
        }
        heard.add(look)
        for (const line of lines) look(line)
      }),
    onMessage: (listener) => child.on('message', listener),
    onLoss: (listener) => {
      lost = listener
    },
    kill: () => child.kill('SIGKILL'),
    stop: async () => {
      toldToStop = true
      child.kill('SIGTERM')
      const late = setTimeout(() => child.kill('SIGKILL'), STOP_MS)
      await exited
      clearTimeout(late)
    },
  }
}
