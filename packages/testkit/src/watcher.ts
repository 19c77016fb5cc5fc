// A stranger's client: a bare WebSocket that keeps every message in order.
import { WebSocket } from 'ws'

// biome-ignore lint/suspicious/noExplicitAny: a stranger's client knows no types; tests look into messages freely.
export type Message = Record<string, any> & { type: string }

export interface Watcher {
  readonly messages: Message[]
  readonly closed: Promise<{ code: number; reason: string }>
  readonly socket: WebSocket
  /** The next message not yet taken that fits; those before it are passed over. */
  next(fits?: string | ((message: Message) => boolean), timeoutMs?: number): Promise<Message>
  send(message: unknown): void
  /** Cuts the connection without a word. */
  terminate(): void
}

export const openWatcher = async (
  url: string,
  protocols: string[] = ['jobs.v1.json'],
  headers: Record<string, string> = {},
): Promise<Watcher> => {
  const socket = new WebSocket(url, protocols, { perMessageDeflate: false, headers })
  const messages: Message[] = []
  let taken = 0
  let wake: () => void = () => undefined
  let ended = false
  socket.on('message', (data) => {
    const frame = JSON.parse(data.toString()) as Message | Message[]
    messages.push(...(Array.isArray(frame) ? frame : [frame]))
    wake()
  })
  const closed = new Promise<{ code: number; reason: string }>((resolve) => {
    socket.on('close', (code, reason) => {
      ended = true
      wake()
      resolve({ code, reason: reason.toString() })
    })
  })
  await new Promise<void>((resolve, reject) => {
    socket.once('open', resolve)
    socket.once('error', reject)
  })
  // A cut connection is what tests are about; `closed` tells of it.
  socket.on('error', () => undefined)
  return {
    messages,
    closed,
    socket,
    next: (fits = () => true, timeoutMs = 20_000) => {
      const test = typeof fits === 'string' ? (message: Message) => message.type === fits : fits
      return new Promise((resolve, reject) => {
        const fail = (why: string) =>
          reject(new Error(`${why}; the last messages: ${JSON.stringify(messages.slice(-5))}`))
        const timer = setTimeout(() => {
          wake = () => undefined
          fail(`no such message within ${timeoutMs} ms`)
        }, timeoutMs)
        const look = () => {
          while (taken < messages.length) {
            const message = messages[taken++] as Message
            if (!test(message)) continue
            wake = () => undefined
            clearTimeout(timer)
            resolve(message)
            return
          }
          if (!ended) return
          clearTimeout(timer)
          fail('the connection closed first')
        }
        wake = look
        look()
      })
    },
    send: (message) => socket.send(typeof message === 'string' ? message : JSON.stringify(message)),
    terminate: () => socket.terminate(),
  }
}
