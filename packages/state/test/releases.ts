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
    'job.state, job.last = state, MOVE',
    "job.state, job.last = state, MOVE\n  local head, hops, tail = match(job.rest, '^( %S+ %d+ %d+) ?(%d*)(.*)$')\n  job.rest = head .. ' ' .. int((tonumber(hops) or 0) + 1) .. tail",
  ],
  ['a flag', 'enqueue 0- 0 - 0 0', 'enqueue 0- 0 z 0 0'],
  ['a field of the hash', "put('now', now_of(job))", "put('now', now_of(job))\n  put('later', 'kept')"],
  [
    'an event of a new kind',
    '  return granted(job, createdAt, checkpoint, given)\nend',
    "  append(job, 'mark ' .. job.attempt .. ' {\"later\":true}')\n  store(job)\n  return granted(job, createdAt, checkpoint, given)\nend",
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
