import type { PostgresPool } from '../../src/postgres/index.ts'
import type { Database } from './work.ts'

/** The database through millpond: this thread's pool, under the limit of all threads. */
export function ours(pool: PostgresPool): Database {
  return {
    lease: (fn) => pool.use((sql) => fn((ms) => sql`select pg_sleep(${ms / 1000}::float8)`)),
  }
}
