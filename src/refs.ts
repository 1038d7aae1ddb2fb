import type { Driver } from './driver.ts'
import { state } from './slot.ts'
import type { Slot } from './slot.ts'

/**
 * Which connections keep the process alive: those that somebody uses, and no others.
 *
 * A connection that comes back is not let go at once: under load it is lent again in the same turn of the event loop,
 * and both calls would be for nothing. Those that are idle when the turn ends are.
 */
export class Refs<C> {
  readonly #driver: Driver<C>
  /** Came back in this turn. */
  readonly #back: Slot<C>[] = []

  constructor(driver: Driver<C>) {
    this.#driver = driver
  }

  /** Somebody uses it from now on. */
  hold(slot: Slot<C>): void {
    if (slot.holdsProcess) return
    slot.holdsProcess = true
    this.#driver.ref?.(slot.connection as C)
  }

  /** Nobody may use it any more; that is seen at the end of the turn. */
  letGo(slot: Slot<C>): void {
    if (slot.back) return
    slot.back = true
    if (this.#back.push(slot) === 1) setImmediate(this.#atEndOfTurn)
  }

  readonly #atEndOfTurn = (): void => {
    for (const slot of this.#back.splice(0)) {
      slot.back = false
      if (slot.state !== state.idle || !slot.holdsProcess) continue
      slot.holdsProcess = false
      this.#driver.unref?.(slot.connection as C)
    }
  }
}
