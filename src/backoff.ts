const firstMs = 50
const longestMs = 5_000

/**
 * How long to leave a server alone that refuses: at first not at all, then 50 ms, doubling to 5 s, each ±10 %.
 *
 * Attempts that ran side by side and failed together are one failure: a server that is down for a moment is not
 * punished for the size of the pool.
 */
export class Backoff {
  /** Failures in a row. */
  failures = 0
  lastFailure: unknown
  /** No attempt before this time. */
  until: number = -Infinity
  /** Grows with every failure; an attempt belongs to the round in which it began. */
  round = 0
  readonly #random: () => number

  constructor(random: () => number) {
    this.#random = random
  }

  /** An attempt that began in this round has failed. */
  failed(cause: unknown, round: number, now: number): void {
    this.lastFailure = cause
    if (round < this.round) return
    this.round++
    const pause = this.failures === 0 ? 0 : Math.min(longestMs, firstMs * 2 ** (this.failures - 1))
    this.failures++
    this.until = now + pause * (0.9 + 0.2 * this.#random())
  }

  reset(): void {
    this.failures = 0
    this.lastFailure = undefined
    this.until = -Infinity
  }
}
