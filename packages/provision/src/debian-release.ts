// Another release of Debian than the machine's own: apt with sources, lists and an empty status of its own, and a way to
// run what was unpacked from it. The mirror is the one that the machine already uses.
import { existsSync } from 'node:fs'
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'

/** A file of /etc/apt: one-line format in `*.list`, stanzas in `*.sources`. */
interface SourcesFile {
  name: string
  text: string
}

/** Names under which a mirror of Debian has the whole of a release. */
const WHOLE = ['stable', 'oldstable', 'testing', 'unstable', 'sid']

const ONE_LINE = /^\s*deb\s+(\[[^\]]*\]\s+)?(\S+)\s+(\S+)\s+(.*)$/

/**
 * The machine's sources of Debian itself (its codename's suite, component main), turned to another release; as they may
 * stand in two files of a folder of their own. Other people's sources, updates and security suites are left out.
 */
export const sourcesFor = (release: string, codename: string, files: readonly SourcesFile[]) => {
  const ours = (suites: string, components: string) =>
    suites.split(/\s+/).some((suite) => suite === codename || WHOLE.includes(suite)) &&
    components.split(/\s+/).includes('main')
  const lines: string[] = []
  const stanzas: string[] = []
  for (const { name, text } of files) {
    const lived = text.replace(/^#.*\n?/gm, '')
    if (name.endsWith('.list'))
      for (const line of lived.split('\n')) {
        const [, options = '', uri, suite = '', components = ''] = ONE_LINE.exec(line) ?? []
        if (uri && ours(suite, components)) lines.push(`deb ${options}${uri} ${release} main`)
      }
    else
      for (const stanza of lived.split(/\n\s*\n/)) {
        // A value goes on in lines that begin with a space: an embedded key does.
        const fields = new Map(
          [...stanza.matchAll(/^([\w-]+):(.*(?:\n[ \t].*)*)/gm)].map(([, field = '', value = '']) => [
            field.toLowerCase(),
            value.trim(),
          ]),
        )
        const off = fields.get('enabled') === 'no' || !fields.get('types')?.split(/\s+/).includes('deb')
        if (off || !ours(fields.get('suites') ?? '', fields.get('components') ?? '')) continue
        fields.set('types', 'deb').set('suites', release).set('components', 'main')
        stanzas.push([...fields].map(([field, value]) => `${field}: ${value}`).join('\n'))
      }
  }
  return { list: lines.join('\n'), sources: stanzas.join('\n\n') }
}

const machinesSources = async (): Promise<SourcesFile[]> => {
  const more = '/etc/apt/sources.list.d'
  const names = existsSync(more) ? (await readdir(more)).filter((name) => /\.(list|sources)$/.test(name)) : []
  const paths = ['/etc/apt/sources.list', ...names.map((name) => join(more, name))].filter(existsSync)
  return Promise.all(paths.map(async (name) => ({ name, text: await readFile(name, 'utf8') })))
}

/**
 * Options that make apt-get see that release only, on a machine that has nothing of it; its files go into `folder`.
 *
 * @throws Error when the machine's apt has no source of Debian
 */
export const aptOfRelease = async (release: string, folder: string): Promise<string[]> => {
  const os = await readFile('/etc/os-release', 'utf8')
  const codename = /^VERSION_CODENAME="?([\w-]+)/m.exec(os)?.[1] ?? ''
  const { list, sources } = sourcesFor(release, codename, await machinesSources())
  if (!list && !sources)
    throw new Error(`no source of Debian ${codename} is in /etc/apt to take ${release} from`)
  await mkdir(join(folder, 'sources'), { recursive: true })
  await writeFile(join(folder, 'sources', 'machine.list'), `${list}\n`)
  await writeFile(join(folder, 'sources', 'machine.sources'), `${sources}\n`)
  await writeFile(join(folder, 'status'), '')
  return [
    `Dir::Etc::SourceList=/dev/null`,
    `Dir::Etc::SourceParts=${join(folder, 'sources')}`,
    // Pins of the machine are about its own release.
    'Dir::Etc::Preferences=/dev/null',
    'Dir::Etc::PreferencesParts=/dev/null',
    `Dir::State::Status=${join(folder, 'status')}`,
    'Acquire::Languages=none',
    'Acquire::Retries=1',
    'Acquire::http::Timeout=15',
    'Acquire::https::Timeout=15',
    // A mirror that can't be reached is told as such, and not as a package that is unknown.
    'APT::Update::Error-Mode=any',
  ].flatMap((option) => ['-o', option])
}
