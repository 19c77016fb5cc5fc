// A TCP proxy in front of Redis that knows where a command ends: it cuts a connection at the n-th command, before the
// server gets it or after it has answered, or in the middle of one, at a byte. Or it freezes everything at the n-th, so
// that who is killed a moment later has died exactly there.
import type { AddressInfo } from 'node:net'
import { connect, createServer, type Socket } from 'node:net'

export type CommandPoint = number | ((command: string[]) => boolean)

export interface CommandProxy {
  readonly port: number
  /** Every command so far, over all connections; arguments are cut to 64 bytes. */
  readonly commands: readonly string[][]
  /**
   * At the n-th command from now on, or the first that fits: cuts its connection `before` the server gets it, or `after` the server has answered
   * (no byte of the answer gets through). Resolves when it has happened, with the command.
   */
  cutAt(point: CommandPoint, when: 'before' | 'after'): Promise<string[]>
  /** The same, but no connection ends: from that moment on no byte gets through, on any of them, in any direction. */
  freezeAt(point: CommandPoint, when: 'before' | 'after'): Promise<string[]>
  /** Cuts the connection that carries the given byte from now on, counted over all of them, in that direction. */
  cutInside(byte: number, direction: 'requests' | 'replies'): Promise<void>
  close(): Promise<void>
}

interface Trap {
  /** Whether it springs at this command. */
  at: (command: string[]) => boolean
  freezes: boolean
  when: 'before' | 'after'
  sprung: (command: string[]) => void
}

interface Cut {
  left: number
  direction: 'requests' | 'replies'
  done: () => void
}

export const startCommandProxy = async (targetPort: number): Promise<CommandProxy> => {
  const sockets = new Set<Socket>()
  const commands: string[][] = []
  let trap: Trap | undefined
  let cut: Cut | undefined
  let frozen = false

  /** How much of the chunk gets through, and whether the connection ends after it. */
  const allowed = (chunk: Buffer, direction: Cut['direction']): [part: Buffer, ends: boolean] => {
    if (cut?.direction !== direction) return [chunk, false]
    cut.left -= chunk.length
    if (cut.left > 0) return [chunk, false]
    const { left, done } = cut
    cut = undefined
    done()
    return [chunk.subarray(0, chunk.length + left), true]
  }

  const server = createServer((near) => {
    const far = connect(targetPort, '127.0.0.1')
    let held: Buffer = Buffer.alloc(0)
    let deaf = false
    // The server reads what it was sent before it sees the end.
    const end = () => {
      near.destroy()
      far.end()
    }
    for (const socket of [near, far]) {
      sockets.add(socket)
      socket.setNoDelay(true)
      socket.on('error', end)
      socket.on('close', () => {
        sockets.delete(socket)
        end()
      })
    }

    /** Sends one command on; false when it was the one to cut at. */
    const pass = (args: string[], raw: Buffer): boolean => {
      commands.push(args)
      if (!trap?.at(args)) {
        far.write(raw)
        return true
      }
      const { when, freezes, sprung } = trap
      trap = undefined
      const spring = () => {
        if (freezes) frozen = true
        else end()
        sprung(args)
      }
      if (when === 'before') {
        spring()
      } else {
        deaf = true
        far.once('data', spring)
        far.write(raw)
      }
      return false
    }

    near.on('data', (chunk) => {
      if (deaf || frozen) return
      const [part, ends] = allowed(chunk, 'requests')
      held = Buffer.concat([held, part])
      for (let next = commandIn(held); next; next = commandIn(held)) {
        const raw = held.subarray(0, next.end)
        held = held.subarray(next.end)
        if (!pass(next.args, raw)) return
      }
      if (!ends) return
      far.write(held)
      end()
    })
    far.on('data', (chunk) => {
      if (deaf || frozen) return
      const [part, ends] = allowed(chunk, 'replies')
      near.write(part)
      if (ends) end()
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))

  const set = (point: CommandPoint, when: Trap['when'], freezes: boolean) =>
    new Promise<string[]>((sprung) => {
      let left = point
      const at = typeof left === 'number' ? () => --(left as number) === 0 : left
      trap = { at, when, freezes, sprung }
    })

  return {
    port: (server.address() as AddressInfo).port,
    commands,
    cutAt: (point, when) => set(point, when, false),
    freezeAt: (point, when) => set(point, when, true),
    cutInside: (byte, direction) =>
      new Promise((done) => {
        cut = { left: byte, direction, done }
      }),
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        for (const socket of sockets) socket.destroy()
      }),
  }
}

/** The first whole command of a client's bytes: `*2\r\n$3\r\nGET\r\n$1\r\nk\r\n`. */
const commandIn = (bytes: Buffer): { args: string[]; end: number } | null => {
  let at = 0
  const number = (): number => {
    const end = bytes.indexOf('\r\n', at)
    if (end < 0) return -1
    const value = Number(bytes.toString('latin1', at + 1, end))
    at = end + 2
    return value
  }
  const count = number()
  const args: string[] = []
  while (args.length < count) {
    const size = number()
    if (size < 0 || at + size + 2 > bytes.length) return null
    args.push(bytes.toString('latin1', at, at + Math.min(size, 64)))
    at += size + 2
  }
  return count < 0 ? null : { args, end: at }
}
