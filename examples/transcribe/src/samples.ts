// The recordings that the demo transcribes: what the folder holds, and all of it read in one go.
import { readdir, readFile, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { readWav, writeWav } from './wav.ts'

export interface Sample {
  file: string
  title: string
}

/** The folder's recordings by name, after one made of all of them: long enough to be killed in its middle. */
export const samplesIn = async (samplesDir: string, dataDir: string): Promise<Sample[]> => {
  const names = (await readdir(samplesDir)).sort()
  const wavs = names.filter((name) => name.endsWith('.wav'))
  if (wavs.length === 0) {
    // Not recordings, then: any real files do for the second workload.
    const files: Sample[] = []
    for (const name of names) {
      const file = join(samplesDir, name)
      if ((await stat(file)).isFile()) files.push({ file, title: name })
    }
    return files.slice(0, 6)
  }
  const recordings = await Promise.all(
    wavs.map(async (name) => readWav(await readFile(join(samplesDir, name)))),
  )
  const all = new Int16Array(recordings.reduce((sum, samples) => sum + samples.length, 0))
  let at = 0
  for (const samples of recordings) {
    all.set(samples, at)
    at += samples.length
  }
  const file = join(dataDir, 'all-recordings.wav')
  await writeFile(file, writeWav(all))
  return [
    { file, title: 'All recordings in one' },
    ...wavs.map((name) => ({ file: join(samplesDir, name), title: titleOf(name) })),
  ]
}

/** `sense_and_sensibility_01_austen_64kb-0870.wav` reads better as `Sense and sensibility, 0870`. */
const titleOf = (name: string): string => {
  const [book = name, part = ''] = name.replace(/\.wav$/, '').split('-')
  const words = book.replace(/_\d.*$/, '').replaceAll('_', ' ')
  return `${words.charAt(0).toUpperCase()}${words.slice(1)}${part ? `, ${part}` : ''}`
}
