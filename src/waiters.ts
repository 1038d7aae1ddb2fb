import type { Linked } from './deque.ts'
import { Deque } from './deque.ts'

/** waiting → served | spared | timed out | aborted | refused; one winner, for good. */
export type WaiterState = 'waiting' | 'served' | 'spared' | 'timed out' | 'aborted' | 'refused'

let turns = 0

/** One acquire that has not been answered. Who answers it says so with `settle`, and acts only if that was the first. */
export abstract class Waiter<S> implements Linked<Waiter<S>> {
  state: WaiterState = 'waiting'
  /** Its place among all waiters, whatever the clock says. */
  readonly turn: number = ++turns
  readonly queuedAt: number
  /** The pool's own: it takes what there is, and has nothing opened for it. */
  own = false
  /** Absolute, whatever it waits for. */
  readonly deadlineAt: number

  next: Waiter<S> | undefined
  previous: Waiter<S> | undefined
  deque: object | undefined

  constructor(queuedAt: number, deadlineAt: number) {
    this.queuedAt = queuedAt
    this.deadlineAt = deadlineAt
  }

  /** Tells the caller. Done once, by who has settled it. */
  abstract serve(slot: S): void
  abstract fail(error: unknown): void
  /** Its deadline has come: `fail` follows, unless it was answered meanwhile. */
  abstract expire(): void

  /** True for the first who calls it: the answer is theirs to give. */
  settle(to: Exclude<WaiterState, 'waiting'>): boolean {
    if (this.state !== 'waiting') return false
    this.state = to
    return true
  }
}

/** Unanswered acquires, oldest first. All are in state `waiting`. */
export class Waiters<S> {
  readonly #queue = new Deque<Waiter<S>>()

  get size(): number {
    return this.#queue.size
  }

  get oldest(): Waiter<S> | undefined {
    return this.#queue.first
  }

  /** The oldest, unless it is the pool's own. */
  get firstUser(): Waiter<S> | undefined {
    const { first } = this.#queue
    return first?.own ? undefined : first
  }

  /** Joins at the end. */
  join(waiter: Waiter<S>): void {
    this.#queue.pushBack(waiter)
  }

  /** Goes to where its turn is, or back there: before those who are younger, the pool's own before everybody. */
  place(waiter: Waiter<S>): void {
    let next = this.#queue.first
    while (next && (next.own === waiter.own ? next.turn < waiter.turn : next.own)) next = next.next
    this.#queue.insertBefore(waiter, next)
  }

  next(): Waiter<S> | undefined {
    return this.#queue.shiftFront()
  }

  /** Leaves from anywhere, O(1). False if it was not here. */
  leave(waiter: Waiter<S>): boolean {
    return this.#queue.remove(waiter)
  }

  /** Those that connections are opened for. */
  get users(): number {
    let users = this.#queue.size
    for (let one = this.#queue.first; one?.own; one = one.next) users--
    return users
  }

  /** Whether it is one of the first `count`. */
  isAmongFirst(waiter: Waiter<S>, count: number): boolean {
    let one = this.#queue.first
    for (let i = 0; one && i < count; i++, one = one.next) if (one === waiter) return true
    return false
  }
}
