// What is thrown at the gateway: messages that are nearly right, frames that are not, upgrades that are something else.
import { readFileSync } from 'node:fs'
import { CONTINUATION, closeFrame, frame, PING, TEXT } from '../raw.ts'
import type { Random } from './random.ts'

export interface Case {
  kind: 'message' | 'frame' | 'upgrade'
  bytes: Buffer
  /** A close code that the client says, and gets back. */
  closes: number | undefined
}

/** A message of each type, out of the documents made from the schemas: none is forgotten. */
const { $defs } = JSON.parse(
  readFileSync(new URL('../../../../docs/protocol/schemas/client-message.json', import.meta.url), 'utf8'),
) as { $defs: Record<string, { examples?: object[]; properties?: { type?: object } }> }
const MESSAGES = Object.values($defs).flatMap(({ examples, properties }) =>
  properties?.type ? (examples ?? []) : [],
)

const NASTY: readonly unknown[] = [
  null,
  true,
  -1,
  0,
  1e308,
  2 ** 53,
  '',
  '0-0',
  '1-1',
  '*',
  'a}b',
  '{x}',
  '__proto__',
  'constructor',
  '\0',
  '\u202e',
  '\ud800',
  '\u2028',
  'x'.repeat(200),
  [],
  [[]],
  {},
  { __proto__: null },
]
const KEYS = [
  'type',
  'job',
  'jobs',
  'tag',
  'cursor',
  'detail',
  'id',
  'token',
  '__proto__',
  'constructor',
  'extra',
]
const PIECES = [
  '{',
  '}',
  '[',
  ']',
  '"',
  ',',
  ':',
  '\\',
  '\\u0000',
  '\ud800',
  'null',
  '1e999',
  '\ufeff',
  '"__proto__":{}',
]

/** What a case may be made of. */
export interface Known {
  /** Ids and cursors that mean something. */
  names: readonly string[]
  /** Tokens that are taken; none where the gateway asks for none. */
  tokens: readonly string[]
}

/** A token, or nearly one: a character is another, an end is missing, a part is of another token. */
const token = (random: Random, tokens: readonly string[]): string => {
  const good = random.pick(tokens)
  const at = random.below(good.length)
  return random.pick([
    good,
    good,
    good.slice(0, at) + random.pick(['A', '.', '=', '']) + good.slice(at + 1),
    good.slice(0, at),
    good
      .split('.')
      .map((part) => (random.chance(0.3) ? (random.pick(tokens).split('.')[random.below(3)] ?? '') : part))
      .join('.'),
  ])
}

/** A message, changed in its structure. */
const changed = (random: Random, { names: known, tokens }: Known): unknown => {
  const message = structuredClone(random.pick(MESSAGES)) as Record<string, unknown>
  if ('job' in message && random.chance(0.7)) message.job = random.pick(known)
  if ('token' in message && tokens.length > 0) message.token = token(random, tokens)
  if ('jobs' in message && random.chance(0.7)) message.jobs = [random.pick(known), random.pick(known)]
  for (let changes = random.below(3); changes > 0; changes--) {
    const key = random.pick([...Object.keys(message), random.pick(KEYS)])
    if (random.chance(0.3)) delete message[key]
    else
      Object.defineProperty(message, key, {
        value: random.chance(0.3) ? random.pick(known) : random.pick(NASTY),
        enumerable: true,
        configurable: true,
        writable: true,
      })
  }
  if (random.chance(0.05)) return random.pick(NASTY)
  if (random.chance(0.1)) return Array.from({ length: random.below(110) }, () => message)
  return message
}

const text = (random: Random, known: Known): Buffer => {
  let said = JSON.stringify(changed(random, known)) ?? ''
  // Sometimes what no JSON.stringify makes.
  for (let cuts = random.chance(0.4) ? 1 + random.below(4) : 0; cuts > 0; cuts--) {
    const at = random.below(said.length + 1)
    said = said.slice(0, at) + random.pick([...PIECES, '']) + said.slice(at + random.below(4))
  }
  const bytes = Buffer.from(said)
  if (bytes.length > 0 && random.chance(0.1)) bytes[random.below(bytes.length)] = random.below(256)
  return bytes
}

const OPCODES = [CONTINUATION, TEXT, TEXT, TEXT, 2, 3, 7, PING, 10, 11, 15]
/** Some that a client may say, and some that nobody may. */
const CLOSES = [1000, 1001, 3000, 4000, 4999, 0, 999, 1005, 1006, 1015, 5000, 65_535]

const oddFrame = (random: Random, known: Known): Buffer => {
  const opcode = random.pick(OPCODES)
  const body = random.chance(0.5)
    ? text(random, known)
    : random.bytes(random.below(random.pick([4, 130, 700])))
  return frame(body, {
    opcode,
    fin: random.chance(0.7),
    rsv: random.chance(0.1) ? random.below(8) : 0,
    masked: random.chance(0.95),
    ...(random.chance(0.05) ? { announced: 1n << BigInt(random.below(64)) } : {}),
  })
}

/** A message in fragments, sometimes with a control frame between them. */
const fragments = (random: Random, known: Known): Buffer => {
  const whole = text(random, known)
  const count = 1 + random.below(20)
  const size = Math.ceil(whole.length / count)
  return Buffer.concat(
    Array.from({ length: count }, (_, i) => [
      frame(whole.subarray(i * size, (i + 1) * size), {
        opcode: i ? CONTINUATION : TEXT,
        fin: i === count - 1,
      }),
      ...(random.chance(0.1) ? [frame('', { opcode: PING })] : []),
    ]).flat(),
  )
}

const HEADERS = [
  'Host: localhost',
  'Connection: Upgrade',
  'Upgrade: websocket',
  'Sec-WebSocket-Version: 13',
  'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==',
  'Sec-WebSocket-Protocol: jobs.v1.json',
]
const ODD_HEADERS = [
  'Host: other',
  'Upgrade: h2c',
  'Sec-WebSocket-Version: 8',
  'Sec-WebSocket-Version: 99',
  'Sec-WebSocket-Key: short',
  'Sec-WebSocket-Protocol: , ,',
  'Sec-WebSocket-Protocol: bearer.x, jobs.v1.json',
  'Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits=99',
  'Content-Length: 5',
  'Transfer-Encoding: chunked',
  'Authorization: Bearer \u00ff',
  'Origin: null',
  'Cookie: a=b',
  ' folded: line',
  'Last-Event-ID: 0-0',
  'If-None-Match: *',
]

const PATHS = ['/v1/ws?token=x', '/v1/ws?', '//v1/ws', '/v1/jobs/', '*', 'http://x/v1/ws', '/%00']
const METHODS = ['HEAD', 'POST', 'OPTIONS', 'CONNECT', 'get', 'PRI']

/** A good request, changed in some places or in none. */
const upgrade = (random: Random, { names: known, tokens }: Known): Buffer => {
  const odd = (of: number) => random.chance(of)
  const headers = odd(0.5) ? HEADERS.filter(() => !odd(0.1)) : [...HEADERS]
  for (let more = odd(0.5) ? random.below(3) : 0; more > 0; more--) headers.push(random.pick(ODD_HEADERS))
  if (tokens.length > 0 && odd(0.8))
    headers.push(
      odd(0.5)
        ? `Authorization: Bearer ${token(random, tokens)}`
        : `Sec-WebSocket-Protocol: bearer.${token(random, tokens)}`,
    )
  const path = odd(0.3) ? random.pick(PATHS) : '/v1/ws'
  const target = path === '/v1/jobs/' ? path + random.pick([...known, '..', '%7D', '%', 'a/events']) : path
  const method = odd(0.15) ? random.pick(METHODS) : 'GET'
  const version = odd(0.15) ? random.pick(['1.0', '2.0', '9']) : '1.1'
  const end = odd(0.1) ? random.pick(['\n', '\r', '\0\r\n']) : '\r\n'
  const bytes = Buffer.from([`${method} ${target} HTTP/${version}`, ...headers, '', ''].join(end), 'latin1')
  for (let flips = odd(0.2) ? 1 + random.below(3) : 0; flips > 0; flips--)
    bytes[random.below(bytes.length)] = random.below(256)
  return odd(0.1) ? bytes.subarray(0, random.below(bytes.length)) : bytes
}

export const caseOf = (random: Random, known: Known): Case => {
  const kind = random.pick(['message', 'message', 'frame', 'upgrade'] as const)
  if (kind === 'upgrade') return { kind, bytes: upgrade(random, known), closes: undefined }
  const parts: Buffer[] = []
  if (known.tokens.length > 0 && random.chance(0.7))
    parts.push(frame(JSON.stringify({ type: 'hello', token: token(random, known.tokens) })))
  for (let count = 1 + random.below(5); count > 0; count--)
    parts.push(
      kind === 'message'
        ? frame(text(random, known))
        : random.chance(0.3)
          ? fragments(random, known)
          : oddFrame(random, known),
    )
  const closes = random.chance(0.1) ? random.pick(CLOSES) : undefined
  if (closes !== undefined) parts.push(closeFrame(closes, random.chance(0.5) ? 'bye' : ''))
  return { kind, bytes: Buffer.concat(parts), closes }
}
