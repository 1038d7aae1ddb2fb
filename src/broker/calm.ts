import { header, state, stateOf, wordOf } from './layout.ts'
import { free, renew, take } from './ledger.ts'
import { isBeyondLimit } from './release.ts'
import type { Host, InHand, Phase, PhaseOf, Registers } from './registers.ts'

// The short way, for a member that opens or closes connections while nobody else wants any: it looks neither at all
// slots nor at any row. Its own wake word and `asks` have said, just before, that nothing concerns it.
//
//   1  what is in my hand is opened with, as far as I lack any, or freed
//   2  what I lack still is taken from the first free slots; if there are not enough, the long way follows
//   3  my row shows how I stand
//   4  `asks` is as it was: whoever has begun to want after that looks at the slots after 1, and at my row after 3;
//      if it is not, the long way follows

type CalmPhase = Extract<Phase, `calm${string}`>

export const calmPhases: Readonly<Record<CalmPhase, PhaseOf>> = {
  calm(r, _, host) {
    const used = r.hand.findIndex((one) => one.used)
    if (used > 0) r.hand.unshift(...r.hand.splice(used, 1))
    if (used >= 0) {
      const needed = host.lacking > r.hand.length - 1
      r.at = needed && isUsable(r, r.hand[0]!, host) ? 'calm renew' : 'calm free'
      return
    }
    for (let hand = r.hand.shift(); hand; hand = r.hand.shift()) host.open(hand.slot, hand.word)
    r.cursor = 0
    r.at = host.lacking > 0 ? 'calm look' : 'show'
  },

  'calm renew'(r, ledger) {
    const hand = r.hand[0]!
    const word = renew(ledger, hand.slot, hand.word)
    if (word === undefined) r.hand.shift()
    else {
      hand.word = word
      hand.used = false
    }
    r.at = 'calm'
  },

  'calm free'(r, ledger) {
    const { slot, word } = r.hand.shift()!
    // Should somebody have begun to want meanwhile, the long way wakes them.
    if (free(ledger, slot, word) !== undefined) r.freed = true
    r.at = 'calm'
  },

  'calm look'(r, ledger, host) {
    if (r.cursor >= r.limit) return takeLongWay(r)
    r.word = Atomics.load(ledger.words, wordOf(r.cursor))
    if (stateOf(r.word) === state.free && host.mayTakeFree(r.hand.length)) r.at = 'calm take'
    else r.cursor++
  },

  'calm take'(r, ledger, host) {
    const slot = r.cursor++
    const word = take(ledger, slot, r.word, r.me)
    if (word !== undefined) r.hand.push({ slot, word, used: false, forOthers: false })
    r.at = r.hand.length < host.lacking ? 'calm look' : 'calm'
  },

  'calm asks'(r, ledger) {
    if (Atomics.load(ledger.words, header.asks) === r.asks) r.at = 'rest'
    else takeLongWay(r)
  },
}

/** Whether a permit can be opened with again: there is such a one still, and the server has room where it was used last. */
export function isUsable(r: Registers, { slot, word, used }: InHand, host: Host): boolean {
  // A permit that comes back without having been closed was to open with.
  return slot < r.limit && (!used || stateOf(word) !== state.held || host.hasRoom)
}

/** Somebody wants something, or I want more than is free: everything is looked at. */
function takeLongWay(r: Registers): void {
  r.calm = false
  r.at = 'limit'
}

/** Whether the pool's own doings are all that there is to settle. */
export function isCalm(r: Registers, host: Host): boolean {
  return !r.othersWant && !r.unsettled && r.shown.want === 0 && !isBeyondLimit(r, host)
}
