/** What members got within a span of time. */
export class Tally {
  readonly from: number
  readonly to: number
  /** Queries done, by member. */
  readonly done: number[]
  /** How long those that were served had waited, by member. */
  readonly waits: number[][]
  /** Since when those wait that have not been served. */
  readonly #waiting: Set<number>[]
  #queries = 0
  readonly #since = new Map<number, number>()

  constructor(members: number, from: number, to: number) {
    this.from = from
    this.to = to
    this.done = Array.from({ length: members }, () => 0)
    this.waits = this.done.map(() => [])
    this.#waiting = this.done.map(() => new Set())
  }

  get seconds(): number {
    return (this.to - this.from) / 1_000
  }

  /** A query has come. Returns what tells it from the others. */
  came(member: number, now: number): number {
    const query = this.#queries++
    this.#waiting[member]!.add(query)
    this.#since.set(query, now)
    return query
  }

  served(member: number, query: number, now: number): void {
    const waited = now - (this.#since.get(query) ?? now)
    this.#waiting[member]!.delete(query)
    this.#since.delete(query)
    if (now >= this.from) this.waits[member]!.push(waited)
  }

  ended(member: number, now: number): void {
    if (now >= this.from && now <= this.to) this.done[member]!++
  }

  /** The longest wait of a member, those that last included. */
  longest(member: number): number {
    let longest = 0
    for (const wait of this.waits[member]!) longest = Math.max(longest, wait)
    for (const query of this.#waiting[member]!) longest = Math.max(longest, this.to - this.#since.get(query)!)
    return longest
  }
}

/** 1 if all have the same, 1 / n if one has everything. */
export function jain(values: readonly number[]): number {
  const sum = values.reduce((a, b) => a + b, 0)
  const squares = values.reduce((a, b) => a + b * b, 0)
  return squares === 0 ? 1 : sum ** 2 / (values.length * squares)
}

/** The value that a share of all do not exceed. */
export function quantile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b)
  return sorted[Math.max(0, Math.ceil(sorted.length * share) - 1)] ?? 0
}
