// Everything of a namespace that lua/mend.lua can look at, a page at a time: each key by SCAN, and what stands in lists.
// What comes and goes meanwhile is seen or not; what is there all the time is seen.
import { isStateError } from '../errors.ts'
import type { Jobs } from '../jobs.ts'
import { GROUP, type Keys } from '../keys.ts'
import { DEFAULTS, LIMITS } from '../schema/limits.ts'
import { type Damage, damageOf } from './damage.ts'

/** Arguments of lua/mend.lua: one thing to look at. */
export type Thing = readonly [kind: string, a: string, b?: string | number]

export interface WalkPage {
  keys: Keys
  partition: number
  things: Thing[]
  /** What the walk itself found. */
  damages: Damage[]
  /** What could not be read, and why; the next page goes on behind it. */
  trouble?: unknown
}

/** What one read asks for: less than 1 ms of Redis. */
const PAGE = 500
/** Tries of a server that fails, before the walk goes on without it. */
const TRIES = 5
/** As much as DEFAULTS.retentionMs for what has no better bound. */
const DAY = DEFAULTS.retentionMs
const WORKER_MS = 35_000
const CONFIRMED_MS = 60_000

type Things = AsyncGenerator<Thing[]>
interface Part {
  things: Thing[]
  /** What stands in it. */
  inside?: Things
}

const LABEL = '[A-Za-z0-9._~-]+'

/** Of each kind of key, by what follows the partition's prefix, what there is to look at. */
const LAYOUT: [pattern: RegExp, look: (jobs: Jobs, key: string, rest: string, names: string[]) => Part][] = [
  [new RegExp(`^job:(${LABEL})$`), (_, __, ___, [id = '']) => ({ things: [['job', id]] })],
  [new RegExp(`^(?:jobs|heartbeat):(${LABEL})$`), (_, __, ___, [id = '']) => ({ things: [['half', id]] })],
  [
    new RegExp(`^work:(${LABEL}(?::high|:low)?)$`),
    (jobs, key, rest, [queue = '']) => ({
      things: [
        ['life', rest, 'ever'],
        ['queue', queue],
      ],
      inside: workOf(jobs, key, queue),
    }),
  ],
  [
    /^ended:([A-Z]+:\d+)$/,
    (jobs, key, _, [list = '']) => ({ things: [], inside: entriesOf(jobs, key, 'listed', list) }),
  ],
  [
    new RegExp(`^tag:@?${LABEL}$`),
    (jobs, key, rest) => ({ things: [['life', rest, 'ever']], inside: membersOf(jobs, key, rest) }),
  ],
  [
    new RegExp(`^tag:@?${LABEL}:ended$`),
    (jobs, key, rest) => ({ things: [['life', rest, DAY]], inside: membersOf(jobs, key, rest) }),
  ],
  [
    new RegExp(`^tag:(${LABEL}):states$`),
    (jobs, key, rest, [tag = '']) => ({ things: [['states', tag]], inside: membersOf(jobs, key, rest) }),
  ],
  [
    /^(?:scheduled|deadlines)$/,
    (jobs, key, rest) => ({ things: [['life', rest, 'ever']], inside: membersOf(jobs, key, rest) }),
  ],
  [/^workers$/, (jobs, key, rest) => ({ things: [['life', rest, WORKER_MS]], inside: membersOf(jobs, key) })],
  [/^(?:queues|paused|stream|sweep|layout)$/, (_, __, rest) => ({ things: [['life', rest, 'ever']] })],
  [/^(?:key|rate):.+$|^ended$/, (_, __, rest) => ({ things: [['life', rest, DAY]] })],
  [/^worker:.+$/, (_, __, rest) => ({ things: [['life', rest, WORKER_MS]] })],
  [/^confirmed$/, (_, __, rest) => ({ things: [['life', rest, CONFIRMED_MS]] })],
  [/^revoked$/, (_, __, rest) => ({ things: [['life', rest, LIMITS.tokenLifeMs]] })],
]

async function* entriesOf({ link }: Jobs, key: string, kind: 'entry' | 'listed', of: string): Things {
  for (let from = '-'; ; ) {
    const page = (await link.call('XRANGE', key, from, '+', 'COUNT', PAGE)) as [string, string[]][]
    yield page.map(([entry, fields]) => [kind, of, `${entry} ${fields[1] ?? ''}`])
    const last = page.at(-1)
    if (!last || page.length < PAGE) return
    from = `(${last[0]}`
  }
}

async function* workOf(jobs: Jobs, key: string, queue: string): Things {
  yield* entriesOf(jobs, key, 'entry', queue)
  for (let from = '-'; ; ) {
    const page = (await jobs.link.call('XPENDING', key, GROUP, from, '+', PAGE)) as [string][]
    yield page.map(([entry]) => ['pending', queue, entry])
    const last = page.at(-1)
    if (!last || page.length < PAGE) return
    from = `(${last[0]}`
  }
}

/** @param set what follows the prefix; none for the ids of workers */
async function* membersOf({ link }: Jobs, key: string, set?: string): Things {
  let cursor = '0'
  do {
    const [next, page] = (await link.call('ZSCAN', key, cursor, 'COUNT', PAGE)) as [string, unknown[]]
    const members = page.flat().filter((_, i) => i % 2 === 0)
    yield members.map((id) => (set === undefined ? ['worker', String(id)] : ['member', set, String(id)]))
    cursor = next
  } while (cursor !== '0')
}

/**
 * Names of keys, a page at a time, of every server that has some: once for all the partitions that it has. A server that
 * fails is gone on with where it stood, after the others.
 */
async function* names({
  link,
  namespace,
  transitions,
}: Jobs): AsyncGenerator<{ page: string[]; trouble?: unknown }> {
  const begun = new Set<string>()
  const scans = transitions.keys.map(({ prefix }) => ({ prefix, cursor: '', failures: 0 }))
  for (let scan = scans.shift(); scan; scan = scans.shift())
    try {
      if (scan.cursor === '') {
        const server = await link.serverOf(scan.prefix)
        if (begun.has(server)) continue
        begun.add(server)
        scan.cursor = '0'
      }
      do {
        const command = ['SCAN', scan.cursor, 'MATCH', `{${namespace}:*}:*`, 'COUNT', PAGE] as const
        const [next, page] = (await link.callAt(scan.prefix, ...command)) as [string, string[]]
        scan.cursor = next
        scan.failures = 0
        yield { page }
      } while (scan.cursor !== '0')
    } catch (trouble) {
      if (++scan.failures < TRIES) scans.push(scan)
      yield { page: [], trouble }
    }
}

/** A list that is gone by now, or was never one: the script tells what is wrong with it. */
const isOfAnotherKind = (error: unknown) =>
  isStateError(error, 'REDIS_REFUSED') && /WRONGTYPE|NOGROUP/.test(error.message)

/** A page at least for each read, be it empty: who rests between pages rests between reads. */
export async function* walk(jobs: Jobs): AsyncGenerator<WalkPage> {
  const all = jobs.transitions.keys
  for await (const { page, trouble } of names(jobs)) {
    const found = all.map((keys, partition) => ({
      keys,
      partition,
      things: [] as Thing[],
      inside: [] as [rest: string, Things][],
      damages: [] as Damage[],
    }))
    for (const key of page) {
      const [, number, rest = ''] = /^\{[^}]*:(\d+)\}:(.*)$/s.exec(key) ?? []
      const at = found[Number(number)]
      if (!at) {
        const says = `This process is configured for ${all.length} partition(s): JOBS_PARTITIONS is wrong, or somebody's was.`
        found[0]?.damages.push(damageOf('foreign_partition', Number(number), rest, says))
        continue
      }
      let known = false
      for (const [pattern, look] of LAYOUT) {
        const match = pattern.exec(rest)
        if (!match) continue
        known = true
        const { things, inside } = look(jobs, key, rest, match.slice(1))
        at.things.push(...things)
        if (inside) at.inside.push([rest, inside])
        break
      }
      if (!known)
        at.damages.push(
          damageOf('unknown_key', at.partition, rest, 'No key of this release has such a name.'),
        )
    }
    const some = found.filter(
      ({ things, damages, inside }) => things.length + damages.length + inside.length > 0,
    )
    if (some.length === 0) yield { keys: all[0] as Keys, partition: 0, things: [], damages: [], trouble }
    for (const { inside, ...own } of some) {
      if (own.things.length > 0 || own.damages.length > 0) yield own
      for (const [rest, pages] of inside)
        try {
          for await (const things of pages) yield { ...own, things, damages: [] }
        } catch (error) {
          const nothing = { ...own, things: [], damages: [] }
          if (!isOfAnotherKind(error)) yield { ...nothing, trouble: error }
          else if ((error as Error).message.includes('WRONGTYPE')) {
            const says = 'It is no key of the type that it should be.'
            yield { ...nothing, damages: [damageOf('unreadable', own.partition, rest, says)] }
          }
        }
    }
  }
}
