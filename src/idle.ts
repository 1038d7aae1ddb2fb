import { Deque } from './deque.ts'
import { LowWater } from './low-water.ts'
import type { Slot } from './slot.ts'

/** The idle slots of a pool, the one idle longest first, and how many of them nobody needed lately. */
export class Idle<C> {
  readonly #slots = new Deque<Slot<C>>()
  readonly #lowWater = new LowWater()
  readonly #order: 'lifo' | 'fifo'

  constructor(order: 'lifo' | 'fifo') {
    this.#order = order
  }

  get size(): number {
    return this.#slots.size
  }

  /** The one to be lent next. */
  get next(): Slot<C> | undefined {
    return this.#order === 'lifo' ? this.#slots.last : this.#slots.first
  }

  get oldest(): Slot<C> | undefined {
    return this.#slots.first
  }

  add(slot: Slot<C>): void {
    this.#slots.pushBack(slot)
  }

  remove(slot: Slot<C>): void {
    if (this.#slots.remove(slot)) this.#lowWater.fell(this.#slots.size)
  }

  /** Ends a quarter of the idle timeout. Returns how many were idle through all of it. */
  turn(): number {
    return this.#lowWater.turn(this.#slots.size)
  }

  /** Nothing is known of the time that has passed. */
  restart(): void {
    this.#lowWater.restart(this.#slots.size)
  }

  /** A copy: what is done with one may change the rest. */
  all(): Slot<C>[] {
    return [...this.#slots]
  }
}
