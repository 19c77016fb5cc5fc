// Jobs whose scripts are those of another release: one that was frozen (`pnpm gen --freeze`), or one yet to come, which
// is today's with all that may be added to it.
import { createHash } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'
import type { Jobs } from '@jobs/state'
import { SCRIPTS, type Script } from '../src/scripts.generated.ts'

export interface Release {
  version: string
  scripts: Record<string, { sha: string; source: string }>
}

const folder = new URL('./releases/', import.meta.url)

export const frozenReleases = (): Release[] =>
  readdirSync(folder)
    .sort()
    .map((file) => JSON.parse(readFileSync(new URL(file, folder), 'utf8')) as Release)

export const today: Release = { version: 'today', scripts: SCRIPTS }

/** What a later release may do by the rules of docs/decisions/0007, as changes of today's text. */
const ADDITIONS: [what: string, from: string, to: string][] = [
  [
    'one more part of `now`, which counts the changes of state it made',
    "(%d+) (%d+)(.*)$'",
    "(%d+) (%d+) ?(%d*)(.*)$'",
  ],
  ['', 'job.rest = match(now, NOW_PATTERN)', 'job.hops, job.rest = match(now, NOW_PATTERN)'],
  ['', "}, ' ') .. job.rest", "}, ' ') .. (present(job.hops) and ' ' .. job.hops or '') .. job.rest"],
  [
    '',
    'job.state, job.last = state, MOVE',
    "job.state, job.last, job.hops = state, MOVE, int((tonumber(job.hops or '') or 0) + 1)",
  ],
  ['a flag', "flags = '-', failures", "flags = 'z', failures"],
  [
    'a field of the hash',
    "set[n + 1], set[n + 2] = 'now', now_of(job)",
    "set[n + 1], set[n + 2], set[n + 3], set[n + 4] = 'now', now_of(job), 'later', 'kept'",
  ],
  [
    'an event of a new kind',
    '  return granted(job, createdAt, checkpoint)\nend',
    "  append(job, 'mark ' .. job.attempt .. ' {\"later\":true}')\n  store(job, {})\n  return granted(job, createdAt, checkpoint)\nend",
  ],
]

export const laterRelease = (): Release => {
  const scripts: Release['scripts'] = {}
  const found = new Set<string>()
  for (const { name, source } of Object.values<Script>(SCRIPTS)) {
    let later = source
    for (const [, from, to] of ADDITIONS) {
      if (!later.includes(from)) continue
      found.add(from)
      later = later.replace(from, () => to)
    }
    scripts[name] = { source: later, sha: createHash('sha1').update(later).digest('hex') }
  }
  const missing = ADDITIONS.filter(([, from]) => !found.has(from))
  // The text was edited: the additions have to follow it.
  if (missing.length > 0) throw new Error(`No script has ${missing.map(([, from]) => from).join(' | ')}`)
  return { version: 'later', scripts }
}

/** Lets every call of these jobs run the script of the release that `pick` says. */
export const runScriptsOf = (jobs: Jobs, pick: () => Release): void => {
  const { link } = jobs
  const script = link.script.bind(link)
  link.script = (which, key, argv) => script({ ...which, ...pick().scripts[which.name] }, key, argv)
}
