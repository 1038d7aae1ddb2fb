import { callPhases } from './call.ts'
import type { CallPhase } from './call.ts'
import { header } from './layout.ts'
import type { Ledger } from './layout.ts'

/** Where a change of the limit stands. Each phase is at most one access to shared memory. */
export type ResizePhase = 'make room' | 'limit' | 'asks' | CallPhase

/**
 * Another limit, said by the broker's thread. The permits of a ledger are its slots below the limit:
 *
 *   - a higher one makes free slots count that lie below it from now on;
 *   - of a lower one those beyond it go as they come free: nobody takes one of them, idle connections close at the
 *     next settling, leased ones when they are released. Until then there are never more than there were.
 *
 * `asks` grows and all are woken, so that everybody sees the limit: a release remembers the last one it saw.
 */
export interface Resizing {
  readonly limit: number
  at: ResizePhase
  cursor: number
}

export function resizing(limit: number): Resizing {
  return { limit, at: 'make room', cursor: 0 }
}

export const resizePhases: Readonly<Record<ResizePhase, (r: Resizing, ledger: Ledger) => void>> = {
  // Nobody else writes it.
  'make room'(r, { words }) {
    if (r.limit > Atomics.load(words, header.slotsUsed)) Atomics.store(words, header.slotsUsed, r.limit)
    r.at = 'limit'
  },

  limit(r, { words }) {
    Atomics.store(words, header.limit, r.limit)
    r.at = 'asks'
  },

  asks(r, { words }) {
    Atomics.add(words, header.asks, 1)
    r.at = 'call'
  },

  ...callPhases,
}

/** Changes the limit at once; all members come to it in their own time. */
export function changeLimit(ledger: Ledger, limit: number): void {
  const r = resizing(limit)
  while (r.at !== 'done') resizePhases[r.at](r, ledger)
}
