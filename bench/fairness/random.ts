/** Random numbers that a seed determines (mulberry32). */
export class Random {
  #state: number

  /** Streams of one seed with different names have nothing to do with each other. */
  constructor(seed: number, name: string = '') {
    let hash = (seed ^ 0x9e3779b9) >>> 0
    for (const letter of name) hash = Math.imul(hash ^ letter.charCodeAt(0), 0x01000193) >>> 0
    this.#state = hash
    for (let i = 0; i < 4; i++) this.next()
  }

  /** 0 ≤ x < 1. */
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0
    let x = Math.imul(this.#state ^ (this.#state >>> 15), this.#state | 1)
    x ^= x + Math.imul(x ^ (x >>> 7), x | 61)
    return ((x ^ (x >>> 14)) >>> 0) / 2 ** 32
  }

  exponential(mean: number): number {
    return -mean * Math.log(1 - this.next())
  }

  between(least: number, most: number): number {
    return least + (most - least) * this.next()
  }
}
