// Which pages may connect. A browser says where a page comes from and lets no page lie about it; what is not a browser says
// nothing, or anything, and is judged by its token alone.
import type { IncomingMessage } from 'node:http'
import type { Refusal } from '../http/refusal.ts'

const LOOPBACK_NAME = /^(localhost|127(\.\d{1,3}){3}|\[::1\])$/

export const isLoopback = (host: string) => /^(127(\.\d{1,3}){3}|::1|localhost)$/.test(host)

/** As browsers write it: `https://app.example`, without a default port. Null for what is no origin of a page. */
export const originOf = (text: string): string | null => {
  if (!URL.canParse(text)) return null
  const { origin, protocol, pathname, search, hash, username, password } = new URL(text)
  const bare = pathname === '/' && !search && !hash && !username && !password
  return bare && (protocol === 'https:' || protocol === 'http:') ? origin : null
}

export interface OriginOptions {
  /** In normal form. Empty: pages on this machine where it listens to this machine only, else none. */
  allowed: readonly string[]
  host: string
  required: boolean
  /** Whether everybody may watch everything. */
  open: boolean
}

const forbidden = (message: string): Refusal => ({ status: 403, message })

/** Whether the request's page may connect; undefined: it may. */
export type JudgeOrigin = (request: IncomingMessage) => Refusal | undefined

export const originJudge = ({ allowed, host, required, open }: OriginOptions): JudgeOrigin => {
  const listed = new Set(allowed)
  const local = allowed.length === 0 && isLoopback(host)
  const hosts = new Set(allowed.map((origin) => new URL(origin).hostname))
  const isOurs = (name: string) => LOOPBACK_NAME.test(name) || hosts.has(name)
  return ({ headers, rawHeaders }) => {
    const { origin } = headers
    if (origin === undefined) {
      if (required) return forbidden('this gateway takes pages only: there is no Origin header')
      // A page whose name was made to point here (DNS rebinding) sends no Origin with a GET to what it takes for its own
      // server, and no token is asked for: but it can't change the Host.
      if (open && isLoopback(host) && headers.upgrade === undefined && !isOurs(nameOf(headers.host)))
        return forbidden(
          'without tokens this gateway answers to localhost and the hosts of GATEWAY_ORIGINS only',
        )
      return undefined
    }
    // Two of them, or an empty one, are no origin. Browsers send the normal form, so nothing else is the same.
    const count = rawHeaders.filter((name, i) => i % 2 === 0 && name.toLowerCase() === 'origin').length
    if (count === 1 && originOf(origin) === origin) {
      if (listed.has(origin)) return undefined
      if (local && LOOPBACK_NAME.test(new URL(origin).hostname)) return undefined
    }
    return forbidden('pages of this origin may not connect; GATEWAY_ORIGINS lists those that may')
  }
}

const nameOf = (host: string | undefined): string =>
  URL.canParse(`http://${host}`) ? new URL(`http://${host}`).hostname : ''
