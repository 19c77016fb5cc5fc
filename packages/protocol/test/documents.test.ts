// The documents made from the schemas: a stranger's tools take them, and they say what the schemas say.
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { Parser } from '@asyncapi/parser'
import { Ajv2020 } from 'ajv/dist/2020.js'
import { describe, expect, it } from 'vitest'
import { parse } from 'yaml'
import { CLOSE, ClientMessage, ServerMessage } from '../src/index.ts'

const read = (file: string) =>
  readFileSync(fileURLToPath(new URL(`../../../docs/protocol/${file}`, import.meta.url)), 'utf8')

const text = read('asyncapi.yaml')
const document = parse(text)
const schemaOf = (file: string) => JSON.parse(read(`schemas/${file}`))
const typesOf = (union: { options: readonly { shape: { type: { value: string } } }[] }) =>
  union.options.map(({ shape }) => shape.type.value)

const ajv = new Ajv2020({ strict: true, allErrors: true })
for (const side of ['client', 'server'])
  for (const kind of ['message', 'frame'])
    ajv.addSchema(schemaOf(`${side}-${kind}.json`), `${side}-${kind}.json`)

it('is an AsyncAPI 3 document that the AsyncAPI parser finds nothing wrong with', async () => {
  const { document: parsed, diagnostics } = await new Parser().parse(text)
  // Severity 0 is an error, 1 a warning.
  expect(diagnostics.filter(({ severity }) => severity <= 1)).toEqual([])
  expect(parsed?.version()).toBe('3.0.0')
  expect(
    parsed
      ?.channels()
      .all()
      .map((channel) => channel.address()),
  ).toEqual(['/v1/ws'])
})

it('an event of a later kind is taken, one of a known kind only in its form', () => {
  const told = (item: object) => ({ type: 'events', job: 'a', from: 1, to: 1, cursor: '1-5', items: [item] })
  const later = { type: 'paused', seq: 1, at: 5, until: 7 }
  expect(ServerMessage.safeParse(told(later)).data).toMatchObject({ items: [later] })
  expect(ajv.validate('server-message.json', told(later))).toBe(true)
  for (const damaged of [
    { type: 'log', seq: 1, at: 5 },
    { type: 'paused', at: 5 },
    { type: 'state', seq: 1, at: 5 },
  ]) {
    expect(ServerMessage.safeParse(told(damaged)).success).toBe(false)
    expect(ajv.validate('server-message.json', told(damaged))).toBe(false)
  }
})

describe.each([
  ['client', ClientMessage, 'listen'],
  ['server', ServerMessage, 'tell'],
] as const)('the messages of the %s', (side, union, operation) => {
  const types = typesOf(union as never)
  const validate = (value: unknown) => ajv.validate(`${side}-message.json`, value)

  it('all stand in the document, in its operation, and in the JSON Schema', () => {
    const names: string[] = document.operations[operation].messages.map(
      ({ $ref }: { $ref: string }) => document.components.messages[$ref.split('/').at(-1) as string].name,
    )
    expect(names).toEqual(types)
    expect(Object.keys(schemaOf(`${side}-message.json`).$defs)).toEqual(expect.arrayContaining(types))
  })

  it.each(types)('%s has examples that fit every schema, and means something', (type) => {
    const { description, examples } = schemaOf(`${side}-message.json`).$defs[type]
    expect(description).toMatch(/\w/)
    expect(examples.length).toBeGreaterThan(0)
    for (const example of examples) {
      expect(union.safeParse(example).error).toBeUndefined()
      expect([example, validate(example), ajv.errors]).toEqual([example, true, null])
      expect(ajv.validate(`${side}-frame.json`, [example, example])).toBe(true)
    }
  })

  it.each(types)('%s without one of its fields fits neither the JSON Schema nor ours', (type) => {
    const { required, examples } = schemaOf(`${side}-message.json`).$defs[type]
    for (const field of required) {
      const { [field]: _, ...rest } = examples[0]
      expect([field, validate(rest), union.safeParse(rest).success]).toEqual([field, false, false])
    }
  })
})

it('a message of the server may have more than the schema says, one of a client may not', () => {
  expect(ajv.validate('server-message.json', { type: 'heartbeat', later: 1 })).toBe(true)
  expect(ajv.validate('client-message.json', { type: 'ping', later: 1 })).toBe(false)
})

it('every close code stands in the document, with what a client should do', () => {
  const codes = document.channels.socket['x-close-codes']
  expect(codes.map(({ code }: { code: number }) => code)).toEqual(
    Object.values(CLOSE).map(({ code }) => code),
  )
  for (const { 'client-should': should } of codes) expect(should).toMatch(/\w/)
})
