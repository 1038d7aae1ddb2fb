import type { Clock, Timer } from '../../src/clock.ts'

class Entry implements Timer {
  readonly at: number
  readonly turn: number
  fn: (() => void) | undefined

  constructor(at: number, turn: number, fn: () => void) {
    this.at = at
    this.turn = turn
    this.fn = fn
  }

  cancel(): void {
    this.fn = undefined
  }

  isBefore(other: Entry): boolean {
    return this.at === other.at ? this.turn < other.turn : this.at < other.at
  }
}

/** Time that jumps from one event to the next. Events at the same time happen in the order in which they were set. */
export class VirtualTime implements Clock {
  readonly #heap: Entry[] = []
  #now = 0
  #turns = 0

  now(): number {
    return this.#now
  }

  setTimer(fn: () => void, ms: number): Timer {
    const entry = new Entry(this.#now + ms, this.#turns++, fn)
    const heap = this.#heap
    let i = heap.push(entry) - 1
    while (i > 0) {
      const parent = (i - 1) >> 1
      if (!entry.isBefore(heap[parent]!)) break
      heap[i] = heap[parent]!
      i = parent
    }
    heap[i] = entry
    return entry
  }

  /** Lets everything happen that is due by then; `afterEach` runs after each event. */
  run(until: number, afterEach: () => void): void {
    for (let next = this.#heap[0]; next && next.at <= until; next = this.#heap[0]) {
      this.#removeFirst()
      if (!next.fn) continue
      this.#now = next.at
      next.fn()
      afterEach()
    }
    this.#now = until
  }

  #removeFirst(): void {
    const heap = this.#heap
    const last = heap.pop()!
    if (heap.length === 0) return
    let i = 0
    for (;;) {
      let child = 2 * i + 1
      if (child >= heap.length) break
      if (child + 1 < heap.length && heap[child + 1]!.isBefore(heap[child]!)) child++
      if (!heap[child]!.isBefore(last)) break
      heap[i] = heap[child]!
      i = child
    }
    heap[i] = last
  }
}
