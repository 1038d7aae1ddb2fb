/** Since when each slot has shown the very word that it shows now, as far as this member has looked. */
export class Memory {
  readonly #words: number[] = []
  readonly #since: number[] = []

  /** How long, in ms; 0 when it is seen for the first time. */
  age(slot: number, word: number, now: number): number {
    if (this.#words[slot] === word) return now - (this.#since[slot] ?? now)
    this.#words[slot] = word
    this.#since[slot] = now
    return 0
  }
}
