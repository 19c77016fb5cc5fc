// The mutants are changes of the scripts' text: when that text is edited, they have to follow.
import { expect, it } from 'vitest'
import { buildOf, MUTANT_NAMES } from '../src/mutants.ts'

it.each(MUTANT_NAMES)('the mutant %s changes what workers run, in both releases', (name) => {
  for (const later of [false, true]) {
    const [sound, mutant] = [buildOf(undefined, later), buildOf(name, later)]
    const changed = [...mutant].filter(([script, source]) => source !== sound.get(script))
    expect(changed.map(([script]) => script)).toContain(name.endsWith('-forgiving') ? 'reap' : 'apply')
  }
})
