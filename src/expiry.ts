import type { Clock, Timer } from './clock.ts'
import { setDeadline } from './deadline-timer.ts'
import { Deque } from './deque.ts'
import type { Linked } from './deque.ts'

/** Somebody who waits, and until when. */
export interface Waiting {
  readonly timeoutMs: number
  readonly deadlineAt: number
  /** His time is up. He has been taken out by then. */
  expire(): void
}

/** His place in an `Expiry`. */
export class Due implements Linked<Due> {
  readonly who: Waiting
  readonly line: { remove(due: Due): void }
  next: Due | undefined
  previous: Due | undefined
  deque: object | undefined

  constructor(who: Waiting, line: Due['line']) {
    this.who = who
    this.line = line
  }
}

/**
 * The deadlines of all who wait for one pool. Hardly anybody meets his, so there is no timer for each: all who may wait
 * equally long stand in one line, with one timer for the first of it.
 *
 * State
 *   lines   by how long one may wait; none is empty
 *
 * Always: in a line the deadlines ascend, and its timer fires at the first one's or before.
 */
export class Expiry {
  readonly #clock: Clock
  readonly #lines = new Map<number, Line>()

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /** Before this, his deadline was reckoned from now. */
  add(who: Waiting): Due {
    const { timeoutMs } = who
    let line = this.#lines.get(timeoutMs)
    if (!line) this.#lines.set(timeoutMs, (line = new Line(this.#clock, () => this.#lines.delete(timeoutMs))))
    return line.add(who)
  }

  /** Does nothing for one who has been taken out. */
  remove(due: Due): void {
    due.line.remove(due)
  }
}

class Line {
  readonly #clock: Clock
  readonly #empty: () => void
  readonly #waiting = new Deque<Due>()
  #timer: Timer | undefined
  #ended = false

  constructor(clock: Clock, empty: () => void) {
    this.#clock = clock
    this.#empty = empty
  }

  add(who: Waiting): Due {
    const due = new Due(who, this)
    this.#waiting.pushBack(due)
    if (!this.#timer) this.#wait(who)
    return due
  }

  remove(due: Due): void {
    if (this.#waiting.remove(due) && this.#waiting.size === 0) this.#end()
  }

  #wait({ deadlineAt }: Waiting): void {
    this.#timer = setDeadline(this.#clock, deadlineAt, () => this.#expire())
  }

  #expire(): void {
    let { first } = this.#waiting
    while (first && first.who.deadlineAt <= this.#clock.now()) {
      this.#waiting.remove(first)
      first.who.expire()
      ;({ first } = this.#waiting)
    }
    if (first) this.#wait(first.who)
    else this.#end()
  }

  /** Whoever comes now stands in another line. */
  #end(): void {
    if (this.#ended) return
    this.#ended = true
    this.#timer?.cancel()
    this.#empty()
  }
}
