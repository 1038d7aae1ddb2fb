import { at, header, memberOf, pack, state, tenths } from './layout.ts'
import type { Ledger } from './layout.ts'
import { epochOf, lifeOf, status, statusOf } from './ledger.ts'

/** How long a connection may be there that its thread has left behind: the server sees its socket end. */
const graceMs = 1_000

/**
 * The turn to reap with a connection beside the limit: one member's at a time.
 *
 * State, shared
 *   bareReaper   in the header: whose turn it is, a row in one of its epochs; 0: nobody's
 *   bareUntil    in that row, from before the turn: when it is over at the latest
 *
 * Whoever dies or leaves in its turn is not waited for until then: nobody may have a connection meanwhile.
 */
export class BareTurn {
  readonly #ledger: Ledger
  readonly #row: number
  /** A turn whose owner is gone, and since when that is known. */
  #orphan: { readonly owner: number; readonly since: number } | undefined

  constructor(ledger: Ledger, row: number) {
    this.#ledger = ledger
    this.#row = row
  }

  /** Takes the turn, for so long at the most: false while it is another one's. */
  begin(now: number, ms: number): boolean {
    const { words } = this.#ledger
    const owner = Atomics.load(words, header.bareReaper)
    if (owner !== 0 && !this.#isOver(owner, now)) return false
    Atomics.store(words, at(this.#ledger, this.#row, 'bareUntil'), tenths(now + ms))
    return Atomics.compareExchange(words, header.bareReaper, owner, this.#mine) === owner
  }

  /** Does nothing to a turn that somebody else has taken meanwhile. */
  end(): void {
    Atomics.compareExchange(this.#ledger.words, header.bareReaper, this.#mine, 0)
  }

  get #mine(): number {
    return ownerOf(this.#ledger, this.#row)
  }

  #isOver(owner: number, now: number): boolean {
    const row = memberOf(owner)
    const isGone = statusOf(lifeOf(this.#ledger, row)) === status.gone
    if (!isGone && ownerOf(this.#ledger, row) === owner) {
      const until = Atomics.load(this.#ledger.words, at(this.#ledger, row, 'bareUntil'))
      return ((until - tenths(now)) | 0) <= 0
    }
    if (this.#orphan?.owner !== owner) this.#orphan = { owner, since: now }
    return now - this.#orphan.since >= graceMs
  }
}

/** A row in its epoch, written like a slot's word and never 0. Two epochs that look the same are half a million apart. */
function ownerOf(ledger: Ledger, row: number): number {
  return pack(state.reaping, row, epochOf(lifeOf(ledger, row)))
}
