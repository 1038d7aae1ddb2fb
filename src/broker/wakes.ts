import { at } from './layout.ts'
import type { Ledger } from './layout.ts'
import { wake } from './ledger.ts'

/**
 * Listens for wakes. There is never more than one pending wait, on the member's own word and without a timeout: it
 * cannot be cancelled, keeps no thread alive, and one with a timeout would hold its memory until then.
 */
export class Wakes {
  readonly #ledger: Ledger
  readonly #row: number
  readonly #onWake: () => void
  #waiting = false
  #ended = false

  constructor(ledger: Ledger, row: number, onWake: () => void) {
    this.#ledger = ledger
    this.#row = row
    this.#onWake = onWake
  }

  /** Calls back once the word is another than the one that was read. */
  listen(word: number): void {
    if (this.#waiting || this.#ended) return
    this.#waiting = true
    const result = Atomics.waitAsync(this.#ledger.words, at(this.#ledger, this.#row, 'wake'), word)
    // Not equal any more: woken already.
    if (result.async) void result.value.then(() => this.#woken())
    else queueMicrotask(() => this.#woken())
  }

  /** Ends the wait by waking oneself. */
  end(): void {
    this.#ended = true
    if (this.#waiting) wake(this.#ledger, this.#row)
  }

  #woken(): void {
    this.#waiting = false
    if (!this.#ended) this.#onWake()
  }
}
