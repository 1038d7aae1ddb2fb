/** What one task does, the same for every contender. It crosses threads as it is. */
export interface Work {
  /** Rounds of the hash; as many as take a millisecond. */
  readonly rounds: number
  /** One after the other. */
  readonly queries: number
  /** How long the server sleeps in each query; 0: it looks up a row. */
  readonly sleepMs: number
  readonly id: number
}

/** How a contender gets at the database. */
export interface Database {
  row(id: number): PromiseLike<readonly unknown[]>
  sleep(ms: number): PromiseLike<readonly unknown[]>
}

/** Computes, then queries. Resolves with the hash, so that it cannot be left out. */
export async function perform(database: Database, { rounds, queries, sleepMs, id }: Work): Promise<number> {
  const result = hash(rounds, id)
  for (let i = 0; i < queries; i++) {
    const rows = sleepMs > 0 ? await database.sleep(sleepMs) : await database.row(id)
    if (rows.length !== 1) throw new Error(`${rows.length} rows instead of one`)
  }
  return result
}

export function hash(rounds: number, seed: number): number {
  let value = 0x811c9dc5 ^ seed
  for (let i = 0; i < rounds; i++) value = Math.imul(value ^ (i & 0xff), 0x01000193)
  return value >>> 0
}

/** How many rounds take so long on this machine, when nothing disturbs: the shortest of many tries. */
export function roundsFor(ms: number): number {
  const rounds = 200_000
  let shortestMs = Infinity
  let sum = 0
  for (let i = 0; i < 300; i++) {
    const startedAt = performance.now()
    sum += hash(rounds, i)
    shortestMs = Math.min(shortestMs, performance.now() - startedAt)
  }
  if (Number.isNaN(sum)) throw new Error('no hash')
  return Math.round((rounds * ms) / shortestMs)
}
