import { onTestFinished } from 'vitest'
import { createPool } from '../../src/postgres/index.ts'
import type { PostgresPool, PostgresPoolOptions, PostgresSql } from '../../src/postgres/index.ts'
import type { TestDatabase } from './database.ts'

/** A pool of two connections, unless said otherwise, that is closed when the test is over. */
export function makePool(db: TestDatabase, options: PostgresPoolOptions = {}): PostgresPool {
  const pool = createPool(db.url, { max: 2, ...options })
  onTestFinished(async () => {
    await pool.close({ timeoutMs: 100 })
  })
  return pool
}

/** A new table of one column, and what is in it, through this pool: in a transaction, as that sees it. */
export async function makeTable(pool: PostgresPool): Promise<{ name: string; read: () => Promise<unknown[]> }> {
  const name = `made_${++tables}`
  await pool.sql.unsafe(`create table ${name} (a int primary key)`)
  return {
    name,
    read: async () => (await pool.sql.unsafe(`select a from ${name} order by a`)).map((row) => row['a'] as unknown),
  }
}

let tables = 0

export const insert = (sql: PostgresSql, name: string, a: number): PromiseLike<unknown> =>
  sql`insert into ${sql(name)} values (${a})`

export const pidOf = async (sql: PostgresSql): Promise<unknown> =>
  (await sql`select pg_backend_pid() as pid`)[0]?.['pid']
