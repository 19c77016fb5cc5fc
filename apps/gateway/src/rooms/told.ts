// The `events` message: what a room tells its watchers. Made once for all who stand at the same place; folded further
// where one socket falls behind.
import type { StoredEvent } from '@jobs/state'
import { counts } from '../metrics.ts'

export type Item = StoredEvent

/** The events `from..to` of one job, contiguous with what was told before. */
export interface Told {
  readonly job: string
  readonly from: number
  readonly to: number
  readonly cursor: string
  readonly items: readonly Item[]
  /** Echo of the subscribe that asked for these. */
  readonly id: string | undefined
  /** Whether only the latest progress matters, even to a socket that keeps up. */
  readonly latest: boolean
  /** Bytes of the items. */
  readonly bytes: number
  /**
   * What was made of it, for the next who gets the same: the text, and the frame that it begins. They stand here since weak
   * maps of 4,000 events a second made the collector stop the loop for 50 to 100 ms.
   */
  text?: string
  framed?: { kind: object; messages: readonly Told[]; frame: Buffer }
}

export const bytesOf = (items: readonly Item[]): number =>
  items.reduce((sum, { body }) => sum + Buffer.byteLength(body), 0)

/** The message as JSON text, made once. */
export const textOf = (told: Told): string => {
  if (told.text !== undefined) return told.text
  const { job, from, to, cursor, items, id } = told
  const left = to - from + 1 - items.length
  told.text =
    `{"type":"events","job":${JSON.stringify(job)},"from":${from},"to":${to},"cursor":"${cursor}"` +
    `${left > 0 ? `,"conflated":${left}` : ''}${id === undefined ? '' : `,"id":${JSON.stringify(id)}`}` +
    `,"items":[${items.map((item) => item.body).join(',')}]}`
  return told.text
}

/** Progress but for the last is left out; state changes and log lines never are. */
export const withoutStaleProgress = (items: readonly Item[]): Item[] => {
  const last = items.findLastIndex((item) => item.type === 'progress')
  return items.filter((item, i) => item.type !== 'progress' || i === last)
}

/** Bytes of state changes and log lines in one merged message: some clients refuse frames above 1 MiB. */
const MERGED_BYTES = 196_608

interface Run<T> {
  at: number
  first: T
  parts: Told[]
  bytes: number
}

/**
 * Merges messages of the same job that follow one another into one, progress folded. A message of another kind stands
 * between what comes before and after it: nothing is moved across it. `wrap` gets the entry that a merge begins with.
 */
export const folded = <T>(
  queue: readonly T[],
  toldOf: (entry: T) => Told | null,
  wrap: (told: Told, first: T) => T,
): T[] => {
  const runs = new Map<string, Run<T>>()
  const out: (T | null)[] = []
  const close = ({ at, first, parts }: Run<T>) => {
    out[at] = wrap(merged(parts), first)
  }
  for (const entry of queue) {
    const told = toldOf(entry)
    if (!told) {
      for (const run of runs.values()) close(run)
      runs.clear()
      out.push(entry)
      continue
    }
    const bytes = bytesOf(told.items.filter((item) => item.type !== 'progress'))
    const run = runs.get(told.job)
    const before = run?.parts.at(-1)
    const follows = before && before.to + 1 === told.from && before.id === told.id
    if (run && follows && run.bytes + bytes <= MERGED_BYTES) {
      run.parts.push(told)
      run.bytes += bytes
    } else {
      if (run) close(run)
      runs.set(told.job, { at: out.push(null) - 1, first: entry, parts: [told], bytes })
    }
  }
  for (const run of runs.values()) close(run)
  return out as T[]
}

const merged = (parts: Told[]): Told => {
  const [first, last] = [parts[0] as Told, parts.at(-1) as Told]
  const all = parts.flatMap((part) => part.items)
  const items = withoutStaleProgress(all)
  counts.conflated += all.length - items.length
  if (parts.length === 1 && items.length === all.length) return first
  const { job, from, id, latest } = first
  return { job, from, to: last.to, cursor: last.cursor, items, id, latest, bytes: bytesOf(items) }
}
