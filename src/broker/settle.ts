import { donorToWake, nextOwed, nobody, owed, owedOfIdle, owedOnReturn } from './allocation.ts'
import { calmPhases, isCalm, isUsable } from './calm.ts'
import { at, header, limitOf, memberOf, state, stateOf, wordOf } from './layout.ts'
import type { Ledger } from './layout.ts'
import { free, grant, isAlive, reap, renew, take, wake } from './ledger.ts'
import { look, lookPhases, seesOthersWant } from './look.ts'
import type { Host, InHand, Phase, PhaseOf, Registers } from './registers.ts'
import { isBeyondLimit, isOutdated, releasePhases } from './release.ts'

// One routine does everything: whatever happens, it is run again, and it looks at everything.
//
//   1  remember my wake word and `asks`; if neither has changed and nobody was seen wanting, the short way will do (calm.ts)
//   2  scan the slots: pick up what is granted to me; take what is free, if I lack any; reap what was left behind
//   3  place: open with what I have in hand, as far as I lack any
//   4  show my row; if I want more than it showed, `asks` grows and I scan once more
//   5  look at all slots and rows, and decide
//        what is left in my hand: who is owed it? granted and woken, or kept, or freed
//        an idle connection of mine that is beyond a limit that was lowered, or that somebody else is owed: it closes
//        somebody still short: wake the member with most idle connections that are ripe
//   6  rest, until my wake word has changed or something happens to the pool
//
// Three pairs make sure that of two members who cross at least one sees the other:
//   a  I announce what I want, then look at the slots again (4) — a giver frees, then looks at the rows again (5)
//   b  a giver grants, then checks that the taker is alive (5) — a leaver clears its row, then looks at the slots (bury.ts)
//   c  I announce, then `asks` grows (4) — a settler reads `asks` (1), then looks at the rows (5); a release that finds
//      `asks` as it was, and nobody seen wanting then, knows that nobody has wanted since

export const phases: Readonly<Record<Phase, PhaseOf>> = {
  ...lookPhases,
  ...releasePhases,
  ...calmPhases,

  rest() {},

  start(r, ledger, host) {
    const wakes = Atomics.load(ledger.words, at(ledger, r.me, 'wake'))
    if (wakes !== r.wake) host.heard(wakes)
    r.calm = wakes === r.wake && isCalm(r, host)
    r.wake = wakes
    r.freed = false
    r.donorWoken = false
    r.unsettled = false
    r.at = 'asks'
  },

  asks(r, ledger, host) {
    r.asks = Atomics.load(ledger.words, header.asks)
    r.calm &&= r.asks === r.seenAsks
    if (!r.calm) r.at = 'limit'
    // As with a release: whoever begins to want after this finds my row as it is, and wakes me.
    else r.at = isOutdated(r, host) ? 'calm' : 'rest'
  },

  limit(r, ledger) {
    r.limit = limitOf(ledger)
    r.at = 'slots used'
  },

  'slots used'(r, ledger) {
    r.slotsUsed = Atomics.load(ledger.words, header.slotsUsed)
    r.at = 'own want'
  },

  // I may have been muted: then what I want has to be said again.
  'own want'(r, ledger) {
    r.shown.want = Atomics.load(ledger.words, at(ledger, r.me, 'want'))
    scan(r)
  },

  scan(r, ledger, host) {
    if (r.cursor >= r.slotsUsed) {
      r.at = 'place'
      return
    }
    r.word = Atomics.load(ledger.words, wordOf(r.cursor))
    switch (stateOf(r.word)) {
      case state.granted:
        if (memberOf(r.word) === r.me) r.at = 'pick up'
        else if (short(r, host) === 0 || r.cursor >= r.limit) r.cursor++
        else r.at = host.isStuck(r.cursor, r.word) ? 'take' : 'look up taker'
        return
      case state.free:
        if (short(r, host) > 0 && r.cursor < r.limit && host.mayTakeFree(r.hand.length)) r.at = 'take'
        else r.cursor++
        return
      case state.limbo:
        if (host.mayReap(r.cursor, r.word)) r.at = 'reap'
        else r.cursor++
        return
      default:
        r.cursor++
    }
  },

  'pick up': takeIntoHand,

  'look up taker'(r, ledger) {
    if (isAlive(ledger, memberOf(r.word))) {
      r.cursor++
      r.at = 'scan'
    } else r.at = 'take'
  },

  take(r, ledger) {
    const had = r.hand.length
    takeIntoHand(r, ledger)
    if (r.hand.length > had && stateOf(r.word) === state.granted) r.at = 'mute'
  },

  // Whoever left a grant lying is blocked, or gone. It is not owed another one before it says again that it wants one:
  // it would leave that lying, too. It is woken after it has been muted, so that it finds out whatever it was doing.
  mute(r, ledger) {
    Atomics.store(ledger.words, at(ledger, memberOf(r.word), 'want'), 0)
    r.at = 'wake muted'
  },

  'wake muted'(r, ledger) {
    wake(ledger, memberOf(r.word))
    r.at = 'scan'
  },

  reap(r, ledger, host) {
    const word = reap(ledger, r.cursor, r.word, r.me)
    if (word !== undefined) host.reap(r.cursor, word)
    r.cursor++
    r.at = 'scan'
  },

  place(r, _, host) {
    for (let i = 0; i < r.hand.length && host.lacking > 0;) {
      const { slot, word, used } = r.hand[i]!
      if (used || slot >= r.limit) i++
      else {
        r.hand.splice(i, 1)
        host.open(slot, word)
      }
    }
    r.at = 'show'
  },

  // One store at a time, until the row shows how I stand. What makes a number mean something is written before it.
  show(r, ledger, host) {
    const { shown } = r
    const want = short(r, host)
    const { idle, opening } = host
    if (idle > 0 && shown.idleSince !== host.idleSince) store(r, ledger, 'idleSince', host.idleSince)
    else if (shown.idle !== idle) store(r, ledger, 'idle', idle)
    else if (shown.opening !== opening) store(r, ledger, 'opening', opening)
    else if (want > 0 && shown.since !== host.since) store(r, ledger, 'since', host.since)
    else if (shown.want !== want) {
      if (want > shown.want) r.at = 'ask'
      store(r, ledger, 'want', want)
    } else if (r.calm) r.at = 'calm asks'
    else look(r, 'decide')
  },

  ask(r, ledger) {
    // My own asking is no news to me.
    if (Atomics.add(ledger.words, header.asks, 1) === r.asks) r.asks = (r.asks + 1) | 0
    scan(r)
  },

  decide(r, _, host) {
    const { me, view } = r
    const hand = r.hand[0]
    if (hand) {
      r.to = takerOf(r, hand, host)
      r.at = r.to === nobody ? 'free' : r.to === me ? 'renew' : 'grant'
      return
    }
    if (r.freed) {
      // All who want, not the next one only: whoever finds the permit gone has not lost anything.
      r.freed = false
      r.to = nobody
      r.at = 'wake asker'
      return
    }
    if (isBeyondLimit(r, host)) {
      r.at = 'trim'
      return
    }
    if (host.idle > 0 && owedOfIdle(view, me) !== nobody) {
      r.at = 'retire'
      return
    }
    if (!r.donorWoken) {
      r.to = donorToWake(view, me, r.lastDonor)
      r.donorWoken = true
      if (r.to !== nobody) {
        r.lastDonor = r.to
        r.at = 'wake donor'
        return
      }
    }
    r.at = 'finish'
  },

  grant(r, ledger) {
    const hand = r.hand[0]!
    const word = grant(ledger, hand.slot, hand.word, r.to)
    if (word === undefined) drop(r)
    else {
      hand.word = word
      r.at = 'wake taker'
    }
  },

  'wake taker'(r, ledger) {
    wake(ledger, r.to)
    r.at = 'check taker'
  },

  'check taker'(r, ledger, host) {
    if (isAlive(ledger, r.to)) {
      host.moved(r.to)
      drop(r)
    } else r.at = 'take back'
  },

  'take back'(r, ledger) {
    const hand = r.hand[0]!
    const word = take(ledger, hand.slot, hand.word, r.me)
    if (word === undefined) drop(r)
    else {
      hand.word = word
      hand.used = false
      r.at = 'place'
    }
  },

  renew(r, ledger) {
    const hand = r.hand[0]!
    const word = renew(ledger, hand.slot, hand.word)
    if (word === undefined) drop(r)
    else {
      hand.word = word
      hand.used = false
      r.at = 'place'
    }
  },

  free(r, ledger) {
    const { slot, word } = r.hand[0]!
    if (free(ledger, slot, word) !== undefined) r.freed = true
    drop(r)
  },

  'wake asker'(r, ledger) {
    const { members, size } = r.view
    for (let i = r.to + 1; i < size; i++) {
      if (i === r.me || owed(members[i]!) === 0) continue
      r.to = i
      wake(ledger, i)
      return
    }
    r.at = 'decide'
  },

  retire(r, _, host) {
    if (host.retire()) r.at = 'show'
    else {
      r.view.members[r.me]!.idle = 0
      r.at = 'decide'
    }
  },

  trim(r, _, host) {
    host.trim(r.limit)
    r.at = 'show'
  },

  'wake donor'(r, ledger) {
    wake(ledger, r.to)
    r.at = 'decide'
  },

  finish(r) {
    r.seenAsks = r.asks
    r.othersWant = seesOthersWant(r)
    r.at = 'rest'
  },
}

/** How many permits I lack beyond those in my hand. */
function short(r: Registers, host: Host): number {
  return Math.max(0, host.lacking - r.hand.length)
}

function scan(r: Registers): void {
  r.cursor = 0
  r.at = 'scan'
}

function takeIntoHand(r: Registers, ledger: Ledger): void {
  const slot = r.cursor++
  const word = take(ledger, slot, r.word, r.me)
  if (word !== undefined) r.hand.push({ slot, word, used: false, forOthers: false })
  r.at = 'scan'
}

/** What was in my hand first is out of it. The next one is decided on with what is true then. */
function drop(r: Registers): void {
  r.hand.shift()
  r.at = 'place'
}

function takerOf(r: Registers, hand: InHand, host: Host): number {
  const { me, view } = r
  if (!isUsable(r, hand, host)) return nobody
  if (hand.used && !hand.forOthers) return owedOnReturn(view, me, host.lacking)
  const other = nextOwed(view, me)
  return other === nobody && host.lacking > 0 ? me : other
}

function store(r: Registers, ledger: Ledger, name: 'want' | 'since' | 'idle' | 'idleSince' | 'opening', value: number) {
  r.shown[name] = value
  Atomics.store(ledger.words, at(ledger, r.me, name), value)
}
