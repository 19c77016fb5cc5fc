// The one audio form that is taken, what is said of any other, and where utterances are cut.
import { expect, it } from 'vitest'
import { readWav, SAMPLE_RATE, utterances, WavError, writeWav } from '../src/wav.ts'

const tone = (ms: number, level: number) =>
  Int16Array.from({ length: (SAMPLE_RATE * ms) / 1_000 }, (_, i) => Math.round(level * Math.sin(i / 5)))
const joined = (...parts: Int16Array[]) => Int16Array.from(parts.flatMap((part) => [...part]))

it('reads what it writes', () => {
  const samples = tone(100, 9_000)
  expect(readWav(writeWav(samples))).toEqual(samples)
})

it.each([
  ['not a WAV file', Buffer.from('ID3')],
  [
    '44100 Hz',
    (() => {
      const file = writeWav(tone(10, 1))
      file.writeUInt32LE(44_100, 24)
      return file
    })(),
  ],
  [
    '2 channel',
    (() => {
      const file = writeWav(tone(10, 1))
      file.writeUInt16LE(2, 22)
      return file
    })(),
  ],
  ['no sound', writeWav(new Int16Array(0))],
])('refuses a file that is %s and says what to do', (what, file) => {
  expect(() => readWav(file)).toThrow(WavError)
  expect(() => readWav(file)).toThrow(what)
})

it('cuts at pauses, without holes, and bounds the length', () => {
  const speech = joined(
    tone(2_000, 8_000),
    tone(500, 20),
    tone(2_000, 8_000),
    tone(500, 20),
    tone(20_000, 8_000),
  )
  const cuts = utterances(speech)
  expect(cuts.length).toBeGreaterThanOrEqual(4)
  expect(cuts[0]?.start).toBe(0)
  expect(cuts.at(-1)?.end).toBe(speech.length)
  for (const [i, cut] of cuts.entries()) {
    if (i > 0) expect(cut.start).toBe(cuts[i - 1]?.end)
    expect((cut.end - cut.start) / SAMPLE_RATE).toBeLessThanOrEqual(15.1)
  }
})
