/** What its callers ask for, each for the next as soon as it has its answer. */
export interface Point {
  readonly name: string
  /** Of the processor. */
  readonly computeMs: number
  readonly queries: number
  readonly sleepMs: number
}

/** Half of them run, half of them wait for a worker. */
export const callers = 40

export const points: readonly Point[] = [
  // What a call costs by itself, beside work of its own.
  { name: '1 ms, no query', computeMs: 1, queries: 0, sleepMs: 0 },
  { name: '1 ms, then a row by its key', computeMs: 1, queries: 1, sleepMs: 0 },
  { name: '1 ms, then two rows, one after the other', computeMs: 1, queries: 2, sleepMs: 0 },
  { name: '1 ms, then a query of 2 ms', computeMs: 1, queries: 1, sleepMs: 2 },
  { name: '10 ms, then a row by its key', computeMs: 10, queries: 1, sleepMs: 0 },
]
