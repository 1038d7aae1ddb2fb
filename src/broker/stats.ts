import type { BrokerStats, MemberStats } from '../stats.ts'
import { refusalStats } from './gate.ts'
import { at, elapsed, header, limitOf, memberOf, state, stateOf, tenths, wordOf } from './layout.ts'
import type { Field, Ledger } from './layout.ts'
import { isAlive } from './ledger.ts'

/** Reads how a broker and all its members stand. From any thread; `now` is the time of the pools' clock, in ms. */
export function readStats(ledger: Ledger, name: string, now: number): BrokerStats {
  const { words } = ledger
  const limit = limitOf(ledger)
  const heldBy: number[] = []
  const closingBy: number[] = []
  const counts = { free: 0, granted: 0, held: 0, closing: 0, limbo: 0 }
  for (let slot = 0; slot < Atomics.load(words, header.slotsUsed); slot++) {
    const word = Atomics.load(words, wordOf(slot))
    const member = memberOf(word)
    switch (stateOf(word)) {
      case state.free:
        if (slot < limit) counts.free++
        break
      case state.granted:
        counts.granted++
        break
      case state.held:
        counts.held++
        heldBy[member] = (heldBy[member] ?? 0) + 1
        break
      case state.closing:
        counts.closing++
        closingBy[member] = (closingBy[member] ?? 0) + 1
        break
      default:
        counts.limbo++
    }
  }
  const members: MemberStats[] = []
  for (let row = 0; row < Atomics.load(words, header.rowsUsed); row++) {
    if (!isAlive(ledger, row)) continue
    const get = (field: Field): number => Atomics.load(words, at(ledger, row, field))
    const wants = get('want')
    const unheardSince = get('unheardSince')
    members.push({
      threadId: get('thread'),
      held: heldBy[row] ?? 0,
      closing: closingBy[row] ?? 0,
      idle: get('idle'),
      wants,
      waitingMs: wants > 0 ? elapsed(get('since'), tenths(now)) : 0,
      min: get('min'),
      received: get('received'),
      given: get('given'),
      unresponsiveMs: unheardSince === 0 ? 0 : elapsed(unheardSince, tenths(now)),
    })
  }
  const moves = Atomics.load(words, header.moves)
  const moveMs = Atomics.load(words, header.moveCost) / 10
  return { name, limit, ...counts, moves, moveMs, ...refusalStats(ledger, now), members }
}

/** The numbers of a broker that could not be found. */
export function noStats(name: string): BrokerStats {
  const counts = { limit: 0, held: 0, closing: 0, granted: 0, limbo: 0, free: 0 }
  return { name, ...counts, moves: 0, moveMs: 0, refusals: 0, refusedForMs: 0, limitFits: true, members: [] }
}
