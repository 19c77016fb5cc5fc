// The load client: thousands of sockets that read WebSocket frames by hand, so that it costs little beside what it
// measures. It checks of every connection that each number comes once and in order.
import { connect, type Socket } from 'node:net'
import { setTimeout as pause } from 'node:timers/promises'
import { type Dial, type Dialled, micros, type PeerName, type Seen } from './load.ts'
import { serveRemote } from './rpc.ts'

const peer = process.argv[2] as PeerName

interface Watcher {
  socket: Socket
  room: string
  /** As it is written in a list of strings. */
  alsoWatches: string
  open: boolean
  /** Bytes of a frame that has not come whole. */
  rest: Buffer | undefined
  seq: number
  cursor: string
  /** Of a Socket.IO server that lets clients come back: what they come back with. */
  session: string
  live: () => void
  isLive: boolean
}

const watchers: Watcher[] = []

/** Latencies by a twentieth of a millisecond, up to two seconds. */
const SLOT_MICROS = 50
const slots = new Uint32Array(40_000)
let seen = { delivered: 0, folded: 0, wrong: 0, twice: 0, from: 0, to: 0 }
let now = 0

const measure = (text: string, at: number): number => {
  const end = text.indexOf('@', at + 1)
  const slot = Math.floor((now - Number(text.slice(at + 1, end))) / SLOT_MICROS)
  const within = Math.max(0, Math.min(slots.length - 1, slot))
  slots[within] = (slots[within] as number) + 1
  return end
}

const arrived = (count: number, folded = 0): void => {
  if (seen.delivered === 0) seen.from = now
  seen.to = now
  seen.delivered += count
  seen.folded += folded
}

const takePlain = (watcher: Watcher, text: string, head: number): void => {
  const at = text.indexOf('@')
  if (at < 0) return
  const seq = Number(text.slice(head, at))
  if (watcher.seq !== 0 && seq !== watcher.seq + 1) seen.wrong++
  if (seq <= watcher.seq) seen.twice++
  watcher.seq = Math.max(watcher.seq, seq)
  measure(text, at)
  arrived(1)
}

const send = (watcher: Watcher, text: string): void => {
  const payload = Buffer.from(text)
  // A mask of zeros is a mask.
  const head = Buffer.from([0x81, 0x80 | Math.min(payload.length, 126)])
  const length = Buffer.alloc(payload.length < 126 ? 0 : 2)
  if (length.length > 0) length.writeUInt16BE(payload.length)
  watcher.socket.write(Buffer.concat([head, length, Buffer.alloc(4), payload]))
}

const numberAt = (text: string, at: number): number => {
  let value = 0
  for (let i = at; ; i++) {
    const digit = text.charCodeAt(i) - 48
    if (digit < 0 || digit > 9) return value
    value = value * 10 + digit
  }
}

const FROM = ',"from":'
const TO = ',"to":'
const CURSOR = '"cursor":"'

/** One message of ours, or an array of them; `from` and `to` are in the head of each `events`. */
const takeOurs = (watcher: Watcher, text: string): void => {
  let at = text.indexOf(FROM)
  if (at < 0) {
    if (text.includes('"type":"welcome"')) {
      const { room, cursor, alsoWatches } = watcher
      send(watcher, `{"type":"subscribe","job":"${room}"${cursor ? `,"cursor":"${cursor}"` : ''}}`)
      if (alsoWatches) send(watcher, `{"type":"subscribe","jobs":[${alsoWatches}]}`)
    }
    const snapshot = text.indexOf('"type":"snapshot"')
    if (snapshot >= 0) {
      watcher.seq = numberAt(text, text.indexOf('"seq":', snapshot) + 6)
      keepCursor(watcher, text, snapshot)
    }
    if (text.includes('"type":"live"')) watcher.live()
    if (text.includes('"type":"error"')) throw new Error(text)
    return
  }
  while (at >= 0) {
    const first = numberAt(text, at + FROM.length)
    const to = text.indexOf(TO, at)
    const last = numberAt(text, to + TO.length)
    if (first !== watcher.seq + 1) seen.wrong++
    seen.twice += Math.max(0, Math.min(last, watcher.seq) - first + 1)
    watcher.seq = Math.max(watcher.seq, last)
    const next = text.indexOf(FROM, to)
    const end = next < 0 ? text.length : next
    let items = 0
    for (let sign = text.indexOf('@', to); sign >= 0 && sign < end; sign = text.indexOf('@', sign + 1)) {
      sign = measure(text, sign)
      items++
    }
    keepCursor(watcher, text, to)
    arrived(last - first + 1, last - first + 1 - items)
    at = next
  }
  if (text.includes('"type":"live"')) watcher.live()
}

const keepCursor = (watcher: Watcher, text: string, after: number): void => {
  const at = text.indexOf(CURSOR, after) + CURSOR.length
  watcher.cursor = text.slice(at, text.indexOf('"', at))
}

const takers: Record<PeerName, (watcher: Watcher, text: string) => void> = {
  ours: takeOurs,
  bare: (watcher, text) => (text === 'joined' ? watcher.live() : takePlain(watcher, text, 0)),
  socketio: (watcher, text) => {
    if (text.startsWith('42["m","')) {
      takePlain(watcher, text, 8)
      // The position stands behind what was sent.
      if (watcher.session) watcher.cursor = text.slice(text.lastIndexOf('"', text.length - 3) + 1, -2)
    } else if (text.startsWith('0')) {
      const { session, cursor } = watcher
      send(watcher, session ? `40{"pid":"${session}","offset":"${cursor}"}` : '40')
    } else if (text.startsWith('40')) {
      const { pid = '' } = JSON.parse(text.slice(2)) as { pid?: string }
      if (pid && pid === watcher.session) watcher.live()
      else send(watcher, `420["join","${watcher.room}"]`)
      watcher.session = pid
    } else if (text.startsWith('430')) watcher.live()
    else if (text === '2') send(watcher, '3')
  },
}
const take = takers[peer]

const PONG = Buffer.from([0x8a, 0x80, 0, 0, 0, 0])

const receive = (watcher: Watcher, chunk: Buffer): void => {
  let data = watcher.rest ? Buffer.concat([watcher.rest, chunk]) : chunk
  watcher.rest = undefined
  if (!watcher.open) {
    const end = data.indexOf('\r\n\r\n')
    if (end < 0) {
      watcher.rest = data
      return
    }
    if (!data.subarray(0, 12).equals(Buffer.from('HTTP/1.1 101'))) throw new Error(data.toString())
    watcher.open = true
    if (peer === 'bare') send(watcher, watcher.room)
    data = data.subarray(end + 4)
  }
  now = micros()
  let at = 0
  while (data.length - at >= 2) {
    let length = (data[at + 1] as number) & 0x7f
    let start = at + 2
    if (length === 126) {
      if (data.length - at < 4) break
      length = data.readUInt16BE(at + 2)
      start = at + 4
    } else if (length === 127) {
      if (data.length - at < 10) break
      length = Number(data.readBigUInt64BE(at + 2))
      start = at + 10
    }
    if (data.length < start + length) break
    const opcode = (data[at] as number) & 0x0f
    if (opcode === 1) take(watcher, data.toString('latin1', start, start + length))
    else if (opcode === 9) watcher.socket.write(PONG)
    else if (opcode === 8) throw new Error(`closed with ${data.readUInt16BE(start)}`)
    at = start + length
  }
  if (at < data.length) watcher.rest = Buffer.from(data.subarray(at))
}

const PATHS: Record<PeerName, string> = {
  ours: '/v1/ws',
  bare: '/',
  socketio: '/socket.io/?EIO=4&transport=websocket',
}

const dialOne = (watcher: Watcher, { hostname, port }: URL): Promise<void> =>
  new Promise((resolve, reject) => {
    const socket = connect(Number(port), hostname)
    watcher.socket = socket
    watcher.open = watcher.isLive = false
    watcher.rest = undefined
    watcher.live = () => {
      watcher.isLive = true
      resolve()
    }
    socket.setNoDelay(true)
    socket.write(
      `GET ${PATHS[peer]} HTTP/1.1\r\nHost: ${hostname}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n` +
        'Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n' +
        `${peer === 'ours' ? 'Sec-WebSocket-Protocol: jobs.v1.json\r\n' : ''}\r\n`,
    )
    socket.on('data', (chunk) => receive(watcher, chunk))
    socket.on('error', reject)
    socket.on('close', () => {
      reject(new Error('a socket was closed'))
      if (watcher.isLive && returning) void comeBack(watcher, returning)
    })
  })

/** Where, and after how many milliseconds, connections that end come back. */
let returning: { url: string; afterMs: number } | undefined

const comeBack = async (watcher: Watcher, { url, afterMs }: { url: string; afterMs: number }) => {
  await pause(afterMs)
  const at = new URL(url)
  while (
    !(await dialOne(watcher, at).then(
      () => true,
      () => false,
    ))
  )
    await pause(100 + 200 * Math.random())
}

const dial = async ({ url, rooms, connections, roomsEach, atOnce, resume }: Dial): Promise<Dialled> => {
  const at = new URL(url)
  const from = performance.now()
  const dialling: Watcher[] = resume
    ? watchers
    : Array.from({ length: connections }, (_, i) => ({
        socket: undefined as unknown as Socket,
        room: rooms[(watchers.length + i) % rooms.length] as string,
        alsoWatches: Array.from(
          { length: roomsEach - 1 },
          (_, more) => `"${rooms[(watchers.length + i + (more + 1) * connections) % rooms.length]}"`,
        ).join(),
        open: false,
        rest: undefined,
        seq: 0,
        cursor: '',
        session: '',
        isLive: false,
        live: () => undefined,
      }))
  if (!resume) watchers.push(...dialling)
  const queue = dialling.values()
  const dialler = async () => {
    for (const watcher of queue) await dialOne(watcher, at)
  }
  await Promise.all(Array.from({ length: atOnce }, dialler))
  return { connections: dialling.length, seconds: (performance.now() - from) / 1e3 }
}

const report = (): Seen => {
  const total = slots.reduce((sum, count) => sum + count, 0)
  const at = (share: number) => {
    let left = total * share
    for (let slot = 0; slot < slots.length; slot++) {
      left -= slots[slot] as number
      if (left <= 0) return ((slot + 1) * SLOT_MICROS) / 1e3
    }
    return Number.NaN
  }
  return { ...seen, p50: at(0.5), p99: at(0.99) }
}

serveRemote({
  dial,
  reset: () => {
    slots.fill(0)
    seen = { delivered: 0, folded: 0, wrong: 0, twice: 0, from: 0, to: 0 }
  },
  count: () => ({ delivered: seen.delivered }),
  report,
  returnAfter: (options: { url: string; afterMs: number }) => {
    returning = options
  },
  dropAtRandom: ({ seconds, downMs }: { seconds: number; downMs: number }) => {
    const until = performance.now() + seconds * 1e3
    for (const watcher of watchers) {
      const drop = () => {
        if (performance.now() > until) return
        watcher.socket.destroy()
        setTimeout(drop, downMs + 500 + 3_000 * Math.random())
      }
      setTimeout(drop, 3_000 * Math.random())
    }
  },
  hangUp: () => {
    for (const { socket } of watchers) {
      socket.removeAllListeners('close')
      socket.on('close', () => undefined)
      socket.destroy()
    }
  },
})
