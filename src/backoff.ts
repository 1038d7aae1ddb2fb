const firstMs = 50
const longestMs = 5_000

/** How long to leave a server alone that refuses: at first not at all, then 50 ms, doubling to 5 s, each ±10 %. */
export class Backoff {
  /** Failures in a row. */
  failures = 0
  lastFailure: unknown
  /** No attempt before this time. */
  until: number = -Infinity
  readonly #random: () => number

  constructor(random: () => number) {
    this.#random = random
  }

  failed(cause: unknown, now: number): void {
    const pause = this.failures === 0 ? 0 : Math.min(longestMs, firstMs * 2 ** (this.failures - 1))
    this.failures++
    this.lastFailure = cause
    this.until = now + pause * (0.9 + 0.2 * this.#random())
  }

  reset(): void {
    this.failures = 0
    this.lastFailure = undefined
    this.until = -Infinity
  }
}
