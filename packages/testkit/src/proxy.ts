// A TCP proxy in front of a server, to cut and stall connections where a test wants it.

import type { AddressInfo } from 'node:net'
import { connect, createServer, type Socket } from 'node:net'

export interface CuttingProxy {
  readonly port: number
  /** Open connections. */
  readonly connections: number
  /** Connections accepted so far. */
  readonly accepted: number
  /** Cuts every connection; new ones are taken. */
  cutAll(): void
  /** While true, new connections are closed at once. */
  refuse(refuse: boolean): void
  /** While true, bytes of both directions are swallowed and nothing is closed: a half-open link. */
  stall(stall: boolean): void
  /** From now on every byte of both directions comes this many milliseconds later, in order. */
  slow(ms: number): void
  /** Tells each client that the server has ended its side; the server hears nothing of it, and still gets what is sent. */
  halfClose(): void
  /** From now on swallows what the server sends, chunk by chunk, where it fits; nothing, without an argument. */
  swallow(fits?: (chunk: Buffer) => boolean): void
  /**
   * Cuts the connection of the next request chunk that fits: `before` it reaches the server, or `after` (the server
   * executes it, its reply is lost). Resolves when it has happened.
   */
  cutOn(fits: (chunk: Buffer) => boolean, when: 'before' | 'after'): Promise<void>
  close(): Promise<void>
}

export const startProxy = async (targetPort: number): Promise<CuttingProxy> => {
  const pairs = new Set<{ near: Socket; far: Socket }>()
  let accepted = 0
  let refusing = false
  let stalling = false
  let delayMs = 0
  let swallows: (chunk: Buffer) => boolean = () => false
  let trap: { fits: (chunk: Buffer) => boolean; when: 'before' | 'after'; sprung: () => void } | undefined

  const server = createServer((near) => {
    if (refusing) {
      near.destroy()
      return
    }
    accepted++
    const far = connect(targetPort, '127.0.0.1')
    const pair = { near, far }
    pairs.add(pair)
    let deaf = false
    const end = () => {
      near.destroy()
      far.destroy()
      pairs.delete(pair)
    }
    const toFar = pipe(far, () => delayMs)
    const toNear = pipe(near, () => delayMs)
    for (const socket of [near, far]) {
      socket.setNoDelay(true)
      socket.on('error', end)
      socket.on('close', end)
    }
    near.on('data', (chunk) => {
      if (stalling) return
      if (!trap?.fits(chunk)) {
        toFar(chunk)
        return
      }
      const { when, sprung } = trap
      trap = undefined
      if (when === 'before') {
        end()
        sprung()
        return
      }
      deaf = true
      far.once('data', () => {
        end()
        sprung()
      })
      far.write(chunk)
    })
    far.on('data', (chunk) => {
      if (!stalling && !deaf && !swallows(chunk)) toNear(chunk)
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))

  const cutAll = () => {
    for (const { near, far } of pairs) {
      near.destroy()
      far.destroy()
    }
  }
  return {
    port: (server.address() as AddressInfo).port,
    get connections() {
      return pairs.size
    },
    get accepted() {
      return accepted
    },
    cutAll,
    refuse: (value) => {
      refusing = value
    },
    stall: (value) => {
      stalling = value
    },
    slow: (ms) => {
      delayMs = ms
    },
    halfClose: () => {
      for (const { near } of pairs) near.end()
    },
    swallow: (fits = () => false) => {
      swallows = fits
    },
    cutOn: (fits, when) =>
      new Promise((sprung) => {
        trap = { fits, when, sprung }
      }),
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        cutAll()
      }),
  }
}

/** Writes to the socket, later where it is slow: in order also when the delay changes. */
const pipe = (to: Socket, delayMs: () => number) => {
  const waiting: { chunk: Buffer; due: number }[] = []
  const send = () => {
    const now = performance.now()
    while (waiting[0] && waiting[0].due <= now) write(to, (waiting.shift() as { chunk: Buffer }).chunk)
    if (waiting[0]) setTimeout(send, waiting[0].due - now)
  }
  return (chunk: Buffer) => {
    const ms = delayMs()
    if (ms === 0 && waiting.length === 0) {
      write(to, chunk)
      return
    }
    // Never before what came earlier.
    const due = Math.max(performance.now() + ms, waiting.at(-1)?.due ?? 0)
    if (waiting.push({ chunk, due }) === 1) setTimeout(send, due - performance.now())
  }
}

const write = (to: Socket, chunk: Buffer) => {
  if (to.writable) to.write(chunk)
}
