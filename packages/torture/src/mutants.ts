// The build of the scripts under torture. Every run sweeps in tiny steps, so that one sweep takes many. A mutant is one
// deliberate bug more: the checks must find it.
import { createHash } from 'node:crypto'
import { SCRIPTS, type Script } from '../../state/src/scripts.generated.ts'
import { laterRelease } from '../../state/test/releases.ts'

interface Patch {
  says: string
  /** Text of scripts, and what stands there instead. */
  from: string
  to: string
}

export const MUTANTS = {
  'unfenced-progress': {
    says: 'progress is taken from any attempt, whatever its fence',
    from: '  if current ~= fence then\n',
    to: "  if not current or current ~= fence and kind ~= 'progress' then\n",
  },
  'published-before-judged': {
    says: 'a progress event is published before it is known whether it will be written',
    from: '  if current ~= fence then\n',
    to: "  if current and kind == 'progress' then call(PUBLISH, events_key(id), int(seq + 1) .. '-' .. AT .. ' progress ' .. attempt .. ' ' .. value) end\n  if current ~= fence then\n",
  },
  'ever-forgiving': {
    says: 'every sweep counts as the first after a silence of Redis',
    from: 'if not gap or gap < 0 or gap > max_gap then',
    to: 'if true then',
  },
  'never-forgiving': {
    says: 'no sweep forgives lapsed heartbeats after a silence of Redis',
    from: ' and not told_only then\n    arm(',
    to: ' and false then\n    arm(',
  },
} as const satisfies Record<string, Patch>
export type MutantName = keyof typeof MUTANTS
export const MUTANT_NAMES = Object.keys(MUTANTS) as MutantName[]

const TIGHT: Patch = {
  says: 'a step of a sweep looks at two entries',
  from: 'tonumber(minIdleMs), tonumber(count)\n',
  to: 'tonumber(minIdleMs), 2\n',
}

/**
 * The sources of the torture's build, by script.
 *
 * @param later as a release to come has them: two are deployed beside each other
 */
export const buildOf = (mutant: MutantName | undefined, later: boolean): Map<string, string> => {
  const scripts: Record<string, { source: string }> = later ? laterRelease().scripts : SCRIPTS
  const build = new Map(Object.entries(scripts).map(([name, { source }]) => [name, source]))
  for (const { from, to } of [TIGHT, ...(mutant ? [MUTANTS[mutant]] : [])]) {
    const those = [...build].filter(([, source]) => source.includes(from))
    // The text was edited: the patch has to follow it.
    if (those.length === 0) throw new Error(`No script has ${JSON.stringify(from)}`)
    for (const [name, source] of those)
      build.set(
        name,
        source.replace(from, () => to),
      )
  }
  return build
}

/** Makes this process run the scripts of the torture's build from now on. */
export const useBuild = (mutant: MutantName | undefined, later: boolean): void => {
  const all: Record<string, Script> = SCRIPTS
  for (const [name, source] of buildOf(mutant, later))
    Object.assign(all[name] as Script, { source, sha: createHash('sha1').update(source).digest('hex') })
}
