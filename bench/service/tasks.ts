import type { TaskContext } from '../../src/service/index.ts'
import { hash, perform } from './work.ts'
import type { Work } from './work.ts'

// The tasks of the service.

export function computeAndQuery(work: Work, { pool }: TaskContext): Promise<number> {
  const { sql } = pool
  const database = {
    row: (id: number) => sql`select id, name, amount from item where id = ${id}`,
    sleep: (ms: number) => sql`select pg_sleep(${ms / 1_000}::float8)`,
  }
  return perform(database, work)
}

/** Computes for so long, without a pause. */
export function burn(ms: number): number {
  const until = performance.now() + ms
  let sum = 0
  while (performance.now() < until) sum ^= hash(10_000, sum)
  return sum
}
