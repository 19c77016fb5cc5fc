// Everything that a partition holds, read at one moment: what the invariants are judged on. It knows the layout of the
// keys and nothing of what must be true of them.
import type { Jobs, Keys } from '@jobs/state'
import { GROUP } from '../src/keys.ts'
import { fieldsOf } from '../src/record.ts'
import type { Command } from '../src/redis.ts'

export type Entries = [entry: string, value: string][]

export interface Dump {
  keys: Keys
  /** Redis' time in milliseconds. */
  now: number
  /** Milliseconds to live of every key; -1 for ever. */
  ttl: Map<string, number>
  /** By job id. */
  hashes: Map<string, Record<string, string>>
  streams: Map<string, Entries>
  heartbeats: Map<string, string>
  /** Work streams by queue: entries with the job's id, and pending entries with their consumer. */
  work: Map<string, { entries: Entries; pending: Entries }>
  /** Members and scores, by key. */
  sets: Map<string, Map<string, number>>
  /** Streams of ended jobs by `STATE:retentionMs`. */
  ended: Map<string, Entries>
  queues: Set<string>
  /** Keys that no part of the layout explains. */
  unknown: string[]
}

/** `name` is what follows the part's own name, `key` the whole. */
type Take = (dump: Dump, name: string, reply: unknown[], key: string) => void
interface Part {
  read: (key: string) => Command[]
  take: Take
}

const flatPairs = (reply: unknown): Map<string, number> => {
  const flat = (reply as unknown[]).flat()
  const pairs = new Map<string, number>()
  for (let i = 0; i + 1 < flat.length; i += 2) pairs.set(String(flat[i]), Number(flat[i + 1]))
  return pairs
}

const entriesOf = (reply: unknown): Entries =>
  (reply as [string, string[]][]).map(([entry, fields]) => [entry, fields[1] ?? ''])

const sortedSet: Part = {
  read: (key) => [['ZRANGE', key, 0, -1, 'WITHSCORES']],
  take: (dump, _, [reply], key) => dump.sets.set(key, flatPairs(reply)),
}
const nothing: Part = { read: () => [], take: () => undefined }

/** How a key is read, by what follows the partition's prefix; a name that ends in `:` is followed by more. */
const LAYOUT: Record<string, Part> = {
  'job:': {
    read: (key) => [['HGETALL', key]],
    take: (dump, id, [reply]) => dump.hashes.set(id, fieldsOf(reply)),
  },
  'jobs:': {
    read: (key) => [['XRANGE', key, '-', '+']],
    take: (dump, id, [reply]) => dump.streams.set(id, entriesOf(reply)),
  },
  'heartbeat:': {
    read: (key) => [['GET', key]],
    take: (dump, id, [reply]) => dump.heartbeats.set(id, String(reply)),
  },
  'work:': {
    read: (key) => [
      ['XRANGE', key, '-', '+'],
      ['XPENDING', key, GROUP, '-', '+', 1_000_000],
    ],
    take: (dump, queue, [entries, pending]) =>
      dump.work.set(queue, {
        entries: entriesOf(entries),
        pending: (pending as [string, string][]).map(([entry, consumer]) => [entry, consumer]),
      }),
  },
  'ended:': {
    read: (key) => [['XRANGE', key, '-', '+']],
    take: (dump, list, [reply]) => dump.ended.set(list, entriesOf(reply)),
  },
  queues: {
    read: (key) => [['SMEMBERS', key]],
    take: (dump, _, [reply]) => {
      dump.queues = new Set(reply as string[])
    },
  },
  'tag:': sortedSet,
  scheduled: sortedSet,
  deadlines: sortedSet,
  ended: sortedSet,
  'key:': nothing,
  'rate:': nothing,
  'worker:': nothing,
  workers: nothing,
  paused: nothing,
  sweep: nothing,
  layout: nothing,
  stream: nothing,
  confirmed: nothing,
}

const named = (rest: string): { part: Part | undefined; name: string } => {
  const end = rest.indexOf(':') + 1 || rest.length
  return { part: LAYOUT[rest.slice(0, end)], name: rest.slice(end) }
}

export const dumpOf = async ({ link }: Jobs, keys: Keys): Promise<Dump> => {
  const names = new Set<string>()
  for (let cursor = '0'; ; ) {
    const [next, page] = (await link.call('SCAN', cursor, 'MATCH', `${keys.prefix}*`, 'COUNT', 1_000)) as [
      string,
      string[],
    ]
    for (const name of page) names.add(name)
    cursor = next
    if (cursor === '0') break
  }
  const plan = [...names].sort().map((key) => {
    const { part, name } = named(key.slice(keys.prefix.length))
    return { key, part, name, reads: part?.read(key) ?? [] }
  })
  // A command with a key comes first: in a cluster it says which server is asked.
  const replies = await link.atomic([
    ...plan.flatMap(({ key, reads }): Command[] => [['PTTL', key], ...reads]),
    ['TIME'],
  ])
  const [seconds, micros] = replies.at(-1) as [string, string]
  const dump: Dump = {
    keys,
    now: Number(seconds) * 1_000 + Math.floor(Number(micros) / 1_000),
    ttl: new Map(),
    hashes: new Map(),
    streams: new Map(),
    heartbeats: new Map(),
    work: new Map(),
    sets: new Map(),
    ended: new Map(),
    queues: new Set(),
    unknown: [],
  }
  let at = 0
  for (const { key, part, name, reads } of plan) {
    const ttl = Number(replies[at])
    const told = replies.slice(at + 1, at + 1 + reads.length)
    at += 1 + reads.length
    // It expired after the names were read.
    if (ttl === -2) continue
    dump.ttl.set(key, ttl)
    if (part) part.take(dump, name, told, key)
    else dump.unknown.push(key)
  }
  return dump
}
