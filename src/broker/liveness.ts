import { at, header, tenths } from './layout.ts'
import type { Ledger } from './layout.ts'
import { isAlive, wake } from './ledger.ts'
import { Memory } from './memory.ts'

/** Who has said nothing for so long is asked to: a settling says that a thread's event loop turns. */
const silenceMs = 500
const everyMs = 100

/**
 * Which members answer. Every settling that a wake has caused writes down that the wake was heard; whoever lacks a
 * connection looks from time to time whether those who hold some do so, and writes down since when they do not. No
 * permit depends on it: it is for those who want to know why they wait.
 */
export class Liveness {
  readonly #ledger: Ledger
  readonly #me: number
  readonly #heard = new Memory()
  #lookedAt = -Infinity

  constructor(ledger: Ledger, me: number) {
    this.#ledger = ledger
    this.#me = me
  }

  /** My own loop turns: so many wakes have been heard. */
  heard(wakes: number): void {
    const { words } = this.#ledger
    Atomics.store(words, at(this.#ledger, this.#me, 'heard'), wakes)
    Atomics.store(words, at(this.#ledger, this.#me, 'unheardSince'), 0)
  }

  /** Looks after those who hold something. */
  watch(holds: (row: number) => boolean, now: number): void {
    if (now - this.#lookedAt < everyMs) return
    this.#lookedAt = now
    const { words } = this.#ledger
    const rows = Atomics.load(words, header.rowsUsed)
    for (let row = 0; row < rows; row++) {
      if (row === this.#me || !isAlive(this.#ledger, row) || !holds(row)) continue
      const heard = Atomics.load(words, at(this.#ledger, row, 'heard'))
      if (heard === Atomics.load(words, at(this.#ledger, row, 'wake'))) {
        if (this.#heard.age(row, heard, now) > silenceMs) wake(this.#ledger, row)
      } else {
        // 0 means that nothing is unheard.
        Atomics.compareExchange(words, at(this.#ledger, row, 'unheardSince'), 0, tenths(now) || 1)
      }
    }
  }
}
