/** Where a time falls: four steps to each doubling, from 1/16 ms up to some hours. */
const stepsPerDoubling = 4
const firstDoubling = -4
const buckets = 112

/** How long something took, in all the cases so far. Times are milliseconds; percentiles are good to a fifth. */
export interface HistogramStats {
  readonly count: number
  readonly totalMs: number
  readonly maxMs: number
  readonly p50Ms: number
  readonly p90Ms: number
  readonly p99Ms: number
}

/** Counts times by size. Recording is a logarithm and an addition. */
export class Histogram {
  readonly #counts = new Uint32Array(buckets)
  #count = 0
  #total = 0
  #max = 0

  record(ms: number): void {
    const time = Math.max(0, ms)
    const step = time > 0 ? Math.floor((Math.log2(time) - firstDoubling) * stepsPerDoubling) + 1 : 0
    const bucket = Math.min(buckets - 1, Math.max(0, step))
    this.#counts[bucket] = (this.#counts[bucket] ?? 0) + 1
    this.#count++
    this.#total += time
    if (time > this.#max) this.#max = time
  }

  snapshot(): HistogramStats {
    return {
      count: this.#count,
      totalMs: this.#total,
      maxMs: this.#max,
      p50Ms: this.#percentile(0.5),
      p90Ms: this.#percentile(0.9),
      p99Ms: this.#percentile(0.99),
    }
  }

  /** The upper end of the bucket in which it lies, or the longest time where that is less. */
  #percentile(part: number): number {
    let left = Math.ceil(this.#count * part)
    for (let bucket = 0; bucket < buckets && left > 0; bucket++) {
      left -= this.#counts[bucket] ?? 0
      if (left <= 0) return Math.min(this.#max, 2 ** (bucket / stepsPerDoubling + firstDoubling))
    }
    return 0
  }
}
