// Makes docs/protocol from the zod schemas: the AsyncAPI document, and the JSON Schemas of both directions. Whatever is in the
// unions of messages.ts is in them. `pnpm gen` writes them, `pnpm gen --check` fails when they are not what is committed.
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { Cursor, JobError, JobEventSchema, JobId } from '@jobs/state/schema'
import { stringify } from 'yaml'
import { z } from 'zod'
import { CLOSE, clientDoes } from './src/close.ts'
import { ERROR_CODES } from './src/errors.ts'
import { ClientMessage, EchoId, ServerMessage, SUBPROTOCOL } from './src/messages.ts'
import { CLIENT_WORDS, ERROR_WORDS, SERVER_WORDS, VALUE_WORDS } from './words.ts'

const DRAFT = 'https://json-schema.org/draft/2020-12/schema'

interface Schema {
  [key: string]: unknown
  $ref?: string
  description?: string
  const?: unknown
  enum?: unknown[]
  examples?: unknown[]
  oneOf?: Schema[]
  anyOf?: Schema[]
  properties?: Record<string, Schema>
  required?: string[]
}
type Defs = Record<string, Schema>
interface Message {
  type: string
  schema: Schema
  examples: object[]
}

const NAMED = { JobId, Cursor, JobEvent: JobEventSchema, JobError, EchoId }
for (const [id, schema] of Object.entries(NAMED)) {
  const { says, examples } = VALUE_WORDS[id as keyof typeof NAMED]
  z.globalRegistry.add(schema, {
    id,
    description: says,
    ...(examples.length ? { examples: [...examples] } : {}),
  })
}

/** The messages of one direction, and what they share. */
const messagesOf = (union: z.ZodType, words: typeof CLIENT_WORDS): { messages: Message[]; defs: Defs } => {
  const made = z.toJSONSchema(union, {
    // What a receiver has to take: a server may say more than this.
    io: 'input',
    override: ({ zodSchema, jsonSchema }) => {
      // The bounds of a safe integer, and that names of properties are text, go without saying.
      if (jsonSchema.minimum === Number.MIN_SAFE_INTEGER) delete jsonSchema.minimum
      if (jsonSchema.maximum === Number.MAX_SAFE_INTEGER) delete jsonSchema.maximum
      if (jsonSchema.propertyNames) delete jsonSchema.propertyNames
      // The only lazy schema is that of any JSON.
      if (zodSchema._zod.def.type !== 'lazy') return
      for (const key of Object.keys(jsonSchema)) delete jsonSchema[key as keyof typeof jsonSchema]
      jsonSchema.description = 'Any JSON value.'
    },
  }) as Schema
  const all = (made.$defs ?? {}) as Defs
  const isAny = (name: string) => all[name]?.description === 'Any JSON value.'
  const clean = JSON.parse(JSON.stringify(made), (_, value: unknown) => {
    const ref = (value as Schema | null)?.$ref
    return ref && isAny(ref.replace('#/$defs/', '')) ? { description: 'Any JSON value.' } : value
  }) as Schema
  const defs = Object.fromEntries(
    Object.entries((clean.$defs ?? {}) as Defs).filter(([name]) => !isAny(name)),
  )
  const messages = (clean.oneOf ?? []).map((schema) =>
    message((exampleOf(schema, defs) as { type: string }).type, schema),
  )
  return { messages, defs }

  function message(type: string, schema: Schema): Message {
    const { says, examples } = words[type] ?? {}
    const smallest = exampleOf(schema, defs) as object
    // An example says what matters; what else is required has its smallest value.
    const shown = (examples ?? [{}]).map((example) => ({ ...smallest, ...example }))
    for (const example of shown) {
      const { error } = union.safeParse(example)
      if (error)
        throw new Error(
          `The example of ${type} does not fit its schema: ${error.issues[0]?.path.join('.')} ` +
            `${error.issues[0]?.message}. Mend it in packages/protocol/words.ts: ${JSON.stringify(example)}`,
        )
    }
    return { type, schema: says ? { description: says, ...schema } : schema, examples: shown }
  }
}

/** The smallest value that a schema has. */
const exampleOf = (schema: Schema, defs: Defs): unknown => {
  if (schema.const !== undefined) return schema.const
  if (schema.examples) return schema.examples[0]
  if (schema.enum) return schema.enum[0]
  if (schema.$ref) return exampleOf(defs[schema.$ref.replace('#/$defs/', '')] as Schema, defs)
  // Null where it may be null.
  const one = (schema.oneOf ?? schema.anyOf)?.toReversed()[0]
  if (one) return exampleOf(one, defs)
  const types = [schema.type].flat()
  if (types.includes('null')) return null
  if (types.includes('object'))
    return Object.fromEntries(
      (schema.required ?? []).map((name) => [name, exampleOf(schema.properties?.[name] as Schema, defs)]),
    )
  if (types.includes('array')) return []
  if (types.includes('integer') || types.includes('number'))
    return Number(schema.minimum ?? Number(schema.exclusiveMinimum ?? -1) + 1)
  if (types.includes('boolean')) return false
  return types.includes('string') ? 'text' : null
}

const client = messagesOf(ClientMessage, CLIENT_WORDS)
const server = messagesOf(ServerMessage, SERVER_WORDS)

const unionFile = (title: string, { messages, defs }: typeof client): Schema => ({
  $schema: DRAFT,
  title,
  oneOf: messages.map(({ type }) => ({ $ref: `#/$defs/${type}` })),
  $defs: {
    ...Object.fromEntries(messages.map(({ type, schema, examples }) => [type, { ...schema, examples }])),
    ...defs,
  },
})

const frameFile = (title: string, message: string): Schema => ({
  $schema: DRAFT,
  title,
  description: 'What one text frame holds: one message, or an array of them.',
  oneOf: [{ $ref: message }, { type: 'array', minItems: 1, items: { $ref: message } }],
})

const pascal = (type: string) => type.replace(/(^|_)(.)/g, (_, __, letter: string) => letter.toUpperCase())
const nameOf = (side: string, { type }: Message) => `${side}${pascal(type)}`
/** The same schema, where its shared parts stand among the components. */
const amongComponents = (schema: unknown) =>
  JSON.parse(JSON.stringify(schema).replaceAll('"#/$defs/', '"#/components/schemas/')) as Schema

const components = (side: string, { messages }: typeof client) => ({
  messages: Object.fromEntries(
    messages.map((message) => [
      nameOf(side, message),
      {
        name: message.type,
        ...(message.schema.description ? { summary: message.schema.description } : {}),
        contentType: 'application/json',
        payload: { $ref: `#/components/schemas/${nameOf(side, message)}` },
        examples: message.examples.map((payload) => ({ payload })),
      },
    ]),
  ),
  schemas: Object.fromEntries(
    messages.map((message) => [nameOf(side, message), amongComponents(message.schema)]),
  ),
})
const fromClient = components('Client', client)
const fromServer = components('Server', server)
const refs = (side: string, { messages }: typeof client, at: string) =>
  messages.map((message) => ({ $ref: `${at}/${nameOf(side, message)}` }))

const asyncapi = {
  asyncapi: '3.0.0',
  info: {
    title: 'Live job state',
    version: '1.0.0',
    license: { name: 'MIT' },
    description:
      'Watch jobs by their ids over a WebSocket: a snapshot, then every later event, in order, once, through any number ' +
      'of reconnects. A text frame is one JSON message or an array of them. Clients ignore fields and message types of ' +
      'the server that they don’t know. The promises are in docs/protocol.md.',
  },
  defaultContentType: 'application/json',
  servers: {
    gateway: {
      host: '{host}',
      protocol: 'ws',
      description: 'Use wss behind TLS.',
      variables: { host: { default: '127.0.0.1:8080', description: 'Where the gateway listens.' } },
      security: ['authorization', 'subprotocol', 'hello'].map((name) => ({
        $ref: `#/components/securitySchemes/${name}`,
      })),
    },
  },
  channels: {
    socket: {
      address: '/v1/ws',
      title: 'The WebSocket',
      servers: [{ $ref: '#/servers/gateway' }],
      messages: Object.fromEntries(
        [...refs('Client', client, ''), ...refs('Server', server, '')].map(({ $ref }) => [
          $ref.slice(1),
          { $ref: `#/components/messages${$ref}` },
        ]),
      ),
      bindings: {
        ws: {
          method: 'GET',
          headers: {
            type: 'object',
            properties: {
              'Sec-WebSocket-Protocol': {
                type: 'string',
                description: `${SUBPROTOCOL}; a client that offers none gets it too. \`bearer.<jwt>\` may stand beside it.`,
              },
            },
          },
        },
      },
      'x-close-codes': Object.values(CLOSE).map(({ code, reason }) => ({
        code,
        reason,
        'client-should': clientDoes(code),
      })),
      'x-error-codes': ERROR_CODES.map((code) => ({
        code,
        ...(ERROR_WORDS[code] ? { means: ERROR_WORDS[code] } : {}),
      })),
    },
  },
  operations: {
    listen: {
      action: 'receive',
      channel: { $ref: '#/channels/socket' },
      summary: 'What a client says to the gateway.',
      messages: refs('Client', client, '#/channels/socket/messages'),
    },
    tell: {
      action: 'send',
      channel: { $ref: '#/channels/socket' },
      summary: 'What the gateway tells its clients.',
      messages: refs('Server', server, '#/channels/socket/messages'),
    },
  },
  components: {
    messages: { ...fromClient.messages, ...fromServer.messages },
    schemas: {
      ...amongComponents({ ...client.defs, ...server.defs }),
      ...fromClient.schemas,
      ...fromServer.schemas,
    },
    securitySchemes: {
      authorization: {
        type: 'http',
        scheme: 'bearer',
        bearerFormat: 'JWT',
        description: 'With the upgrade.',
      },
      subprotocol: {
        type: 'httpApiKey',
        in: 'header',
        name: 'Sec-WebSocket-Protocol',
        description: 'A second subprotocol `bearer.<jwt>`, for pages, which can set no header. Never echoed.',
      },
      hello: { type: 'apiKey', in: 'user', description: 'The field `token` of the message `hello`.' },
    },
  },
}

const json = (value: unknown) => `${JSON.stringify(value, null, 2)}\n`
const outputs: [string, string][] = [
  [
    'asyncapi.yaml',
    `# Generated by packages/protocol/gen.ts. Do not edit: run \`pnpm gen\`.\n${stringify(asyncapi, { lineWidth: 120, aliasDuplicateObjects: false })}`,
  ],
  ['schemas/client-message.json', json(unionFile('What a client says', client))],
  ['schemas/server-message.json', json(unionFile('What the gateway tells', server))],
  ['schemas/client-frame.json', json(frameFile('A frame of a client', 'client-message.json'))],
  ['schemas/server-frame.json', json(frameFile('A frame of the gateway', 'server-message.json'))],
]
const folder = fileURLToPath(new URL('../../docs/protocol/', import.meta.url))
const check = process.argv.includes('--check')
mkdirSync(`${folder}schemas`, { recursive: true })
for (const [file, content] of outputs) {
  if (!check) writeFileSync(folder + file, content)
  else if (readFileSync(folder + file, 'utf8') !== content) {
    console.error(
      `docs/protocol/${file} is not what gen.ts makes of the messages: run \`pnpm gen\` and commit it.`,
    )
    process.exitCode = 1
  }
}
