// The slot of a key in Redis Cluster: CRC16 (XMODEM) of its hash tag.

export const SLOTS = 16_384

/** The slot of a key, by what stands in its first braces, or by all of it. */
export const slotOf = (key: string): number => {
  const open = key.indexOf('{')
  const close = open < 0 ? -1 : key.indexOf('}', open + 1)
  const hashed = close > open + 1 ? key.slice(open + 1, close) : key
  let crc = 0
  for (const byte of Buffer.from(hashed)) {
    crc ^= byte << 8
    for (let bit = 0; bit < 8; bit++) crc = (crc & 0x8000 ? (crc << 1) ^ 0x1021 : crc << 1) & 0xffff
  }
  return crc % SLOTS
}
