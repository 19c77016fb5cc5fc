// @jobs/protocol: the wire between the gateway and any client.
export { CLOSE, type Close } from './close.ts'
export {
  ClientMessage,
  type Detail,
  type ErrorCode,
  LIMITS_V1,
  type ResetReason,
  type ServerMessage,
  SUBPROTOCOL,
  TIMES_V1,
} from './messages.ts'
