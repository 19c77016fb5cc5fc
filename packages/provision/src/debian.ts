// Debian packages without root: downloaded and unpacked into a cache folder, nothing of the system changed.
import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdir, mkdtemp, readdir, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { aptOfRelease } from './debian-release.ts'
import { findProgram } from './path.ts'

const run = promisify(execFile)

/** Progress for people, one line at a time. */
export type OnProgress = (line: string) => void

export const hasApt = (): boolean => Boolean(findProgram('apt-get') && findProgram('dpkg'))

/** apt's own state in a folder of ours, for a machine whose package lists are empty or not ours to update. */
const ownLists = async (folder: string): Promise<string[]> => {
  const lists = join(folder, 'lists')
  const cache = join(folder, 'cache')
  await mkdir(join(lists, 'partial'), { recursive: true })
  await mkdir(join(cache, 'archives', 'partial'), { recursive: true })
  return ['-o', `Dir::State::Lists=${lists}`, '-o', `Dir::Cache=${cache}`]
}

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

interface UnpackOptions {
  cacheDir: string
  /** Codename of a release of Debian; default: the machine's own packages. */
  release?: string
  onProgress?: OnProgress
}

/** The packages to download, and the options with which apt knows them. */
const solve = async (packages: string[], work: string, options: UnpackOptions) => {
  const { cacheDir, release, onProgress } = options
  if (!release)
    try {
      return { names: await missingClosure(packages, []), aptOptions: [] }
    } catch {
      // The machine's lists don't know them (a fresh container has none at all): lists of our own will.
    }
  onProgress?.(`reading the package lists${release ? ` of Debian ${release}` : ''}`)
  const aptOptions = release
    ? [...(await ownLists(join(work, 'apt'))), ...(await aptOfRelease(release, join(work, 'apt')))]
    : await ownLists(join(cacheDir, 'apt'))
  await run('apt-get', [...aptOptions, 'update'])
  return { names: await missingClosure(packages, aptOptions), aptOptions }
}

/**
 * Unpacks packages with what they need, and answers the folder that stands for `/`.
 * Safe when two processes do it at once, and when one is killed half-way: the folder appears as a whole.
 *
 * @throws Error with code DEBIAN_UNAVAILABLE: no apt here, or a package that can't be had
 */
export const unpackDebianPackages = async (packages: string[], options: UnpackOptions): Promise<string> => {
  const { cacheDir, release = '', onProgress = () => undefined } = options
  const root = join(cacheDir, 'debian', release, packages.join('+'))
  if (existsSync(root)) return root
  if (!hasApt()) throw unavailable(packages, 'this machine has no apt-get and dpkg')
  await mkdir(join(cacheDir, 'debian', release), { recursive: true })
  const work = await mkdtemp(join(cacheDir, 'debian', 'unpacking-'))
  try {
    const { names, aptOptions } = await solve(packages, work, options)
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

const TRIPLET = `${{ x64: 'x86_64', arm64: 'aarch64' }[process.arch as string] ?? process.arch}-linux-gnu`

/** The environment in which a program unpacked to `root` finds its libraries. */
export const environmentOf = (root: string): Record<string, string> => {
  const folders = ['usr/lib', 'lib']
    .flatMap((folder) =>
      ['', '/pulseaudio', '/blas', '/lapack']
        .map((part) => join(root, folder, TRIPLET + part))
        .concat(join(root, folder)),
    )
    .filter((folder) => existsSync(folder))
  const inherited = process.env.LD_LIBRARY_PATH
  return { LD_LIBRARY_PATH: [...folders, ...(inherited ? [inherited] : [])].join(':') }
}

/**
 * The command that runs a program of another release: by that release's own loader and C library, so that it sees this
 * machine's files and needs no chroot. The program's arguments follow.
 */
export const commandOf = async (root: string, program: string): Promise<[string, ...string[]]> => {
  const folder = join(root, 'usr/lib', TRIPLET)
  const loader = (await readdir(folder)).find((name) => /^ld-linux-.*\.so\.\d+$/.test(name))
  if (!loader) throw new Error(`no loader is in ${folder}`)
  return [join(folder, loader), '--library-path', folder, join(root, program)]
}

const lastLine = (cause: unknown): string => {
  const { stderr, message } = cause as { stderr?: string; message: string }
  return (stderr || message).trim().split('\n').at(-1) ?? 'unknown'
}

const unavailable = (packages: string[], reason: string, cause?: unknown) =>
  Object.assign(new Error(`The Debian packages ${packages.join(', ')} can't be had: ${reason}`, { cause }), {
    code: 'DEBIAN_UNAVAILABLE',
  })
