// Entry of the thread that beats while the loop that runs the handlers is blocked. It knows boards and Redis, and no
// jobs: what a beat says goes back as a message.
import { parentPort, workerData } from 'node:worker_threads'
import { type Beaten, Beater, type Heard, type Pace } from './beater.ts'
import { Page } from './board.ts'
import type { LinkOptions } from './connection.ts'
import { isStateError, type StateErrorCode } from './errors.ts'
import { RedisLink } from './redis.ts'
import { type Transitions, transitionsOf } from './transitions.ts'

export interface ThreadData {
  /** One int64: when the loop was last alive, in milliseconds of `sharedNow`. */
  alive: SharedArrayBuffer
}

export type Connection = LinkOptions & { namespace: string; partitions: number }

/** What the loop tells the thread. */
export type Order =
  | {
      kind: 'open'
      board: number
      connection: Connection
      /** At once, rather than with the first beat. */
      connect: boolean
      worker: string
      name: string
      pace: Pace
    }
  | { kind: 'page'; board: number; memory: SharedArrayBuffer }
  | { kind: 'close'; board: number }

/** What the thread tells the loop. */
export type Told =
  | { kind: 'ready' }
  | { kind: 'heard'; board: number; slot: number; turn: number; verdict: Heard }
  | { kind: 'trouble'; board: number; code: StateErrorCode; message: string }

interface Shared {
  key: string
  link: RedisLink
  transitions: Transitions
  boards: number
}

if (parentPort) {
  const port = parentPort
  const alive = new BigInt64Array((workerData as ThreadData).alive)
  const beater = new Beater(() => Number(Atomics.load(alive, 0)))
  const connections = new Map<string, Shared>()
  const boards = new Map<number, { beaten: Beaten & { pages: Page[] }; shared: Shared }>()
  const tell = (told: Told) => port.postMessage(told)

  /** All boards of one namespace share a connection, made at the first beat. */
  const connect = (connection: Connection): Shared => {
    const key = JSON.stringify(connection)
    const known = connections.get(key)
    if (known) return known
    const link = new RedisLink(connection)
    const { namespace, partitions } = connection
    const shared = { key, link, transitions: transitionsOf(link, namespace, partitions), boards: 0 }
    connections.set(key, shared)
    return shared
  }

  const open = ({
    board,
    connection,
    connect: now,
    worker,
    name,
    pace,
  }: Extract<Order, { kind: 'open' }>) => {
    const shared = connect(connection)
    // Whoever beats is told of the trouble.
    if (now) shared.link.connect().catch(() => undefined)
    shared.boards++
    const beaten = {
      worker,
      name,
      pace,
      pages: [],
      beat: shared.transitions.beat,
      heard: (slot: number, turn: number, verdict: Heard) =>
        tell({ kind: 'heard', board, slot, turn, verdict }),
      trouble: (error: unknown) => {
        // A board that was closed under its last beats has no trouble any more.
        if (!boards.has(board)) return
        const code = isStateError(error) ? error.code : 'REDIS_REFUSED'
        tell({
          kind: 'trouble',
          board,
          code,
          message: error instanceof Error ? error.message : String(error),
        })
      },
    }
    boards.set(board, { beaten, shared })
    beater.add(beaten)
  }

  const close = async (board: number) => {
    const closed = boards.get(board)
    if (!closed) return
    boards.delete(board)
    beater.remove(closed.beaten)
    const { shared } = closed
    if (--shared.boards > 0) return
    connections.delete(shared.key)
    await shared.link.close()
  }

  port.on('message', (order: Order) => {
    if (order.kind === 'open') open(order)
    else if (order.kind === 'page') boards.get(order.board)?.beaten.pages.push(new Page(order.memory))
    else void close(order.board)
  })
  tell({ kind: 'ready' })
}
