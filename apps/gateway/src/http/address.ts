// Who a client is, for the limits: the address of its connection, or what a proxy of ours says it is. What anybody else
// says about its address is not believed.
import { BlockList, isIP, SocketAddress } from 'node:net'

/**
 * The proxies whose X-Forwarded-For is believed, from addresses and networks separated by commas or spaces.
 *
 * @throws RangeError that names the entry that is none
 */
export const proxyList = (text: string): BlockList => {
  const list = new BlockList()
  for (const entry of text.split(/[\s,]+/).filter((part) => part !== '')) {
    const [network = '', bits] = entry.split('/')
    const version = isIP(network)
    const widest = version === 4 ? 32 : 128
    const prefix = bits === undefined ? widest : /^\d{1,3}$/.test(bits) ? Number(bits) : -1
    if (version === 0 || prefix < 0 || prefix > widest)
      throw new RangeError(`${JSON.stringify(entry.slice(0, 64))} is neither an address nor a network`)
    list.addSubnet(network, prefix, version === 4 ? 'ipv4' : 'ipv6')
  }
  return list
}

/** One spelling for one address: IPv4 that came as IPv6 is IPv4. Undefined for what is no address. */
const canonical = (text: string): string | undefined => {
  const version = isIP(text)
  if (version === 0) return undefined
  if (version === 4) return text
  const { address } = new SocketAddress({ address: text, family: 'ipv6' })
  const mapped = address.startsWith('::ffff:') ? address.slice(7) : ''
  return isIP(mapped) === 4 ? mapped : address
}

export const isIn = (list: BlockList, address: string): boolean =>
  isIP(address) !== 0 && list.check(address, isIP(address) === 6 ? 'ipv6' : 'ipv4')

/** Of an entry of X-Forwarded-For; some proxies add the port. */
const withoutPort = (entry: string): string =>
  /^\[(.*)\](?::\d+)?$/.exec(entry)?.[1] ?? /^([\d.]+):\d+$/.exec(entry)?.[1] ?? entry

/**
 * The right-most address that is not a proxy of ours: each proxy appends who it was asked by, and what stands further to
 * the left the client may have written itself.
 */
export const clientAddress = (
  peer: string | undefined,
  forwarded: string | undefined,
  proxies: BlockList,
): string => {
  let address = canonical(peer ?? '') ?? 'unknown'
  const hops = (forwarded ?? '').split(',')
  while (hops.length > 0 && isIn(proxies, address)) {
    const told = canonical(withoutPort((hops.pop() as string).trim()))
    if (told === undefined) break
    address = told
  }
  return address
}

/** What counts as one client: an IPv4 address, or the /64 of an IPv6 one, which a single host may use freely. */
export const addressGroup = (address: string): string => {
  if (isIP(address) !== 6) return address
  const [head = '', tail] = address.split('::')
  const front = head === '' ? [] : head.split(':')
  const back = tail ? tail.split(':') : []
  const zeros = tail === undefined ? 0 : Math.max(0, 8 - front.length - back.length)
  return `${[...front, ...Array.from({ length: zeros }, () => '0'), ...back].slice(0, 4).join(':')}::/64`
}
