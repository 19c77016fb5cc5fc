// Debian packages without root: downloaded and unpacked into a cache folder, nothing of the system changed.
import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdir, mkdtemp, readdir, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { findProgram } from './path.ts'

const run = promisify(execFile)

/** Progress for people, one line at a time. */
export type OnProgress = (line: string) => void

export const hasApt = (): boolean => Boolean(findProgram('apt-get') && findProgram('dpkg'))

/** apt's own state in the cache folder, for a machine whose package lists are empty or not ours to update. */
const ownLists = (cacheDir: string) => [
  '-o',
  `Dir::State::Lists=${join(cacheDir, 'apt', 'lists')}`,
  '-o',
  `Dir::Cache=${join(cacheDir, 'apt', 'cache')}`,
]

/** The packages and what of their dependencies the machine lacks, by apt's own solver in a dry run. */
const missingClosure = async (packages: string[], aptOptions: string[]): Promise<string[]> => {
  const { stdout } = await run('apt-get', [
    ...aptOptions,
    'install',
    '--simulate',
    '--no-install-recommends',
    '--reinstall',
    ...packages,
  ])
  return [...stdout.matchAll(/^Inst (\S+)/gm)].map((match) => match[1] as string)
}

/**
 * Unpacks packages with what they need, and answers the folder that stands for `/`.
 * Safe when two processes do it at once, and when one is killed half-way: the folder appears as a whole.
 *
 * @throws Error with code DEBIAN_UNAVAILABLE: no apt here, or a package that can't be had
 */
export const unpackDebianPackages = async (
  packages: string[],
  { cacheDir, onProgress = () => undefined }: { cacheDir: string; onProgress?: OnProgress },
): Promise<string> => {
  const root = join(cacheDir, 'debian', packages.join('+'))
  if (existsSync(root)) return root
  if (!hasApt()) throw unavailable(packages, 'this machine has no apt-get and dpkg')
  await mkdir(join(cacheDir, 'debian'), { recursive: true })
  const work = await mkdtemp(join(cacheDir, 'debian', 'unpacking-'))
  try {
    let aptOptions: string[] = []
    let names: string[]
    try {
      names = await missingClosure(packages, aptOptions)
    } catch {
      // The machine's lists don't know them (a fresh container has none at all): fetch lists of our own.
      onProgress('reading the package lists')
      aptOptions = ownLists(cacheDir)
      await mkdir(join(cacheDir, 'apt', 'lists', 'partial'), { recursive: true })
      await mkdir(join(cacheDir, 'apt', 'cache', 'archives', 'partial'), { recursive: true })
      await run('apt-get', [...aptOptions, 'update'])
      names = await missingClosure(packages, aptOptions)
    }
    onProgress(`downloading ${names.length} Debian packages for ${packages.join(', ')}`)
    await run('apt-get', [...aptOptions, 'download', ...names], { cwd: work, maxBuffer: 16 * 1024 * 1024 })
    const archives = (await readdir(work)).filter((name) => name.endsWith('.deb'))
    onProgress(`unpacking ${archives.length} packages`)
    for (const archive of archives) {
      await run('dpkg', ['-x', archive, join(work, 'root')], { cwd: work })
      await rm(join(work, archive))
    }
    // Another process may have been first; its folder is as good as ours.
    await rename(join(work, 'root'), root).catch((error: NodeJS.ErrnoException) => {
      if (!existsSync(root)) throw error
    })
    return root
  } catch (cause) {
    throw unavailable(packages, lastLine(cause), cause)
  } finally {
    await rm(work, { recursive: true, force: true })
  }
}

/** The environment in which a program unpacked to `root` finds its libraries. */
export const environmentOf = (root: string): Record<string, string> => {
  const folders = ['usr/lib', 'lib']
    .flatMap((folder) => {
      const triplet = `${{ x64: 'x86_64', arm64: 'aarch64' }[process.arch as string] ?? process.arch}-linux-gnu`
      return ['', '/pulseaudio', '/blas', '/lapack']
        .map((part) => join(root, folder, triplet + part))
        .concat(join(root, folder))
    })
    .filter((folder) => existsSync(folder))
  const inherited = process.env.LD_LIBRARY_PATH
  return { LD_LIBRARY_PATH: [...folders, ...(inherited ? [inherited] : [])].join(':') }
}

const lastLine = (cause: unknown): string => {
  const { stderr, message } = cause as { stderr?: string; message: string }
  return (stderr || message).trim().split('\n').at(-1) ?? 'unknown'
}

const unavailable = (packages: string[], reason: string, cause?: unknown) =>
  Object.assign(new Error(`The Debian packages ${packages.join(', ')} can't be had: ${reason}`, { cause }), {
    code: 'DEBIAN_UNAVAILABLE',
  })
