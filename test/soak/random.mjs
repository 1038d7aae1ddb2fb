/** Random numbers that a seed repeats. */
export class Random {
  #state

  /** @param {number} seed */
  constructor(seed) {
    this.#state = seed >>> 0
  }

  /** From 0 to 1, without 1. */
  next() {
    this.#state = (this.#state + 0x6d2b79f5) | 0
    let mixed = Math.imul(this.#state ^ (this.#state >>> 15), 1 | this.#state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }

  /** A whole number, both ends included. */
  from(least, most) {
    return least + Math.floor(this.next() * (most - least + 1))
  }

  chance(probability) {
    return this.next() < probability
  }

  of(list) {
    return list[this.from(0, list.length - 1)]
  }

  shuffled(list) {
    const rest = [...list]
    return list.map(() => rest.splice(this.from(0, rest.length - 1), 1)[0])
  }

  /** One of `[weight, value]`. */
  weighted(choices) {
    let at = this.next() * choices.reduce((sum, [weight]) => sum + weight, 0)
    for (const [weight, value] of choices) {
      at -= weight
      if (at < 0) return value
    }
    return choices.at(-1)[1]
  }
}
