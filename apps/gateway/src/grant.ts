// What a client may watch.

export interface Grant {
  /** Who this is, for limits and the audit log. */
  readonly subject: string | undefined
  /** Milliseconds since 1970 at which it ends; undefined: never. */
  readonly expiresAt: number | undefined
  mayWatchJob(job: string): boolean
  mayWatchTag(tag: string): boolean
}

/** With GATEWAY_AUTH=none. */
export const EVERYTHING: Grant = {
  subject: undefined,
  expiresAt: undefined,
  mayWatchJob: () => true,
  mayWatchTag: () => true,
}
