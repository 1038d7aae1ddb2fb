const parts = 4

/**
 * How many idle connections nobody needed: the fewest that were idle at any time during one idle timeout, kept in
 * quarters, so that a surplus is seen at most a quarter late.
 */
export class LowWater {
  /** The fewest of each quarter that is over. */
  readonly #past: number[] = Array.from({ length: parts }, () => 0)
  #current = 0
  #quarter = 0

  /** Called whenever there are fewer idle ones than before. */
  fell(idle: number): void {
    if (idle < this.#current) this.#current = idle
  }

  /** Ends a quarter; `idle` is what the next one starts with. Returns what was idle through all of the timeout. */
  turn(idle: number): number {
    this.#past[this.#quarter] = this.#current
    this.#quarter = (this.#quarter + 1) % parts
    this.#current = idle
    return Math.min(...this.#past)
  }

  /** Forgets: nothing is known of the time that has passed. */
  restart(idle: number): void {
    this.#past.fill(0)
    this.#current = idle
  }
}
