// Publishes at a given rate, what is due each millisecond in one write. Peers get the message on a channel, or in the
// stream of Socket.IO's adapter. Ours gets what a report of a running attempt does in Redis (stream, hash, publication: see
// `report` of prelude.lua), many jobs in one script: the library judges and batches each job's moves by itself, and could
// not make 60,000 a second on the core that is left for it.
import { createHash } from 'node:crypto'
import { connect } from 'node:net'
import { messageText, type PeerName, type Publication, type Published, type Room } from './load.ts'
import { serveRemote } from './rpc.ts'

const REPORT = `
for i = 2, #ARGV, 5 do
  local id, cursor, told = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  redis.call('XADD', ARGV[1] .. 'jobs:' .. id, 'MAXLEN', '~', 300, cursor, 'e', told)
  redis.call('HSET', ARGV[1] .. 'job:' .. id, 'now', ARGV[i + 4], 'progress', ARGV[i + 3])
  redis.call('PUBLISH', ARGV[1] .. 'jobs:' .. id, cursor .. ' ' .. told)
end`
/** Of one script: longer ones would let everybody else wait. */
const REPORTS_AT_ONCE = 64

const [url, peer, prefix] = process.argv.slice(2) as [string, PeerName, string]
const { hostname, port } = new URL(url)
const socket = connect(Number(port), hostname)
socket.setNoDelay(true)
// The replies are counted by nobody: the arrivals are.
socket.resume()

const command = (words: string[]): string =>
  `*${words.length}\r\n${words.map((word) => `$${word.length}\r\n${word}\r\n`).join('')}`

const SHA = createHash('sha1').update(REPORT).digest('hex')
socket.write(command(['SCRIPT', 'LOAD', REPORT]))

const report = (room: Room, kind: Publication['kind']): string[] => {
  const seq = ++room.seq
  const cursor = `${seq}-${Date.now()}`
  const value = `"${messageText(seq, cursor.length + kind.length + 6)}"`
  const now = `PROCESSING ${cursor} ${kind} ${room.fence} ${seq} - 0 0`
  return [room.name, cursor, `${kind} 1 ${value}`, value, now]
}

const publications: Record<PeerName, (rooms: Room[], kind: Publication['kind']) => string> = {
  ours: (rooms, kind) => {
    let text = ''
    for (let i = 0; i < rooms.length; i += REPORTS_AT_ONCE) {
      const args = rooms.slice(i, i + REPORTS_AT_ONCE).flatMap((room) => report(room, kind))
      text += command(['EVALSHA', SHA, '0', prefix, ...args])
    }
    return text
  },
  bare: (rooms) => rooms.map((room) => command(['PUBLISH', room.name, messageText(++room.seq, 0)])).join(''),
  socketio: (rooms) =>
    rooms
      .map((room) => {
        const data = JSON.stringify({
          packet: { type: 2, data: ['m', messageText(++room.seq, 0)], nsp: '/' },
          opts: { rooms: [room.name], except: [], flags: {} },
        })
        const fields = ['uid', 'bench', 'nsp', '/', 'type', '3', 'data', data]
        return command(['XADD', 'socket.io', 'MAXLEN', '~', '10000', '*', ...fields])
      })
      .join(''),
}

const publish = async ({ rooms, rate, seconds, kind }: Publication): Promise<Published> => {
  const total = Math.round(rate * seconds)
  const from = performance.now()
  let sent = 0
  while (sent < total) {
    const due = Math.min(total, Math.floor(((performance.now() - from) / 1e3) * rate) + 1)
    const turn: Room[] = []
    while (sent < due && turn.length < 1_000) turn.push(rooms[sent++ % rooms.length] as Room)
    if (turn.length > 0 && !socket.write(publications[peer](turn, kind)))
      await new Promise((resolve) => socket.once('drain', resolve))
    await new Promise((resolve) => setTimeout(resolve, 1))
  }
  return { messages: total, rate: total / ((performance.now() - from) / 1e3), rooms }
}

serveRemote({ publish })
