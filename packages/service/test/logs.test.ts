// A log line is one line of JSON, whatever was in its fields.
import { expect, it } from 'vitest'
import { createLogger } from '../src/run.ts'

const logged = (fields: Record<string, unknown>): string[] => {
  const lines: string[] = []
  createLogger('test', 'info', { write: (line) => lines.push(line) }).info(fields, 'said')
  return lines
}

it.each([
  ['line ends', 'a\r\n{"level":60,"msg":"forged"}'],
  ['escape sequences of a terminal', '\u001b[2J\u009b31m\u007f'],
  ['line ends of Unicode', 'a\u2028b\u2029c\u0085d'],
  ['a NUL and a lone surrogate', '\0\ud800'],
])('stays one line that a terminal shows as it is, with %s', (_, text) => {
  const [line = '', ...more] = logged({ address: text, err: text, of: [{ deep: text }] })
  expect(more).toEqual([])
  expect(line.endsWith('}\n')).toBe(true)
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what this is about
  expect(line.slice(0, -1)).not.toMatch(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]/)
  expect(JSON.parse(line)).toMatchObject({ msg: 'said', name: 'test' })
})

it('cuts a field of a megabyte to 256 bytes, and leaves what is ours', () => {
  const huge = 'ä'.repeat(500_000)
  const [line = ''] = logged({ address: huge, of: [{ subject: huge }], fix: 'x'.repeat(1_000) })
  const { address, of, fix } = JSON.parse(line)
  for (const text of [address, of[0].subject]) expect(Buffer.byteLength(text)).toBeLessThanOrEqual(256 + 6)
  expect(fix).toHaveLength(1_000)
})
