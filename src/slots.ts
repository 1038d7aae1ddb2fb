import { move } from './slot.ts'
import type { Slot, SlotState } from './slot.ts'

/**
 * All slots of a pool, and how many there are of each state.
 *
 * Always: the counts are those of the states; a slot that is gone is not here any more.
 */
export class Slots<C> implements Iterable<Slot<C>> {
  readonly #all = new Set<Slot<C>>()
  readonly #counts = noSlots()
  #doubtful = 0

  get size(): number {
    return this.#all.size
  }

  count(state: SlotState): number {
    return this.#counts[state]
  }

  /** Connections that can be lent, now or later. */
  get living(): number {
    const { idle, checking, leased, resetting } = this.#counts
    return idle + checking + leased + resetting
  }

  /** Those that will be connections, or are: all but those that close. */
  get unclosed(): number {
    return this.#all.size - this.#counts.closing
  }

  /** Closing ones that only a reaper can end. */
  get doubtful(): number {
    return this.#doubtful
  }

  /** Adds one that begins to open. */
  add(slot: Slot<C>): void {
    this.#all.add(slot)
    this.#counts[slot.state]++
  }

  /** Moves one to another state; into `gone`, and it is here no more. */
  move(slot: Slot<C>, to: SlotState): void {
    const from = slot.state
    move(slot, to)
    this.#counts[from]--
    if (to !== 'gone') {
      this.#counts[to]++
      return
    }
    if (slot.doubtful) this.#doubtful--
    slot.doubtful = false
    this.#all.delete(slot)
  }

  /** Nobody saw the end of this one. False if that was known. */
  doubt(slot: Slot<C>): boolean {
    if (slot.state !== 'closing' || slot.doubtful) return false
    slot.doubtful = true
    this.#doubtful++
    return true
  }

  [Symbol.iterator](): Iterator<Slot<C>> {
    return this.#all.values()
  }

  /** Whether what must always hold does. */
  get isSound(): boolean {
    const counts = noSlots()
    for (const { state } of this.#all) counts[state]++
    return JSON.stringify(counts) === JSON.stringify(this.#counts) && counts.gone === 0
  }
}

function noSlots(): Record<SlotState, number> {
  return { opening: 0, idle: 0, checking: 0, leased: 0, resetting: 0, closing: 0, gone: 0 }
}
