import { nobody, owedOnRelease } from './allocation.ts'
import { at, elapsed, header } from './layout.ts'
import { look, run } from './look.ts'
import type { Ledger } from './layout.ts'
import type { Host, Phase, PhaseOf, Registers } from './registers.ts'

// The hot path: a lease has ended, and its connection could be lent again. While nobody else wants anything this is one
// load, and a store when the row showed no idle connection. It need not settle, because
//   1. it makes sure that my row shows an idle connection (the row may show one that is leased, never the opposite),
//   2. then it reads `asks`.
// Whoever begins to want after 2 looks at my row after 1, finds the connection and wakes me.

type ReleasePhase = Extract<Phase, 'release' | 'show idle' | 'load asks' | 'judge'>

export const releasePhases: Readonly<Record<ReleasePhase, PhaseOf>> = {
  release(r, _, host) {
    // The limit has been lowered since it was opened.
    r.yields = host.releasing >= r.limit
    if (r.yields) r.at = 'rest'
    else r.at = r.shown.idle === 0 && host.waiting === 0 ? 'show idle' : 'load asks'
  },

  'show idle'(r, ledger) {
    // Since when may be too early for it: then I am woken for nothing, once, and show the truth.
    r.shown.idle = 1
    Atomics.store(ledger.words, at(ledger, r.me, 'idle'), 1)
    r.at = 'load asks'
  },

  'load asks'(r, ledger) {
    const asks = Atomics.load(ledger.words, header.asks)
    if (asks === r.seenAsks && !r.othersWant) r.at = 'rest'
    else {
      r.unsettled = true
      look(r, 'judge')
    }
  },

  judge(r, _, host) {
    const waited = host.waiting > 0 ? elapsed(host.since, host.now()) : 0
    r.yields = owedOnRelease(r.view, r.me, waited, host.openFor) !== nobody
    r.at = 'rest'
  },
}

const { release, 'show idle': showIdle, 'load asks': loadAsks } = releasePhases

/** The phases of a release in a row: no table is asked for the next one while nobody else wants anything. */
export function runRelease(r: Registers, ledger: Ledger, host: Host, phases: Readonly<Record<Phase, PhaseOf>>): void {
  release(r, ledger, host)
  if (r.at === 'show idle') showIdle(r, ledger, host)
  if (r.at === 'load asks') loadAsks(r, ledger, host)
  if (r.at !== 'rest') run(r, ledger, host, phases)
}

/** As a release, of a connection that stays leased. */
export function runOwed(r: Registers, ledger: Ledger, host: Host, phases: Readonly<Record<Phase, PhaseOf>>): void {
  r.yields = host.releasing >= r.limit
  r.at = r.yields ? 'rest' : 'load asks'
  run(r, ledger, host, phases)
}

/** Whether the row does not fit the pool any more in a way that others could suffer from: then settle. */
export function isOutdated(r: Registers, host: Host): boolean {
  return (
    r.unsettled ||
    r.hand.length > 0 ||
    r.shown.want > 0 ||
    host.lacking > 0 ||
    (r.shown.idle === 0 && host.idle > 0) ||
    isBeyondLimit(r, host)
  )
}

/** Whether a release could neither be owed to anybody nor leave anything to settle, as long as `asks` stays as it was seen. */
export function isLull(r: Registers, host: Host): boolean {
  // The row shows an idle connection already, and no slot is beyond the limit.
  return !r.othersWant && r.shown.idle > 0 && r.limit >= r.slotsUsed && !isOutdated(r, host)
}

/** Whether a connection of mine idles with a permit that is no more, since the limit has been lowered. */
export function isBeyondLimit(r: Registers, host: Host): boolean {
  return r.limit < r.slotsUsed && host.exceeds(r.limit)
}
