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
  'cursor-not-followed': {
    says: 'a sweep ends after its first step',
    from: "        answer[1] = name .. ' ' .. on\n",
    to: "        answer[1] = '0-0'\n",
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
 * Makes this process run the scripts of the torture's build from now on.
 *
 * @param later as a release to come has them: two are deployed beside each other
 */
export const useBuild = (mutant: MutantName | undefined, later: boolean): void => {
  const all: Record<string, Script> = SCRIPTS
  if (later)
    for (const [name, { source }] of Object.entries(laterRelease().scripts))
      (all[name] as Script).source = source
  for (const { from, to } of [TIGHT, ...(mutant ? [MUTANTS[mutant]] : [])]) {
    const those = Object.values(all).filter(({ source }) => source.includes(from))
    // The text was edited: the patch has to follow it.
    if (those.length === 0) throw new Error(`No script has ${JSON.stringify(from)}`)
    for (const script of those) script.source = script.source.replace(from, () => to)
  }
  for (const script of Object.values(all)) script.sha = createHash('sha1').update(script.source).digest('hex')
}
