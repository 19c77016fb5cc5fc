// Processes that stand apart, so that nobody's work is counted as another's: commands go in, answers come out, one at a
// time. What a process costs is read from the system, in the same way for everybody.
import { type ChildProcess, fork, type Serializable } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

export interface Remote {
  readonly pid: number
  call<T>(command: string, args?: object): Promise<T>
  kill(): Promise<void>
  stop(): Promise<void>
}

const LOST = 'ended before it answered'

/** Starts a file of the bench as a process. */
export const startRemote = (file: URL, args: string[] = []): Remote => {
  const child: ChildProcess = fork(fileURLToPath(file), args, {
    execArgv: ['--conditions=@jobs/source'],
    serialization: 'advanced',
  })
  const gone = new Promise<void>((resolve) => child.once('exit', () => resolve()))
  return {
    pid: child.pid as number,
    call: <T>(command: string, args: object = {}) =>
      new Promise<T>((resolve, reject) => {
        const lost = () => reject(new Error(`${fileURLToPath(file)} ${LOST}`))
        child.once('exit', lost)
        child.once('message', (answer) => {
          child.off('exit', lost)
          resolve(answer as T)
        })
        child.send({ command, args } as Serializable)
      }),
    kill: () => {
      child.kill('SIGKILL')
      return gone
    },
    stop: async () => {
      if (child.connected) child.disconnect()
      const late = setTimeout(() => child.kill('SIGKILL'), 5_000)
      await gone
      clearTimeout(late)
    },
  }
}

// biome-ignore lint/suspicious/noExplicitAny: each command has its own arguments; load.ts has their types.
type Handler = (args: any) => Promise<unknown> | unknown

/** Answers the commands of the process that started this one, until it lets go. */
export const serveRemote = (handlers: Record<string, Handler>): void => {
  process.on('message', async ({ command, args }: { command: string; args: object }) => {
    process.send?.((await handlers[command]?.(args)) ?? {})
  })
  process.on('disconnect', () => process.exit(0))
}

/** Clock ticks a second in /proc: 100 on every Linux that Node runs on. */
const TICKS = 100

/** CPU so far in microseconds, helper threads included. */
export const cpuMicros = (pid: number): number => {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  return ((Number(fields[11]) + Number(fields[12])) / TICKS) * 1e6
}

/** Resident bytes. */
export const residentBytes = (pid: number): number =>
  Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) * 1_024
