const nowhere = new Int32Array(1)

/**
 * While it lasts, nobody else wants any connection and there is nothing to settle: a release need not ask its permits.
 * It is looked at with each release, which is why it is plain fields and one load, and no call.
 *
 * State
 *   known   as far as this thread knows, it is so
 *   seen    what stood then in the word that others change when they begin to want any
 */
export class Lull {
  known = false
  seen = 0
  #words: Int32Array = nowhere
  #index = 0

  /** The word that others change. Without one, nobody does. */
  watch(words: Int32Array, index: number): void {
    this.#words = words
    this.#index = index
  }

  get lasts(): boolean {
    return this.known && Atomics.load(this.#words, this.#index) === this.seen
  }
}
