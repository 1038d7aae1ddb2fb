import { header } from './layout.ts'
import type { Ledger } from './layout.ts'

/** What a move is taken to cost before any has been measured. */
export const firstMoveMs = 20

const leastMs = 0.5
const mostMs = 1_000
const wakeMs = 0.1
/** The weight of one more measurement. */
const weight = 1 / 8

/**
 * What it costs to move a permit: close here, wake, connect there. Each member measures its own closes and connects and
 * adds them to one average in the header; two who write at once lose a measurement, which is of no account.
 */
export class MoveCost {
  readonly #ledger: Ledger
  #closeMs = 1

  constructor(ledger: Ledger) {
    this.#ledger = ledger
  }

  get ms(): number {
    return Atomics.load(this.#ledger.words, header.moveCost) / 10
  }

  closed(ms: number): void {
    this.#closeMs += (bounded(ms) - this.#closeMs) * weight
  }

  connected(ms: number): void {
    const sample = bounded(ms) + wakeMs + this.#closeMs
    const average = this.ms + (sample - this.ms) * weight
    Atomics.store(this.#ledger.words, header.moveCost, Math.round(bounded(average) * 10))
  }
}

function bounded(ms: number): number {
  return Math.min(mostMs, Math.max(leastMs, ms))
}
