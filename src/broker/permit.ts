import type { Permit } from '../permits.ts'

/** A permit of the ledger, in the hands of a pool. */
export class SlotPermit implements Permit {
  readonly tag: string
  readonly slot: number
  /** What the slot's word is, as far as this permit's moves have gone. */
  word: number
  /** When its connection began to open, then to close. */
  since: number
  /** Its connection is closed for others, who come first when it is given. */
  forOthers = false
  /** Given back, or found to be somebody else's: it moves no more. */
  over = false

  constructor(tag: string, slot: number, word: number, now: number) {
    this.tag = tag
    this.slot = slot
    this.word = word
    this.since = now
  }
}
