// Who a request comes from. One place for WebSockets and for HTTP routes: Origin, then token, then what it grants.
import type { IncomingMessage } from 'node:http'
import { EVERYTHING, type Grant } from './grant.ts'
import type { Refusal } from './refusal.ts'

/** Neither rejects; both settle within 3 s. */
export interface Auth {
  /** What the token of a plain HTTP request grants, or why the request is refused. */
  ofRequest(request: IncomingMessage): Promise<Grant | Refusal>
  /** The same for an upgrade; undefined: a token is needed, it has none, and may still send it in `hello`. */
  ofUpgrade(request: IncomingMessage): Promise<Grant | Refusal | undefined>
}

/** GATEWAY_AUTH=none: everybody may watch everything, and no token is looked at. */
export const openToAll: Auth = {
  ofRequest: async () => EVERYTHING,
  ofUpgrade: async () => EVERYTHING,
}
