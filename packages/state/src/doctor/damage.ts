// What may be wrong with what stands in Redis, by code: how bad it is, and what mending does about it. lua/mend.lua finds
// most of it; docs/doctor.md lists all.

/**
 * `error`: a job is lost, stuck or told wrongly, or would be. `warning`: something is left over, or nobody looks after
 * the namespace.
 */
export type Severity = 'error' | 'warning'

export const DAMAGES = {
  not_queued: { severity: 'error', mending: 'It is put at the end of its queue.' },
  not_delivered: { severity: 'error', mending: 'It is put at the end of its queue.' },
  not_held: { severity: 'error', mending: 'It gets a work entry, and runs on.' },
  not_due: { severity: 'error', mending: 'It is scheduled for its time again.' },
  not_listed: { severity: 'error', mending: 'It is listed again and kept for a whole retention from now.' },
  payload_lost: { severity: 'error', mending: 'It fails with the code DAMAGED: nobody can run it.' },
  stream_without_hash: { severity: 'error', mending: 'The job is made again of its history.' },
  hash_without_stream: { severity: 'error', mending: 'Its history goes on with a line that says so.' },
  hash_unreadable: { severity: 'error', mending: 'The job is made again of its history.' },
  history_short: { severity: 'error', mending: 'Its history goes on with a line that says so.' },
  behind_history: { severity: 'error', mending: 'The job follows its history.' },
  would_vanish: { severity: 'error', mending: 'Its time to live is taken away.' },
  lives_for_ever: { severity: 'warning', mending: 'It gets the time to live that it should have had.' },
  lifetimes_differ: { severity: 'warning', mending: 'The history gets the lifetime of the job.' },
  deadline_missing: { severity: 'error', mending: 'The deadline is set.' },
  stray_deadline: { severity: 'warning', mending: 'The deadline is taken away.' },
  heartbeat_for_ever: { severity: 'error', mending: 'It gets the lease as its time to live.' },
  stray_heartbeat: { severity: 'warning', mending: 'It is deleted.' },
  tag_differs: {
    severity: 'error',
    mending: 'Lists and counts of the tag follow the job; watchers are told.',
  },
  list_unknown: { severity: 'error', mending: 'The list is listed again.' },
  queue_unlisted: { severity: 'error', mending: 'It is listed.' },
  group_missing: {
    severity: 'error',
    mending: 'The group is made again; what runs stays with who runs it.',
  },
  stray_entry: { severity: 'warning', mending: 'The entry is deleted.' },
  stray_pending: { severity: 'warning', mending: 'The entry is acknowledged.' },
  stray_listed: { severity: 'warning', mending: 'The entry is deleted.' },
  stray_member: { severity: 'warning', mending: 'It is taken out; watchers of the tag are told.' },
  stray_due: { severity: 'warning', mending: 'It is taken out.' },
  stray_worker: { severity: 'warning', mending: 'It is taken out.' },
  layout_missing: { severity: 'error', mending: 'It is written again.' },
  foreign_partition: { severity: 'error', mending: null },
  unknown_key: { severity: 'warning', mending: null },
  state_unknown: { severity: 'warning', mending: null },
  unreadable: { severity: 'error', mending: null },
  no_reaper: { severity: 'warning', mending: null },
} as const satisfies Record<string, { severity: Severity; mending: string | null }>

export type DamageCode = keyof typeof DAMAGES

export interface Damage {
  code: DamageCode
  severity: Severity
  partition: number
  /** The job's id, or the key behind the prefix of its partition. */
  about: string
  /** One sentence for people. */
  says: string
  /** `left`: it was to be mended and can't be by itself. */
  outcome: 'found' | 'mended' | 'left'
}

/** Keys and ids are anybody's text, and go to terminals. */
const harmless = (text: string) => text.replace(/\p{Cc}/gu, '?').slice(0, 300)

export const damageOf = (
  code: DamageCode,
  partition: number,
  about: string,
  says: string,
  outcome: Damage['outcome'] = 'found',
): Damage => ({
  code,
  severity: DAMAGES[code].severity,
  partition,
  about: harmless(about),
  says: harmless(says),
  outcome,
})
