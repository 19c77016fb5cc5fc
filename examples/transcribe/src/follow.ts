// Follows one job over the gateway's WebSocket, as protocol.md describes it, and keeps account of every seq.
import { WebSocket } from 'ws'

interface Item {
  seq: number
  type: string
  state?: string
  attempt?: number
  result?: { text?: string } | null
}

interface Message {
  type: string
  job?: string
  from: number
  to: number
  cursor: string
  items: Item[]
  code?: string
  message?: string
  reason?: string
}

export interface Followed {
  state: string
  text: string
  attempts: number
  events: number
  /** Every seq from 1 to the last, exactly once, in order. */
  whole: boolean
}

/** Resolves when the job has ended. Reconnects with its cursor when the connection is lost. */
export const follow = (url: string, job: string, onItem: (item: Item) => void): Promise<Followed> =>
  new Promise((resolve, reject) => {
    let cursor = '0-0'
    const seqs: number[] = []
    const last = { state: '', text: '', attempts: 0 }
    const open = () => {
      const socket = new WebSocket(url, ['jobs.v1.json'])
      let done = false
      socket.on('open', () => socket.send(JSON.stringify({ type: 'subscribe', job, cursor })))
      socket.on('message', (data) => {
        const frame = JSON.parse(data.toString()) as Message | Message[]
        for (const message of Array.isArray(frame) ? frame : [frame]) {
          if (message.type === 'events') {
            cursor = message.cursor
            for (const item of message.items) {
              seqs.push(item.seq)
              last.attempts = Math.max(last.attempts, item.attempt ?? 0)
              if (item.type === 'state') last.state = item.state ?? ''
              if (item.result) last.text = item.result.text ?? ''
              onItem(item)
            }
          } else if (message.type === 'complete') {
            done = true
            socket.close(1000)
            const whole = seqs.every((seq, i) => seq === i + 1)
            resolve({ ...last, events: seqs.length, whole })
          } else if (message.type === 'error' || message.type === 'reset') {
            done = true
            socket.close(1000)
            reject(
              new Error(`${job}: ${message.type} ${message.code ?? message.reason} ${message.message ?? ''}`),
            )
          }
        }
      })
      // 'close' follows, and reconnects.
      socket.on('error', () => undefined)
      socket.on('close', () => {
        if (!done) setTimeout(open, 100 + Math.random() * 400)
      })
    }
    open()
  })
