import { at, elapsed, header, memberOf, state, stateOf, wordOf } from './layout.ts'
import type { Ledger } from './layout.ts'
import { isAlive } from './ledger.ts'
import type { Host, Phase, PhaseOf, Registers } from './registers.ts'

// Reads how all members stand, into the view: the slots say who has what, the rows who wants what. The result is a
// little old when it is complete, and its parts are of different ages: decisions from it are made sure of by swaps, and
// crossings by looking again (see settle.ts).

type LookPhase = Extract<Phase, 'look' | `look at ${string}`>

export const lookPhases: Readonly<Record<LookPhase, PhaseOf>> = {
  look(r, ledger, host) {
    r.rows = Atomics.load(ledger.words, header.rowsUsed)
    r.view.size = r.rows
    r.view.supply = 0
    r.view.move = host.move()
    for (let i = 0; i < r.rows; i++) {
      const member = r.view.members[i]!
      member.held = 0
      member.granted = 0
    }
    r.cursor = 0
    r.at = 'look at slot'
  },

  'look at slot'(r, ledger, host) {
    const slot = r.cursor++
    const word = Atomics.load(ledger.words, wordOf(slot))
    if (r.cursor >= r.slotsUsed) {
      r.cursor = 0
      r.at = 'look at life'
    }
    // What I have in my hand is not under way, and not mine: it is what I am about to decide on.
    for (const { slot: mine } of r.hand) if (mine === slot) return
    const member = r.view.members[memberOf(word)]
    switch (stateOf(word)) {
      case state.free:
        if (slot < r.limit && host.hasRoom) r.view.supply++
        return
      case state.granted:
        if (member) member.granted++
        if (member) member.held++
        return
      case state.held:
        if (member) member.held++
        return
      case state.closing:
        if (slot < r.limit && !host.isStuck(slot, word)) r.view.supply++
        return
      default:
    }
  },

  'look at life'(r, ledger, host) {
    const member = r.view.members[r.cursor]!
    if (r.cursor === r.me) {
      member.alive = true
      member.want = host.lacking
      member.waited = member.want > 0 ? elapsed(host.since, host.now()) : 0
      member.idle = host.idle
      member.idled = member.idle > 0 ? elapsed(host.idleSince, host.now()) : 0
      member.opening = host.opening
      member.min = host.min
      return nextRow(r)
    }
    member.alive = isAlive(ledger, r.cursor)
    if (member.alive) r.at = 'look at want'
    else nextRow(r)
  },

  'look at want'(r, ledger) {
    const member = r.view.members[r.cursor]!
    member.want = Atomics.load(ledger.words, at(ledger, r.cursor, 'want'))
    member.waited = 0
    member.opening = 0
    r.at = member.want > 0 ? 'look at since' : 'look at idle'
  },

  'look at since'(r, ledger, host) {
    const since = Atomics.load(ledger.words, at(ledger, r.cursor, 'since'))
    r.view.members[r.cursor]!.waited = elapsed(since, host.now())
    r.at = 'look at opening'
  },

  'look at opening'(r, ledger) {
    r.view.members[r.cursor]!.opening = Atomics.load(ledger.words, at(ledger, r.cursor, 'opening'))
    r.at = 'look at idle'
  },

  'look at idle'(r, ledger) {
    const member = r.view.members[r.cursor]!
    member.idle = Atomics.load(ledger.words, at(ledger, r.cursor, 'idle'))
    member.idled = 0
    if (member.idle > 0) r.at = 'look at idle since'
    else nextRow(r)
  },

  'look at idle since'(r, ledger, host) {
    const since = Atomics.load(ledger.words, at(ledger, r.cursor, 'idleSince'))
    r.view.members[r.cursor]!.idled = elapsed(since, host.now())
    r.at = 'look at min'
  },

  'look at min'(r, ledger) {
    r.view.members[r.cursor]!.min = Atomics.load(ledger.words, at(ledger, r.cursor, 'min'))
    nextRow(r)
  },
}

function nextRow(r: Registers): void {
  r.cursor++
  r.at = r.cursor < r.rows ? 'look at life' : r.after
}

/** Whether anybody but me was seen wanting. */
export function seesOthersWant({ view, me }: Registers): boolean {
  for (let i = 0; i < view.size; i++) {
    const member = view.members[i]!
    if (i !== me && member.alive && member.want > 0) return true
  }
  return false
}

/** Starts looking; the phase `after` follows. */
export function look(r: Registers, after: Registers['after']): void {
  r.after = after
  r.at = 'look'
}

/** A run from one phase to the next until it rests. */
export function run(r: Registers, ledger: Ledger, host: Host, phases: Readonly<Record<Phase, PhaseOf>>): void {
  while (r.at !== 'rest') {
    const before = r.at
    const phase = phases[before]
    // Slot by slot, without asking the table.
    do phase(r, ledger, host)
    while (r.at === before)
  }
}
