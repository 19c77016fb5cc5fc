// Socket.IO with its Redis streams adapter, as their documentation tunes them: WebSocket only, no compression, no HTTP
// requests kept for each socket, plain text in the stream.
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { createAdapter } from '@socket.io/redis-streams-adapter'
import { Redis } from 'ioredis'
import { Server } from 'socket.io'
import { serveRemote } from './rpc.ts'

const http = createServer()
const io = new Server(http, {
  transports: ['websocket'],
  serveClient: false,
  perMessageDeflate: false,
  httpCompression: false,
  // For the drops only: it costs something.
  ...(process.argv[4] === 'recovery' ? { connectionStateRecovery: {} } : {}),
  adapter: createAdapter(new Redis(process.argv[2] as string), { onlyPlaintext: true }),
})
io.engine.on('connection', (raw: { request: unknown }) => {
  raw.request = null
})
io.on('connection', (socket) => {
  socket.on('join', async (room: string, joined: () => void) => {
    await socket.join(room)
    joined()
  })
})
await new Promise<void>((resolve) => http.listen(Number(process.argv[3] ?? 0), '127.0.0.1', resolve))

serveRemote({ port: () => ({ port: (http.address() as AddressInfo).port }) })
