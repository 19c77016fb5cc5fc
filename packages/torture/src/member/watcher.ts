// A watcher process of the fleet: follows jobs over its own sockets, from gateway to gateway, by nothing but the protocol,
// and holds every message to what is promised. What it was told of a job goes to its notes, to be compared with the stream.
import { createInterface } from 'node:readline'
import { ServerMessage } from '@jobs/protocol'
import { isTerminal } from '@jobs/state/schema'
import { WebSocket } from 'ws'
import { randomOf } from '../../../state/test/random.ts'
import { note } from './notes.ts'

const { NAME = '', SEED = '0', GATEWAYS = '[]' } = process.env
const ports = JSON.parse(GATEWAYS) as number[]
const SOCKETS = 3
/** Milliseconds after which a subscribe without any answer is given up with its socket: that is what a client does. */
const SILENT_MS = 5_000
/** Jobs one socket follows; the gateway grants 128. */
const MAX_JOBS = 100
const random = randomOf(Number(SEED))

type Events = Extract<ServerMessage, { type: 'events' }>

/** What one job's watcher was told, in order. */
interface Watch {
  job: string
  detail: 'all' | 'state' | 'latest'
  cursor: string | undefined
  seq: number
  state: string
  told: ({ snapshot: object } | { events: Events['items']; from: number; to: number } | { reset: string })[]
  /** What may come next on this connection. */
  expects: 'anything' | 'snapshot'
  completed: string | undefined
}

const open = new Map<string, Watch>()
let violations = 0
const violation = (job: string, says: string): void => {
  if (++violations > 50) return
  note({ does: 'violation', job, says })
  console.log(`violation ${job}: ${says}`)
}

const apply = (watch: Watch, message: ServerMessage): 'ended' | 'again' | undefined => {
  const { job } = watch
  switch (message.type) {
    case 'snapshot': {
      if (watch.cursor !== undefined && watch.expects !== 'snapshot')
        violation(job, `a snapshot at ${message.cursor} came unasked after ${watch.cursor}`)
      const { type: _, id: __, ...snapshot } = message
      watch.told.push({ snapshot })
      watch.cursor = message.cursor
      watch.seq = message.seq
      watch.state = message.state
      watch.expects = 'anything'
      return
    }
    case 'events': {
      const { from, to, items, cursor, conflated = 0 } = message
      if (watch.expects === 'snapshot') violation(job, 'events came after a reset, before its snapshot')
      if (from !== watch.seq + 1) violation(job, `events from ${from} after ${watch.seq}`)
      let last = from - 1
      for (const { seq } of items) {
        if (seq <= last || seq > to) violation(job, `event ${seq} after ${last} in ${from}..${to}`)
        last = seq
      }
      if (items.length + conflated !== to - from + 1)
        violation(job, `${items.length} items for ${from}..${to}`)
      if (!cursor.startsWith(`${to}-`)) violation(job, `the cursor ${cursor} of events to ${to}`)
      watch.told.push({ events: items, from, to })
      for (const item of items) if (item.type === 'state') watch.state = item.state
      watch.seq = to
      watch.cursor = cursor
      return
    }
    case 'reset':
      watch.told.push({ reset: message.reason })
      watch.expects = 'snapshot'
      return
    case 'complete':
      if (watch.state !== message.state || !isTerminal(message.state))
        violation(job, `complete as ${message.state}, after events that lead to ${watch.state}`)
      watch.completed = message.state
      return 'ended'
    case 'unsubscribed':
      watch.told.push({ reset: message.code })
      return message.code === 'not_found' ? 'ended' : undefined
    case 'error':
      if (message.code === 'not_found') {
        watch.told.push({ reset: 'not_found' })
        return 'ended'
      }
      if (message.retryable) return 'again'
      violation(job, `the error ${message.code}: ${message.message}`)
  }
  return undefined
}

class Line {
  private socket: WebSocket | undefined
  private readonly watches = new Map<string, Watch>()
  /** Subscribes without an answer, and since when. */
  private readonly asked = new Map<string, number>()
  private failures = 0

  get load(): number {
    return this.watches.size
  }

  add(watch: Watch): void {
    this.watches.set(watch.job, watch)
    if (this.socket?.readyState === WebSocket.OPEN) this.subscribe(watch)
  }

  connect(): void {
    const port = random.pick(ports)
    const socket = new WebSocket(`ws://127.0.0.1:${port}/v1/ws`, ['jobs.v1.json'], {
      perMessageDeflate: false,
      handshakeTimeout: 3_000,
    })
    this.socket = socket
    socket.on('open', () => {
      this.failures = 0
      this.asked.clear()
      for (const watch of this.watches.values()) this.subscribe(watch)
    })
    socket.on('message', (data) => {
      if (socket !== this.socket) return
      const frame = JSON.parse(data.toString()) as unknown
      for (const raw of Array.isArray(frame) ? frame : [frame]) this.take(raw)
    })
    socket.on('error', () => undefined)
    socket.on('close', () => {
      if (socket !== this.socket) return
      this.socket = undefined
      setTimeout(() => this.connect(), random.below(Math.min(2_000, 100 * 2 ** this.failures++)))
    })
  }

  /** A half-open connection says nothing for ever. */
  check(): void {
    const now = performance.now()
    for (const at of this.asked.values())
      if (now - at > SILENT_MS) {
        this.socket?.terminate()
        return
      }
    // Something has to be asked for, to be missed.
    if (this.watches.size > 0 && this.socket?.readyState === WebSocket.OPEN && !this.asked.has('ping')) {
      this.asked.set('ping', now)
      this.socket.send('{"type":"ping","id":"alive"}')
    }
  }

  private subscribe({ job, cursor, detail }: Watch): void {
    this.asked.set(job, performance.now())
    this.socket?.send(JSON.stringify({ type: 'subscribe', job, detail, ...(cursor ? { cursor } : {}) }))
  }

  private take(raw: unknown): void {
    const parsed = ServerMessage.safeParse(raw)
    if (!parsed.success) {
      violation(
        '-',
        `a message of no known form: ${JSON.stringify(raw).slice(0, 300)} ${parsed.error.message.slice(0, 300)}`,
      )
      return
    }
    const message = parsed.data
    // As they came, with all that a later release may add.
    if (message.type === 'events') message.items = (raw as Events).items
    if (message.type === 'pong') this.asked.delete('ping')
    if (message.type === 'error' && message.job === undefined) {
      // Which of the subscribes it was is not told: all without an answer are asked for again.
      if (message.code !== 'rate_limited') violation('-', `the error ${message.code}: ${message.message}`)
      for (const job of this.asked.keys()) this.later(job)
      return
    }
    const job = 'job' in message ? message.job : undefined
    const watch = job === undefined ? undefined : this.watches.get(job)
    if (job === undefined) return
    this.asked.delete(job)
    if (!watch) {
      violation(job, `${message.type} came after the subscription was over`)
      return
    }
    const then = apply(watch, message)
    if (then === 'again') this.later(job)
    if (then !== 'ended') return
    this.watches.delete(job)
    open.delete(job)
    const { detail, told, completed } = watch
    note({ does: 'told', job, detail, completed: completed ?? null, told })
  }

  private later(job: string): void {
    this.asked.delete(job)
    const { socket } = this
    setTimeout(() => {
      const watch = this.watches.get(job)
      if (watch && socket === this.socket && socket?.readyState === WebSocket.OPEN) this.subscribe(watch)
    }, 200 + random.below(800))
  }
}

const lines = Array.from({ length: SOCKETS }, () => new Line())
for (const line of lines) line.connect()
setInterval(() => {
  for (const line of lines) line.check()
}, 1_000)

createInterface({ input: process.stdin }).on('line', (line) => {
  const [word, argument = ''] = line.split(' ')
  if (word === 'watch') {
    const fewest = lines.reduce((a, b) => (b.load < a.load ? b : a))
    if (fewest.load >= MAX_JOBS) return
    const watch: Watch = {
      job: argument,
      detail: random.chance(0.8) ? 'all' : random.pick(['state', 'latest'] as const),
      cursor: random.chance(0.3) ? '0-0' : undefined,
      seq: 0,
      state: '',
      told: [],
      expects: 'anything',
      completed: undefined,
    }
    open.set(argument, watch)
    fewest.add(watch)
  }
  if (word === 'open')
    console.log(
      `open ${argument} ${[...open.values()].map(({ job, seq, state }) => `${job}@${seq}${state}`).join(' ')}`,
    )
})
process.on('SIGTERM', () => process.exit(0))
console.log(`ready ${NAME}`)
