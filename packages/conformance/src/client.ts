// A stranger's client: a bare WebSocket that holds every message against the contract as it comes. What breaks a promise is
// kept, and ends whatever waits.

import { ServerMessage } from '@jobs/protocol'
import { isTerminal, type State } from '@jobs/state/schema'
import { WebSocket } from 'ws'
import { Broken, must, short } from './outcome.ts'

// biome-ignore lint/suspicious/noExplicitAny: a stranger's client knows no types; checks look into messages freely.
export type Message = Record<string, any> & { type: string }

/** What a client knows of one subscription. */
interface Track {
  /** The last number told; undefined: a snapshot has to come first. */
  seq: number | undefined
  state: string | undefined
  live: boolean
  /** A reset was told, and its snapshot not yet. */
  reset: boolean
}

const KNOWN = new Set(ServerMessage.options.map(({ shape }) => shape.type.value as string))
const HOUSEKEEPING = new Set(['welcome', 'heartbeat', 'draining', 'expiring'])

const SETTLE = 'settle-'
const isSettled = ({ type, id }: Message) => type === 'pong' && String(id).startsWith(SETTLE)

export interface OpenOptions {
  protocols?: string[]
  token?: string | undefined
  /** Whether pings are answered. */
  pongs?: boolean
  waitMs: number
}

export class Client {
  readonly messages: Message[] = []
  readonly socket: WebSocket
  readonly closed: Promise<{ code: number; reason: string }>
  /** WebSocket pings that came. */
  pings = 0
  /** The first promise that was broken. */
  broken: Broken | undefined
  /** The code it was closed with by the gateway; undefined while open, or where this client ended it. */
  code: number | undefined
  private readonly waitMs: number
  private readonly tracks = new Map<string, Track>()
  private read = 0
  private left = false
  private wakes = new Set<() => void>()

  private constructor(socket: WebSocket, waitMs: number) {
    this.socket = socket
    this.waitMs = waitMs
    socket.on('ping', () => this.pings++)
    socket.on('message', (data, binary) => {
      if (binary) this.broken ??= new Broken('every frame is text; a binary one came')
      else this.take(data.toString())
      this.wake()
    })
    socket.on('error', () => undefined)
    this.closed = new Promise((resolve) => {
      socket.on('close', (code, reason) => {
        if (!this.left) this.code = code
        this.wake()
        resolve({ code, reason: reason.toString() })
      })
    })
  }

  static async open(
    url: string,
    { protocols = ['jobs.v1.json'], token, pongs = true, waitMs }: OpenOptions,
  ): Promise<Client> {
    const socket = new WebSocket(url, protocols, {
      perMessageDeflate: false,
      autoPong: pongs,
      handshakeTimeout: waitMs,
      ...(token ? { headers: { authorization: `Bearer ${token}` } } : {}),
    })
    const client = new Client(socket, waitMs)
    await new Promise<void>((resolve, reject) => {
      socket.once('open', resolve)
      socket.once('error', (error) =>
        reject(new Broken(`the connection is accepted; seen: ${error.message}`)),
      )
    })
    return client
  }

  private take(text: string): void {
    let frame: unknown
    try {
      frame = JSON.parse(text)
    } catch {
      this.broken ??= new Broken(`every frame is JSON; seen: ${text.slice(0, 200)}`)
      return
    }
    for (const message of [frame].flat() as Message[]) {
      // Unknown types and fields are to be ignored.
      if (message && typeof message.type === 'string' && !KNOWN.has(message.type)) continue
      const { error } = ServerMessage.safeParse(message)
      if (error) {
        const [issue] = error.issues
        this.broken ??= new Broken(
          `every message fits its schema; ${issue?.path.join('.')}: ${issue?.message}; seen: ${short(message)}`,
        )
      }
      try {
        this.follow(message)
      } catch (broken) {
        this.broken ??= broken as Broken
      }
      this.messages.push(message)
    }
  }

  /** Promises 1, 2 and 4, for each job. */
  private follow(message: Message): void {
    const { job } = message
    if (
      typeof job !== 'string' ||
      !['snapshot', 'events', 'live', 'reset', 'complete'].includes(message.type)
    ) {
      if (message.type === 'unsubscribed') this.tracks.delete(job)
      return
    }
    const track = this.tracks.get(job)
    if (!track)
      throw new Broken(`nothing comes for a job that is not watched (any more); seen: ${short(message)}`)
    switch (message.type) {
      case 'reset':
        track.reset = true
        return
      case 'snapshot':
        must(track.seq === undefined || track.reset, 'a snapshot comes first, or after a reset', message)
        Object.assign(track, { seq: message.seq, state: message.state, live: false, reset: false })
        return
      case 'events':
        must(!track.reset, 'a snapshot follows a reset at once', message)
        must(track.seq !== undefined, 'a snapshot comes before the first events', message)
        must(message.from === (track.seq as number) + 1, `events go on from ${track.seq}`, message)
        must(message.to >= message.from, 'events have a range', message)
        this.followItems(track, message)
        track.seq = message.to
        return
      case 'live':
        must(track.seq !== undefined && !track.reset, '`live` comes after the replay', message)
        must(!track.live, '`live` comes once', message)
        track.live = true
        return
      case 'complete':
        // Resumed at its last event, there is no event to tell the state.
        must(
          !track.reset && track.seq !== undefined && (track.state ?? message.state) === message.state,
          '`complete` comes after the terminal event',
          message,
        )
        must(isTerminal(message.state as State), '`complete` tells a terminal state', message)
        this.tracks.delete(job)
    }
  }

  private followItems(track: Track, message: Message): void {
    const { items, from, to, conflated = 0 } = message
    let last = from - 1
    for (const item of items) {
      must(item.seq > last && item.seq <= to, 'items are in order, once, within from..to', message)
      last = item.seq
      if (item.type === 'state') track.state = item.state
    }
    must(items.length + conflated === to - from + 1, '`items` and `conflated` account for from..to', message)
  }

  send(message: unknown): void {
    this.socket.send(typeof message === 'string' ? message : JSON.stringify(message))
  }

  /** Subscribes, and expects what has to come of it. */
  subscribe(job: string, more: { cursor?: string; detail?: string; id?: string } = {}): void {
    this.expect(job, more.cursor)
    this.send({ type: 'subscribe', job, ...more })
  }

  /** What comes for this job is an answer to something said. */
  expect(job: string, cursor?: string): void {
    if (this.tracks.has(job)) return
    const seq = cursor === undefined ? undefined : Number(cursor.split('-')[0])
    this.tracks.set(job, { seq, state: undefined, live: false, reset: false })
  }

  /** The next message but for housekeeping; fails where it is not of this type. */
  async next(type: string): Promise<Message> {
    const message = await this.find(`\`${type}\``, (m) => !HOUSEKEEPING.has(m.type) && !isSettled(m))
    must(message.type === type, `\`${type}\` comes next`, message)
    return message
  }

  /** The next message that fits; those before it are passed over. */
  async find(what: string, fits: (message: Message) => boolean, waitMs = this.waitMs): Promise<Message> {
    const found = await this.until(
      what,
      () => {
        while (this.read < this.messages.length) {
          const message = this.messages[this.read++] as Message
          if (fits(message)) return message
        }
        return undefined
      },
      waitMs,
    )
    return found
  }

  /** Waits until a look at what has come finds something. */
  async until<T>(what: string, look: () => T | undefined, waitMs = this.waitMs): Promise<T> {
    const end = performance.now() + waitMs
    for (;;) {
      if (this.broken) throw this.broken
      const found = look()
      if (found !== undefined) return found
      const leftMs = end - performance.now()
      const last = () => this.messages.slice(-3).map((message) => short(message).slice(0, 160))
      if (this.code !== undefined)
        throw new Broken(`${what} comes; seen: closed with ${this.code}, after ${last()}`)
      if (leftMs <= 0) throw new Broken(`${what} comes within ${waitMs} ms; seen last: ${last()}`)
      await new Promise<void>((resolve) => {
        const done = () => {
          clearTimeout(timer)
          this.wakes.delete(done)
          resolve()
        }
        const timer = setTimeout(done, leftMs)
        this.wakes.add(done)
      })
    }
  }

  /** Everything said so far is answered, and everything that was to come has come, when this resolves. */
  async settle(): Promise<void> {
    const id = `${SETTLE}${Math.random()}`
    this.send({ type: 'ping', id })
    await this.until('`pong`', () => this.messages.find((m) => m.type === 'pong' && m.id === id))
  }

  /** The code that the gateway closes with. */
  async end(waitMs = this.waitMs): Promise<number> {
    let timer: NodeJS.Timeout | undefined
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(new Broken(`the connection is closed within ${waitMs} ms`)), waitMs)
    })
    return Promise.race([this.closed, late])
      .then(({ code }) => code)
      .finally(() => clearTimeout(timer))
  }

  /** Cuts the connection without a word. */
  cut(): void {
    this.left = true
    this.socket.terminate()
  }

  private wake(): void {
    for (const wake of [...this.wakes]) wake()
  }
}
