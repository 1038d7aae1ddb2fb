import { Deque } from '../deque.ts'
import { deferred } from '../deferred.ts'
import type { Deferred } from '../deferred.ts'
import type { Linked } from '../deque.ts'

/** Something that is to have the connection for itself for a while: a query, or a whole savepoint. */
export class Turn implements Linked<Turn> {
  /** It is its turn until it calls `done`. */
  readonly begin: (done: () => void) => void
  /** It will not get one. */
  readonly drop: (error: unknown) => void

  next: Turn | undefined
  previous: Turn | undefined
  deque: object | undefined

  constructor(begin: Turn['begin'], drop: Turn['drop']) {
    this.begin = begin
    this.drop = drop
  }
}

/**
 * Turns, one after the other.
 *
 * State
 *   waiting   those that have not begun, oldest first
 *   busy      one has begun and is not done
 *   open      turns may begin; before that, all wait
 */
export class Turns {
  readonly #waiting = new Deque<Turn>()
  #busy = false
  #open = false
  #change: Deferred<void> | undefined

  get isOpen(): boolean {
    return this.#open
  }

  get idle(): boolean {
    return !this.#busy && this.#waiting.size === 0
  }

  open(): void {
    this.#open = true
    this.#next()
  }

  take(turn: Turn): void {
    this.#waiting.pushBack(turn)
    this.#next()
  }

  /** Drops this one, unless it has begun. */
  dropOne(turn: Turn, error: unknown): void {
    if (!turn.deque) return
    this.#waiting.remove(turn)
    turn.drop(error)
  }

  /** Drops those that have not begun. */
  drop(error: unknown): void {
    for (let turn = this.#waiting.shiftFront(); turn; turn = this.#waiting.shiftFront()) turn.drop(error)
    this.#wake()
  }

  /** Resolves when the next turn is done, or the waiting ones have been dropped. */
  changed(): Promise<void> {
    this.#change ??= deferred<void>()
    return this.#change.promise
  }

  readonly #next = (): void => {
    if (this.#busy || !this.#open) return
    const turn = this.#waiting.shiftFront()
    if (!turn) return
    this.#busy = true
    turn.begin(this.#done)
  }

  // The wire has just become quiet; postgres.js is to see the end of its answer before it is handed the next query.
  readonly #done = (): void => {
    this.#busy = false
    this.#wake()
    if (this.#waiting.size > 0) queueMicrotask(this.#next)
  }

  #wake(): void {
    this.#change?.resolve()
    this.#change = undefined
  }
}
