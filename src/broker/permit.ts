import type { Permit } from '../permits.ts'
import { tagOf } from './layout.ts'
import type { Ledger } from './layout.ts'

/** A permit of the ledger, in the hands of a pool. */
export class SlotPermit implements Permit {
  readonly slot: number
  readonly #ledger: Ledger
  /** The word that its life began with. */
  readonly #life: number
  #tag: string | undefined
  /** What the slot's word is, as far as this permit's moves have gone. */
  word: number
  /** When its connection began to open, then to close. */
  since: number
  /** Its connection is closed for others, who come first when it is given. */
  forOthers = false
  /** Given back, or found to be somebody else's: it moves no more. */
  over = false

  constructor(ledger: Ledger, slot: number, word: number, now: number) {
    this.#ledger = ledger
    this.#life = word
    this.slot = slot
    this.word = word
    this.since = now
  }

  get tag(): string {
    this.#tag ??= tagOf(this.#ledger, this.slot, this.#life)
    return this.#tag
  }
}
