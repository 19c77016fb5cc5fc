// Waiting for a condition instead of for a time.

/** Asks again and again until the answer is truthy; fails with what it last saw. */
export const until = async <T>(
  look: () => T | Promise<T>,
  { timeoutMs = 20_000, what = 'the condition' }: { timeoutMs?: number; what?: string } = {},
): Promise<NonNullable<T>> => {
  const end = performance.now() + timeoutMs
  for (let pauseMs = 5; ; pauseMs = Math.min(pauseMs * 1.5, 50)) {
    const seen = await look()
    if (seen) return seen as NonNullable<T>
    if (performance.now() > end)
      throw new Error(`${what} did not come within ${timeoutMs} ms; last seen: ${JSON.stringify(seen)}`)
    await new Promise((resolve) => setTimeout(resolve, pauseMs))
  }
}
