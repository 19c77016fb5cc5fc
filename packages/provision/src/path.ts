// Finding programs, and the project's cache folder.
import { accessSync, constants, existsSync } from 'node:fs'
import { delimiter, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

/** The first executable of that name on the PATH. */
export const findProgram = (name: string, path = process.env.PATH ?? ''): string | undefined =>
  path
    .split(delimiter)
    .filter(Boolean)
    .map((folder) => join(folder, name))
    .find((file) => {
      try {
        accessSync(file, constants.X_OK)
        return true
      } catch {
        return false
      }
    })

/** Top of the workspace: where pnpm-workspace.yaml is. */
export const workspaceRoot = (): string => {
  let folder = dirname(fileURLToPath(import.meta.url))
  while (!existsSync(join(folder, 'pnpm-workspace.yaml'))) {
    const parent = dirname(folder)
    if (parent === folder) throw new Error('pnpm-workspace.yaml was not found above this package')
    folder = parent
  }
  return folder
}

/** Where fetched programs are kept: `.cache` of the workspace, or JOBS_CACHE_DIR. */
export const cacheFolder = (env: NodeJS.ProcessEnv = process.env): string =>
  env.JOBS_CACHE_DIR || join(workspaceRoot(), '.cache')
