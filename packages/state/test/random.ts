// Chance that one number decides: a run that failed can be run again.
export interface Random {
  /** 0 to below n. */
  below(n: number): number
  pick<T>(of: readonly T[]): T
  chance(part: number): boolean
}

/** A generator that one number decides (mulberry32). */
export const randomOf = (seed: number): Random => {
  let state = seed >>> 0
  const next = () => {
    state = (state + 0x6d2b79f5) >>> 0
    let t = Math.imul(state ^ (state >>> 15), state | 1)
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296
  }
  const below = (n: number) => Math.floor(next() * n)
  return { below, pick: (of) => of[below(of.length)] as (typeof of)[number], chance: (part) => next() < part }
}
