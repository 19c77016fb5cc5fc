// Runs a pass again and again until it is stopped: never two at a time, and a pass that fails does not end the loop.
export interface Loop {
  /** Resolves when the pass under way is through. */
  stop(): Promise<void>
  /** When the last pass succeeded (performance.now), or undefined before the first. */
  readonly succeededAt: number | undefined
}

/** @param pass one round; answers in how many milliseconds the next is due */
export const startLoop = (pass: () => Promise<number>, onError: (error: unknown) => number): Loop => {
  let stopped = false
  let wake: () => void = () => undefined
  let succeededAt: number | undefined
  const done = (async () => {
    while (!stopped) {
      let waitMs: number
      try {
        waitMs = await pass()
        succeededAt = performance.now()
      } catch (error) {
        waitMs = onError(error)
      }
      if (stopped) return
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, waitMs)
        wake = () => {
          clearTimeout(timer)
          resolve()
        }
      })
    }
  })()
  return {
    stop: () => {
      stopped = true
      wake()
      return done
    },
    get succeededAt() {
      return succeededAt
    },
  }
}
