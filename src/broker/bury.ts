import { callPhases } from './call.ts'
import type { CallPhase } from './call.ts'
import { memberOf, state, stateOf, wordOf } from './layout.ts'
import type { Ledger } from './layout.ts'
import { clear, live, lifeOf, nextLife, status } from './ledger.ts'

/** Where a burial stands. Each phase is at most one access to shared memory. */
export type BurialPhase = 'look' | 'mark' | 'sweep' | 'clear' | 'vacate' | CallPhase

/**
 * Clears away what a member has: by itself when it leaves, by the broker's thread when it has died.
 *
 *   1  its row is marked GONE: nobody grants it anything from now on, and who just did sees it and takes it back
 *   2  grants to it become free; what it had, or was reaping, goes to LIMBO
 *   3  no word names it any more: the row is vacant, in its next epoch
 *   4  all living members are woken: one may want what was freed, one has to reap
 *
 * A leaver that dies on the way is buried again from the start.
 */
export interface Burial {
  readonly row: number
  /** The row's life while it was alive. */
  readonly life: number
  at: BurialPhase
  cursor: number
  word: number
}

export function burial(row: number, life: number): Burial {
  return { row, life, at: 'look', cursor: 0, word: 0 }
}

export const burialPhases: Readonly<Record<BurialPhase, (b: Burial, ledger: Ledger) => void>> = {
  look(b, ledger) {
    const life = lifeOf(ledger, b.row)
    if (life === b.life) b.at = 'mark'
    else b.at = life === nextLife(b.life, status.gone) ? 'sweep' : 'done'
  },

  mark(b, ledger) {
    b.at = live(ledger, b.row, b.life, status.gone) ? 'sweep' : 'look'
  },

  sweep(b, ledger) {
    if (b.cursor >= ledger.room) {
      b.at = 'vacate'
      return
    }
    b.word = Atomics.load(ledger.words, wordOf(b.cursor))
    const owned = stateOf(b.word) !== state.free && stateOf(b.word) !== state.limbo
    if (owned && memberOf(b.word) === b.row) b.at = 'clear'
    else b.cursor++
  },

  clear(b, ledger) {
    // If somebody was faster (a giver taking its grant back), the word does not name the row any more.
    clear(ledger, b.cursor, b.word)
    b.cursor++
    b.at = 'sweep'
  },

  vacate(b, ledger) {
    live(ledger, b.row, nextLife(b.life, status.gone), status.vacant)
    b.cursor = 0
    b.at = 'call'
  },

  ...callPhases,
}

/** Buries a member at once. */
export function bury(ledger: Ledger, row: number, life: number): void {
  const b = burial(row, life)
  while (b.at !== 'done') burialPhases[b.at](b, ledger)
}
