// PocketSphinx, its English model and its recordings of read books: from the PATH, else unpacked Debian packages.
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { environmentOf, unpackDebianPackages } from './debian.ts'
import { cacheFolder, findProgram } from './path.ts'
import type { FindOptions } from './redis.ts'

export interface Pocketsphinx {
  program: string
  env: Record<string, string>
  /** Holds the acoustic model `en-us/`, the language model `en-us.lm.bin` and `cmudict-en-us.dict`. */
  modelDir: string
  /** Holds the recordings and what was read. */
  testdataDir: string
  described: string
}

const PACKAGES = ['pocketsphinx', 'pocketsphinx-en-us', 'pocketsphinx-testdata']

const at = (root: string) => ({
  modelDir: join(root, 'usr/share/pocketsphinx/model/en-us'),
  testdataDir: join(root, 'usr/share/pocketsphinx/test/data'),
})

/** Answers `missing` with the reason where it can't be had. */
export const findPocketsphinx = async ({
  env = process.env,
  onProgress,
}: FindOptions = {}): Promise<Pocketsphinx | { missing: string }> => {
  const program = findProgram('pocketsphinx_continuous', env.PATH)
  const installed = at('/')
  if (program && existsSync(installed.modelDir) && existsSync(installed.testdataDir))
    return { program, env: {}, ...installed, described: 'PocketSphinx from the PATH' }
  try {
    const root = await unpackDebianPackages(PACKAGES, {
      cacheDir: cacheFolder(env),
      ...(onProgress ? { onProgress } : {}),
    })
    return {
      program: join(root, 'usr/bin/pocketsphinx_continuous'),
      env: environmentOf(root),
      ...at(root),
      described: 'PocketSphinx from Debian packages unpacked into the cache folder',
    }
  } catch (error) {
    return { missing: (error as Error).message }
  }
}
