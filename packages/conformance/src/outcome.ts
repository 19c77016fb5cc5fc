// How a check ends other than well.

/** The gateway does not keep what it promises. */
export class Broken extends Error {}

/** It can't be told here, and why. */
export class Skipped extends Error {}

export const skip = (why: string): never => {
  throw new Skipped(why)
}

/** Fails the check unless `kept`; says what was promised and what was seen. */
export const must = (kept: boolean, promised: string, seen?: unknown): void => {
  if (kept) return
  throw new Broken(seen === undefined ? promised : `${promised}; seen: ${short(seen)}`)
}

/** A value, in few characters. */
export const short = (value: unknown): string => {
  const text = JSON.stringify(value) ?? String(value)
  return text.length > 400 ? `${text.slice(0, 400)} …` : text
}
