// Loaded before the program of each process of the fleet: makes it run the torture's build of the scripts.
import { type MutantName, useBuild } from '../mutants.ts'

const { TORTURE_MUTANT = '', TORTURE_LATER = '' } = process.env
useBuild((TORTURE_MUTANT || undefined) as MutantName | undefined, TORTURE_LATER === 'yes')
