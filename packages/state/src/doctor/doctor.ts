// Looks a whole namespace through while it is in use, and mends it: by `jobs doctor`, and slowly by every reaper. Each step is
// one short script, which judges and mends in one moment, so that what is under way is never taken for damage.
import { isStateError } from '../errors.ts'
import type { Jobs } from '../jobs.ts'
import type { Keys } from '../keys.ts'
import { checkLayout } from '../layout.ts'
import { redisTime } from '../redis.ts'
import { checkRights } from '../rights.ts'
import { SCRIPTS } from '../scripts.generated.ts'
import { type Finding, inspectServer } from '../server-check.ts'
import { type Damage, type DamageCode, damageOf } from './damage.ts'
import { restoreArgument } from './restore.ts'
import { type Thing, walk } from './walk.ts'

/** Things that one script looks at: 1 to 2 ms of Redis. */
const THINGS = 50
/** Damages told one by one; all are counted. */
const TOLD = 1_000
/** Milliseconds without a sweep after which a namespace counts as left alone. */
const UNSWEPT_MS = 60_000

/** `trouble` is an error that came between; the next step goes on behind what it struck. */
interface Step {
  looked: number
  damages: Damage[]
  trouble?: unknown
}

interface Look {
  damages: Damage[]
  /** Those of them that only the history, folded, can mend. */
  restorable: Damage[]
  restored: boolean
}

const look = async (
  { link }: Jobs,
  keys: Keys,
  partition: number,
  things: readonly Thing[],
  fix: boolean,
): Promise<Look> => {
  const argv = things.flatMap(([kind, a, b = '']) => [kind, a, String(b)])
  const reply = (await link.script(SCRIPTS.mend, keys.prefix, [
    keys.prefix,
    link.publish,
    fix ? 'fix' : '',
    ...argv,
  ])) as string[]
  const seen: Look = { damages: [], restorable: [], restored: false }
  for (let i = 0; i + 3 < reply.length; i += 4) {
    const [code, about = '', says = '', outcome] = reply.slice(i, i + 4)
    if (code === 'restored') {
      seen.restored = true
      continue
    }
    const told = outcome === 'mended' ? 'mended' : fix ? 'left' : 'found'
    const damage = damageOf(code as DamageCode, partition, about, says, told)
    seen.damages.push(damage)
    if (outcome === 'restore') seen.restorable.push(damage)
  }
  return seen
}

/** Whether it lies with the one thing that was asked for, and not with Redis or the way there. */
const isOfOneThing = (error: unknown) => !isStateError(error) || isStateError(error, 'REDIS_REFUSED')

/** @throws StateError REDIS_… where it could not be tried */
const restore = async (jobs: Jobs, keys: Keys, partition: number, damage: Damage): Promise<Damage[]> => {
  try {
    const folded = await restoreArgument(jobs.link, keys, damage.about)
    if (folded === null) {
      damage.says += ' What is left of its history does not tell enough to make it again.'
      return [damage]
    }
    const again = await look(jobs, keys, partition, [['restore', damage.about, folded]], true)
    if (again.restored) damage.outcome = 'mended'
    return [damage, ...again.damages]
  } catch (error) {
    if (!isOfOneThing(error)) throw error
    // Messages of other errors may hold what the job holds.
    damage.says += ` It can't be made again: ${isStateError(error) ? error.message : (error as Error).name}`
    return [damage]
  }
}

/** Looks at some things in one script; what has to be made again of its history is a step of its own. */
async function* mend(
  jobs: Jobs,
  keys: Keys,
  partition: number,
  things: readonly Thing[],
  fix: boolean,
): AsyncGenerator<Step> {
  try {
    const { damages, restorable } = await look(jobs, keys, partition, things, fix)
    const later = fix ? restorable : []
    yield { looked: things.length, damages: damages.filter((damage) => !later.includes(damage)) }
    for (const damage of later)
      try {
        yield { looked: 0, damages: await restore(jobs, keys, partition, damage) }
      } catch (trouble) {
        yield { looked: 0, damages: [], trouble }
      }
  } catch (trouble) {
    yield { looked: 0, damages: [], trouble }
  }
}

/** Looks through everything once. Each step is at most one read and one script, so that rests between them hold. */
async function* steps(jobs: Jobs, fix: boolean): AsyncGenerator<Step> {
  for await (const { keys, partition, things, damages, trouble } of walk(jobs)) {
    if (damages.length > 0 || things.length === 0)
      yield {
        looked: 0,
        damages: damages.map((each) => ({ ...each, outcome: fix ? 'left' : 'found' })),
        trouble,
      }
    for (let at = 0; at < things.length; at += THINGS)
      yield* mend(jobs, keys, partition, things.slice(at, at + THINGS), fix)
  }
}

/** Whether somebody looks after the namespace. */
const unswept = async ({ link, transitions }: Jobs, fix: boolean): Promise<Damage[]> => {
  for (const [partition, keys] of transitions.keys.entries()) {
    const at = await link.call('HGET', keys.sweep, 'at')
    const age = at === null ? null : (await redisTime(link, keys.prefix)) - Number(at)
    if (age !== null && age < UNSWEPT_MS) continue
    // Where no job was ever queued there is nothing to sweep.
    if (age === null && (await link.call('EXISTS', keys.queues)) === 0) continue
    const since = age === null ? 'ever' : `for ${Math.round(age / 1_000)} s`
    const says = `No reaper has swept here ${since}: jobs of dead workers wait, and scheduled ones are not queued.`
    return [damageOf('no_reaper', partition, 'sweep', says, fix ? 'left' : 'found')]
  }
  return []
}

const missingLayout = async (jobs: Jobs, fix: boolean): Promise<Damage[]> => {
  const { link, transitions, namespace, partitions } = jobs
  const { layout } = transitions.keys[0] as Keys
  const held = (await link.call('HMGET', layout, 'partitions', 'schema')) as (string | null)[]
  if (!held.includes(null)) return []
  if (fix) await checkLayout(link, namespace, partitions, true)
  const says = 'The layout is gone: a process that counts other partitions would be let in.'
  return [damageOf('layout_missing', 0, 'layout', says, fix ? 'mended' : 'found')]
}

export interface DoctorOptions {
  /** Mends what it finds; otherwise nothing is written. */
  fix?: boolean
  signal?: AbortSignal
  /** Told of each damage once; of the first thousand. */
  onDamage?: (damage: Damage) => void
  /** Told after each step how many things were looked at and how many damages were found so far. */
  onProgress?: (looked: number, found: number) => void
}

export interface DoctorReport {
  /** What speaks against the server itself. */
  server: Finding[]
  /** The first thousand. */
  damages: Damage[]
  /** All of them. */
  counts: Partial<Record<DamageCode, Record<Damage['outcome'], number>>>
  /** Things looked at: keys, entries, members. */
  looked: number
  /** The worst that is so now; what was mended is not any more. */
  worst: 'clean' | 'warning' | 'error'
}

const whatOf = ({ code, partition, about, says }: Damage) => JSON.stringify([code, partition, about, says])

const count = (counts: DoctorReport['counts'], { code, outcome }: Damage): void => {
  const those = counts[code] ?? { found: 0, mended: 0, left: 0 }
  those[outcome]++
  counts[code] = those
}

/**
 * Looks through a namespace that may be in use, and takes at most half of the time for it: each step is followed by a rest
 * as long as itself. With `fix` it mends what it finds; a job that was lost is queued again, or named.
 *
 * @throws StateError RIGHTS_MISSING, LAYOUT_MISMATCH, REDIS_…; whatever `signal` was aborted with
 */
export const examine = async (jobs: Jobs, options: DoctorOptions = {}): Promise<DoctorReport> => {
  const { fix = false, signal, onDamage, onProgress } = options
  const { link, transitions } = jobs
  await checkLayout(link, jobs.namespace, jobs.partitions, false)
  await checkRights(link, transitions.keys, 'repair')
  const report: DoctorReport = {
    server: await inspectServer(link),
    damages: [],
    counts: {},
    looked: 0,
    worst: 'clean',
  }
  const bad = (severity: 'warning' | 'error') => {
    if (report.worst !== 'error') report.worst = severity
  }
  for (const { severity } of report.server) bad(severity)
  // SCAN may tell a key twice.
  const seen = new Set<string>()
  let found = 0
  const tell = (damage: Damage) => {
    const what = whatOf(damage)
    if (seen.has(what)) return
    if (seen.size < TOLD) seen.add(what)
    found++
    count(report.counts, damage)
    if (damage.outcome !== 'mended') bad(damage.severity)
    if (report.damages.length >= TOLD) return
    report.damages.push(damage)
    onDamage?.(damage)
  }
  for (let all = steps(jobs, fix); ; ) {
    signal?.throwIfAborted()
    const began = performance.now()
    const step = await all.next()
    if (step.done) break
    if (step.value.trouble) throw step.value.trouble
    for (const damage of step.value.damages) tell(damage)
    report.looked += step.value.looked
    onProgress?.(report.looked, found)
    await new Promise((resolve) => setTimeout(resolve, performance.now() - began))
  }
  // A namespace that was never used has neither.
  if (report.looked > 0)
    for (const damage of [
      ...(await missingLayout(jobs, fix && !report.counts.foreign_partition)),
      ...(await unswept(jobs, fix)),
    ])
      tell(damage)
  return report
}

/**
 * Looks a namespace through again and again, one short step a call, and mends it.
 */
export const caretakerOf = (jobs: Jobs) => {
  const counts: DoctorReport['counts'] = {}
  const left = new Set<string>()
  let allowed = false
  let round: AsyncGenerator<Step> | undefined
  /** What can't be mended is no news in the next round. */
  const isNews = (damage: Damage) => {
    const what = whatOf(damage)
    if (damage.outcome === 'left' && left.has(what)) return false
    if (damage.outcome === 'left' && left.size < TOLD) left.add(what)
    return true
  }
  return {
    /** What was told so far, by code and outcome. */
    counts,

    /**
     * Answers what it mended, or can't mend.
     *
     * @throws StateError RIGHTS_MISSING where the user may not do all of it; REDIS_… where a step failed: the next call goes
     *   on behind it
     */
    step: async (): Promise<Damage[]> => {
      if (!allowed) await checkRights(jobs.link, jobs.transitions.keys, 'repair')
      allowed = true
      round ??= steps(jobs, true)
      const step = await round.next()
      if (step.done) {
        round = undefined
        return []
      }
      if (step.value.trouble) throw step.value.trouble
      const news = step.value.damages.filter(isNews)
      for (const damage of news) count(counts, damage)
      return news
    },
  }
}
