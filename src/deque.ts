/** What a `Deque` strings together. The links belong to the deque. */
export interface Linked<T> {
  next: T | undefined
  previous: T | undefined
  /** The deque that holds the item now: an item is in one at most. */
  deque: object | undefined
}

/** A double-ended queue with O(1) removal from anywhere: a linked list through the items themselves. */
export class Deque<T extends Linked<T>> {
  #first: T | undefined
  #last: T | undefined
  #size = 0

  get size(): number {
    return this.#size
  }

  get first(): T | undefined {
    return this.#first
  }

  get last(): T | undefined {
    return this.#last
  }

  pushBack(item: T): void {
    this.#claim(item)
    item.previous = this.#last
    item.next = undefined
    if (this.#last) this.#last.next = item
    else this.#first = item
    this.#last = item
  }

  pushFront(item: T): void {
    this.#claim(item)
    item.next = this.#first
    item.previous = undefined
    if (this.#first) this.#first.previous = item
    else this.#last = item
    this.#first = item
  }

  /** Puts the item before another one of this deque; at the end if there is none. */
  insertBefore(item: T, next: T | undefined): void {
    if (next === undefined) return this.pushBack(item)
    if (next === this.#first) return this.pushFront(item)
    this.#claim(item)
    item.next = next
    item.previous = next.previous
    if (next.previous) next.previous.next = item
    next.previous = item
  }

  /** Takes the item out. False if it was not in this deque. */
  remove(item: T): boolean {
    if (item.deque !== this) return false
    if (item.previous) item.previous.next = item.next
    else this.#first = item.next
    if (item.next) item.next.previous = item.previous
    else this.#last = item.previous
    item.next = item.previous = item.deque = undefined
    this.#size--
    return true
  }

  shiftFront(): T | undefined {
    const item = this.#first
    if (item) this.remove(item)
    return item
  }

  *[Symbol.iterator](): IterableIterator<T> {
    for (let item = this.#first; item; item = item.next) yield item
  }

  #claim(item: T): void {
    if (item.deque) throw new Error('bug: the item is in a deque already')
    item.deque = this
    this.#size++
  }
}
