// Real processes, to be killed with real signals. What a test started is gone when the test process is.
import { type ChildProcess, spawn } from 'node:child_process'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { workspaceRoot } from '@jobs/provision'

export interface Exit {
  code: number | null
  signal: NodeJS.Signals | null
}

export interface TestProcess {
  readonly pid: number
  /** Lines of stdout and of stderr so far. */
  readonly stdout: string[]
  readonly stderr: string[]
  readonly exited: Promise<Exit>
  /** The first line of stdout, past or to come, that fits. Fails when the process ends first. */
  line(fits: (line: string) => boolean, timeoutMs?: number): Promise<string>
  write(text: string): void
  end(): void
  kill(signal: NodeJS.Signals): Promise<Exit | undefined>
}

/** Starting is most of what a process costs here. */
const COMPILED = join(workspaceRoot(), '.cache/compiled')

const started = new Set<ChildProcess>()
process.on('exit', () => {
  for (const child of started) child.kill('SIGKILL')
})

/** Arguments of Node that run a TypeScript file of the workspace from source. */
export const fromSource = (file: string): string[] => [
  '--conditions=@jobs/source',
  join(workspaceRoot(), file),
]

export const startProcess = (
  command: string,
  args: string[],
  { env = {}, cwd = workspaceRoot() }: { env?: Record<string, string>; cwd?: string } = {},
): TestProcess => {
  const child = spawn(command, args, {
    cwd,
    env: { ...process.env, NODE_COMPILE_CACHE: COMPILED, ...env },
    stdio: ['pipe', 'pipe', 'pipe'],
  })
  started.add(child)
  const stdout: string[] = []
  const stderr: string[] = []
  const wakes = new Set<() => void>()
  let ended = false
  const keep = (lines: string[]) => (line: string) => {
    lines.push(line)
    for (const wake of wakes) wake()
  }
  createInterface({ input: child.stdout }).on('line', keep(stdout))
  createInterface({ input: child.stderr }).on('line', keep(stderr))
  const exited = new Promise<Exit>((resolve, reject) => {
    child.once('error', reject)
    child.once('close', (code, signal) => {
      ended = true
      started.delete(child)
      for (const wake of wakes) wake()
      resolve({ code, signal })
    })
  })
  exited.catch(() => undefined)
  return {
    pid: child.pid as number,
    stdout,
    stderr,
    exited,
    line: (fits, timeoutMs = 30_000) =>
      new Promise((resolve, reject) => {
        let next = 0
        const done = (finish: () => void) => {
          wakes.delete(look)
          clearTimeout(timer)
          finish()
        }
        const fail = (why: string) =>
          done(() => reject(new Error(`${why}\n${[...stdout, ...stderr].slice(-30).join('\n')}`)))
        const look = () => {
          for (; next < stdout.length; next++) {
            const line = stdout[next] as string
            if (fits(line)) return done(() => resolve(line))
          }
          if (ended) fail('The process ended before the line came:')
        }
        const timer = setTimeout(() => fail(`The line did not come within ${timeoutMs} ms:`), timeoutMs)
        wakes.add(look)
        look()
      }),
    write: (text) => child.stdin.write(text),
    end: () => child.stdin.end(),
    kill: (signal) => {
      child.kill(signal)
      return signal === 'SIGSTOP' || signal === 'SIGCONT' ? Promise.resolve(undefined) : exited
    },
  }
}

export interface TestApp extends TestProcess {
  /** The real ports of its "listening" line. */
  readonly port: number
  readonly opsPort: number
}

/** Starts a process of ours from source and waits until it says that it listens. */
export const startApp = async (main: string, env: Record<string, string>): Promise<TestApp> => {
  const started = startProcess(process.execPath, fromSource(main), { env })
  const line = await started.line((text) => text.includes('"msg":"listening"'))
  const { port = 0, opsPort = 0 } = JSON.parse(line) as { port?: number; opsPort?: number }
  return Object.assign(started, { port, opsPort })
}
