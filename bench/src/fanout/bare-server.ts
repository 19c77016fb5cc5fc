// The floor: a WebSocket server that subscribes to a channel and hands on what it hears, framed once. It promises nothing.
import type { AddressInfo } from 'node:net'
import { Redis } from 'ioredis'
import { type WebSocket, WebSocketServer } from 'ws'
import { serveRemote } from './rpc.ts'

const redis = new Redis(process.argv[2] as string)
const rooms = new Map<string, { sockets: Set<WebSocket>; subscribed: Promise<unknown> }>()

redis.on('message', (channel, message) => {
  const text = Buffer.from(message)
  for (const socket of rooms.get(channel)?.sockets ?? []) socket.send(text, { binary: false })
})

const server = new WebSocketServer({
  port: 0,
  host: '127.0.0.1',
  perMessageDeflate: false,
  clientTracking: false,
})
server.on('connection', (socket) => {
  socket.on('error', () => undefined)
  socket.once('message', async (data) => {
    const name = data.toString()
    let room = rooms.get(name)
    if (!room) {
      room = { sockets: new Set(), subscribed: redis.subscribe(name) }
      rooms.set(name, room)
    }
    room.sockets.add(socket)
    socket.once('close', () => room.sockets.delete(socket))
    await room.subscribed
    socket.send('joined')
  })
})

serveRemote({ port: () => ({ port: (server.address() as AddressInfo).port }) })
