import { move, state, stateNames } from './slot.ts'
import type { Slot, State } from './slot.ts'
import type { PoolStats } from './stats.ts'

/**
 * All slots of a pool, and how many there are of each state.
 *
 * Always: the counts are those of the states; a slot that is gone is not here any more.
 */
export class Slots<C> implements Iterable<Slot<C>> {
  readonly #all = new Set<Slot<C>>()
  /** By state. */
  readonly #counts = noSlots()
  #doubtful = 0

  get size(): number {
    return this.#all.size
  }

  count(of: State): number {
    return this.#counts[of]!
  }

  /** Connections that can be lent, now or later. */
  get living(): number {
    const counts = this.#counts
    return counts[state.idle]! + counts[state.checking]! + counts[state.leased]! + counts[state.resetting]!
  }

  /** Those that will be connections, or are: all but those that close. */
  get unclosed(): number {
    return this.#all.size - this.#counts[state.closing]!
  }

  /** Closing ones that only a reaper can end. */
  get doubtful(): number {
    return this.#doubtful
  }

  /** Adds one that begins to open. */
  add(slot: Slot<C>): void {
    this.#all.add(slot)
    this.#counts[slot.state]!++
  }

  /** Moves one to another state; into `gone`, and it is here no more. */
  move(slot: Slot<C>, to: State): void {
    const from = slot.state
    move(slot, to)
    this.#counts[from]!--
    if (to !== state.gone) {
      this.#counts[to]!++
      return
    }
    if (slot.doubtful) this.#doubtful--
    slot.doubtful = false
    this.#all.delete(slot)
  }

  /** Nobody saw the end of this one. False if that was known. */
  doubt(slot: Slot<C>): boolean {
    if (slot.state !== state.closing || slot.doubtful) return false
    slot.doubtful = true
    this.#doubtful++
    return true
  }

  /** Those that have been leased for longer than this, each once. */
  leaks(now: number, afterMs: number): Slot<C>[] {
    const isLeak = (slot: Slot<C>): boolean =>
      slot.state === state.leased && !slot.leaked && now - slot.leasedAt > afterMs
    const leaks = [...this.#all].filter(isLeak)
    for (const slot of leaks) slot.leaked = true
    return leaks
  }

  stats(): Pick<PoolStats, 'open' | 'opening' | 'idle' | 'leased' | 'closing' | 'doubtful'> {
    return {
      open: this.living,
      opening: this.count(state.opening),
      idle: this.count(state.idle),
      leased: this.count(state.leased),
      closing: this.count(state.closing),
      doubtful: this.#doubtful,
    }
  }

  [Symbol.iterator](): Iterator<Slot<C>> {
    return this.#all.values()
  }

  /** Whether what must always hold does. */
  get isSound(): boolean {
    const counts = noSlots()
    for (const slot of this.#all) counts[slot.state]!++
    return counts.every((count, of) => count === this.#counts[of]) && counts[state.gone] === 0
  }
}

function noSlots(): number[] {
  return stateNames.map(() => 0)
}
