// Every check, in the order of protocol.md.
import type { Check } from '../run.ts'
import { handshake } from './handshake.ts'
import { http } from './http.ts'
import { messages } from './messages.ts'
import { promises } from './promises.ts'
import { resume } from './resume.ts'
import { subscriptions } from './subscriptions.ts'
import { tokens } from './tokens.ts'
import { trouble } from './trouble.ts'

export const CHECKS: readonly Check[] = [
  ...handshake,
  ...messages,
  ...subscriptions,
  ...resume,
  ...promises,
  ...tokens,
  ...http,
  ...trouble,
]
