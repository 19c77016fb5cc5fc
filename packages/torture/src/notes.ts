// Reads what the processes of the fleet have noted since the last time.
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'

export interface NotesReader {
  /** New notes of the process; a line that is still being written is read the next time. */
  read<T>(name: string): T[]
}

export const notesIn = (folder: string): NotesReader => {
  const read = new Map<string, number>()
  return {
    read: <T>(name: string): T[] => {
      const file = join(folder, `${name}.jsonl`)
      if (!existsSync(file)) return []
      const bytes = readFileSync(file)
      const end = bytes.lastIndexOf('\n') + 1
      const text = bytes.subarray(read.get(name) ?? 0, end).toString()
      read.set(name, end)
      return text
        .split('\n')
        .filter((line) => line.length > 0)
        .map((line) => JSON.parse(line) as T)
    },
  }
}
