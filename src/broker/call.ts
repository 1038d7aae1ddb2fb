import { header } from './layout.ts'
import type { Ledger } from './layout.ts'
import { isAlive, wake } from './ledger.ts'

/** How what concerns all members ends: row by row, each that is alive is woken. */
export type CallPhase = 'call' | 'wake' | 'done'

/** `cursor` is the next row; 0 at first. */
interface Calling {
  at: string
  cursor: number
}

/** Each phase is at most one access to shared memory. */
export const callPhases: Readonly<Record<CallPhase, (c: Calling, ledger: Ledger) => void>> = {
  call(c, ledger) {
    if (c.cursor >= Atomics.load(ledger.words, header.rowsUsed)) c.at = 'done'
    else if (isAlive(ledger, c.cursor)) c.at = 'wake'
    else c.cursor++
  },

  wake(c, ledger) {
    wake(ledger, c.cursor++)
    c.at = 'call'
  },

  done() {},
}
