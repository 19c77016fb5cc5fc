// What was revoked, and whom it concerns here. Hears of each as it is made, reads all of them at the start and after every
// loss of the connection; keeps them for as long as a token can live.
import { LIMITS, type Revocation, revocationOfMessage } from '@jobs/state'
import type { Grant } from './grant.ts'

/** Reads all that stand in Redis. */
type Read = () => Promise<Revocation[]>

type Revocable = Pick<Grant, 'subject' | 'tokenId' | 'issuedAt'>

interface Held {
  grant: Revocable
  tell: () => void
}

const namesOf = ({ subject, tokenId }: Revocable): string[] => [
  ...(tokenId === undefined ? [] : [`jti:${tokenId}`]),
  ...(subject === undefined ? [] : [`sub:${subject}`]),
]

export class Revocations {
  /** The tailer looks at rooms that have been quiet for long; there is nothing to look for here. */
  readonly quietMs = 0
  private readonly read: Read
  /** Moments by name, older ones first, as good as. */
  private readonly moments = new Map<string, number>()
  private readonly held = new Map<string, Set<Held>>()

  constructor(read: Read) {
    this.read = read
  }

  covers(grant: Revocable): boolean {
    return namesOf(grant).some((name) => {
      const at = this.moments.get(name)
      if (at === undefined) return false
      // A token that does not say when it was issued may be an old one.
      return name.startsWith('jti:') || (grant.issuedAt ?? 0) < at
    })
  }

  /** Calls once, when the grant is revoked, and at once when it is already. Answers how to let go of it. */
  hold(grant: Revocable, tell: () => void): () => void {
    const held = { grant, tell }
    for (const name of namesOf(grant)) {
      const all = this.held.get(name) ?? new Set()
      this.held.set(name, all.add(held))
    }
    if (this.covers(grant)) tell()
    return () => {
      for (const name of namesOf(grant)) {
        const all = this.held.get(name)
        all?.delete(held)
        if (all?.size === 0) this.held.delete(name)
      }
    }
  }

  hear(message: string): void {
    this.take(revocationOfMessage(message))
  }

  lost(): void {}

  /** Reads what was missed. */
  async recovered(): Promise<void> {
    for (const revocation of await this.read()) this.take(revocation)
  }

  async check(): Promise<void> {}

  private take({ what, at }: Revocation): void {
    // What was read may be older than what was heard meanwhile.
    const latest = Math.max(at, this.moments.get(what) ?? 0)
    this.moments.delete(what)
    this.moments.set(what, latest)
    for (const [name, moment] of this.moments) {
      if (moment > Date.now() - LIMITS.tokenLifeMs && this.moments.size <= LIMITS.revocations) break
      this.moments.delete(name)
    }
    for (const held of [...(this.held.get(what) ?? [])]) if (this.covers(held.grant)) held.tell()
  }
}
