// @jobs/protocol: the wire between the gateway and any client.
export { TokenClaims } from './claims.ts'
export { CLOSE, type Close, clientDoes } from './close.ts'
export type { ErrorCode } from './errors.ts'
export {
  ClientMessage,
  type Detail,
  EchoId,
  LIMITS_V1,
  type ResetReason,
  ServerMessage,
  SUBPROTOCOL,
  TIMES_V1,
} from './messages.ts'
