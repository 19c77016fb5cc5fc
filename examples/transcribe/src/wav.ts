// WAV files: the one form that the recogniser takes, and where its utterances begin and end.

export const SAMPLE_RATE = 16_000

export class WavError extends Error {
  override name = 'WavError'
  readonly code = 'UNSUPPORTED_AUDIO'
}

const HOW =
  'Convert it: ffmpeg -i INPUT -ac 1 -ar 16000 -c:a pcm_s16le OUTPUT.wav (or: sox INPUT -c 1 -r 16000 -b 16 OUTPUT.wav)'

/**
 * The samples of a 16-bit mono 16 kHz PCM WAV file.
 *
 * @throws WavError that says what the file is and how to convert it
 */
export const readWav = (file: Buffer): Int16Array => {
  if (
    file.length < 12 ||
    file.toString('latin1', 0, 4) !== 'RIFF' ||
    file.toString('latin1', 8, 12) !== 'WAVE'
  )
    throw new WavError(`This is not a WAV file. ${HOW}`)
  let format: { tag: number; channels: number; rate: number; bits: number } | undefined
  for (let at = 12; at + 8 <= file.length; ) {
    const id = file.toString('latin1', at, at + 4)
    const size = file.readUInt32LE(at + 4)
    const body = at + 8
    if (id === 'fmt ' && body + 16 <= file.length)
      format = {
        tag: file.readUInt16LE(body),
        channels: file.readUInt16LE(body + 2),
        rate: file.readUInt32LE(body + 4),
        bits: file.readUInt16LE(body + 14),
      }
    if (id === 'data') {
      if (!format) throw new WavError(`This WAV file does not say what it holds. ${HOW}`)
      const { tag, channels, rate, bits } = format
      if (tag !== 1 || channels !== 1 || rate !== SAMPLE_RATE || bits !== 16)
        throw new WavError(
          `This WAV file is ${tag === 1 ? '' : 'compressed, '}${bits}-bit, ${channels} channel(s), ${rate} Hz; ` +
            `it must be 16-bit PCM, mono, 16000 Hz. ${HOW}`,
        )
      const end = Math.min(body + size, file.length)
      const samples = new Int16Array((end - body) >> 1)
      for (let i = 0; i < samples.length; i++) samples[i] = file.readInt16LE(body + 2 * i)
      if (samples.length === 0) throw new WavError('This WAV file holds no sound.')
      return samples
    }
    at = body + size + (size % 2)
  }
  throw new WavError(`This WAV file holds no sound data. ${HOW}`)
}

/** A WAV file of samples. */
export const writeWav = (samples: Int16Array): Buffer => {
  const bytes = samples.length * 2
  const file = Buffer.alloc(44 + bytes)
  file.write('RIFF', 0, 'latin1')
  file.writeUInt32LE(36 + bytes, 4)
  file.write('WAVEfmt ', 8, 'latin1')
  file.writeUInt32LE(16, 16)
  file.writeUInt16LE(1, 20)
  file.writeUInt16LE(1, 22)
  file.writeUInt32LE(SAMPLE_RATE, 24)
  file.writeUInt32LE(SAMPLE_RATE * 2, 28)
  file.writeUInt16LE(2, 32)
  file.writeUInt16LE(16, 34)
  file.write('data', 36, 'latin1')
  file.writeUInt32LE(bytes, 40)
  for (let i = 0; i < samples.length; i++) file.writeInt16LE(samples[i] as number, 44 + 2 * i)
  return file
}

/** Milliseconds. A pause this long ends an utterance, unless it is still short; none gets longer than the bound. */
const FRAME_MS = 20
const PAUSE_MS = 240
const SHORTEST_MS = 1_500
const LONGEST_MS = 15_000

export interface Utterance {
  /** Sample numbers; end is exclusive. Utterances follow each other without holes. */
  start: number
  end: number
}

/** Cuts speech at its pauses, in the middle of each, so that no word is lost. */
export const utterances = (samples: Int16Array): Utterance[] => {
  const frame = (SAMPLE_RATE * FRAME_MS) / 1_000
  const energies: number[] = []
  for (let at = 0; at < samples.length; at += frame) {
    let sum = 0
    for (let i = at; i < Math.min(at + frame, samples.length); i++) sum += Math.abs(samples[i] as number)
    energies.push(sum / frame)
  }
  // Silence is what lies near the recording's own floor.
  const sorted = [...energies].sort((a, b) => a - b)
  const floor = sorted[Math.floor(sorted.length * 0.1)] ?? 0
  const loud = sorted[Math.floor(sorted.length * 0.8)] ?? 0
  const threshold = floor + (loud - floor) * 0.12

  const cuts: Utterance[] = []
  let start = 0
  let quietSince = -1
  const cut = (at: number) => {
    if (at <= start) return
    cuts.push({ start, end: at })
    start = at
  }
  for (const [i, energy] of energies.entries()) {
    const spokenMs = ((i * frame - start) / SAMPLE_RATE) * 1_000
    if (energy > threshold) {
      const quietFrames = quietSince < 0 ? 0 : i - quietSince
      if (quietFrames * FRAME_MS >= PAUSE_MS && spokenMs >= SHORTEST_MS)
        cut((quietSince + quietFrames / 2) * frame)
      quietSince = -1
    } else if (quietSince < 0) quietSince = i
    if (((i * frame - start) / SAMPLE_RATE) * 1_000 >= LONGEST_MS) cut(i * frame)
  }
  cut(samples.length)
  return cuts.map(({ start: from, end }) => ({ start: Math.round(from), end: Math.round(end) }))
}
