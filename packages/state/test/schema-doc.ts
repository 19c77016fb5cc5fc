// docs/redis-schema.md as data: its tables and its ACL lines, so that tests hold the page to what is there.
import { readFileSync } from 'node:fs'

const page = readFileSync(new URL('../../../docs/redis-schema.md', import.meta.url), 'utf8')

/** The namespace that the page writes in. */
const WRITTEN_AS = /transcribe/g

/** The text between a heading, of whatever depth, and the next one. */
const under = (heading: string): string => {
  const at = page.split(/^#+ (.*)\n/m)
  const found = at.indexOf(heading)
  if (found < 0) throw new Error(`docs/redis-schema.md has no heading "${heading}"`)
  return at[found + 1] as string
}

/** The cells of the first table under a heading, without its head. */
export const tableUnder = (heading: string): string[][] => {
  const table = /(?:^\|.*\n)+/m.exec(under(heading))?.[0] ?? ''
  const rows = table.trimEnd().split('\n').slice(2)
  return rows.map((row) =>
    row
      .slice(1, -1)
      .split('|')
      .map((cell) => cell.trim()),
  )
}

/** Arguments of the `ACL` commands under a heading, for another namespace. */
export const aclUnder = (heading: string, namespace: string, secret: string): string[][] =>
  [...under(heading).matchAll(/^ACL (SETUSER .*)$/gm)].map(([, line = '']) =>
    line.replace(WRITTEN_AS, namespace).replace('SECRET', secret).split(' '),
  )

/** The key patterns of a worker of one job name. */
export const oneNameOnly = (namespace: string): string[] =>
  (/^(~\S+:work:mail .*)$/m.exec(under('worker'))?.[1] ?? '').replace(WRITTEN_AS, namespace).split(' ')
