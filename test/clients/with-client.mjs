// Runs a client's program on the package as it is installed, in one of three ways.
import assert from 'node:assert/strict'
import postgres, { createPool } from 'millpond/postgres'

const url = process.env.DATABASE_URL
export const mode = process.argv[2]

/** What is thrown to see that everything is undone. */
class Undo extends Error {}

/** Calls `fn` with what the client takes for postgres.js, and with the pool there is. */
export async function withClient(fn) {
  if (mode === 'drop-in') {
    const sql = postgres(url, { max: 3, onnotice: () => undefined })
    await fn(sql)
    await sql.end()
    return
  }
  // In a transaction there is one connection, and whatever does not run in it would never get another one.
  const pool = createPool(url, { max: mode === 'ambient' ? 1 : 3, acquireTimeoutMs: 3_000 })
  if (mode === 'pool') await fn(pool.sql, pool)
  else {
    const before = await tables(pool)
    const all = pool.transaction(async () => {
      await fn(pool.sql, pool)
      assert.notDeepEqual(await tables(pool), before)
      throw new Undo()
    })
    await assert.rejects(all, Undo)
    assert.deepEqual(await tables(pool), before)
  }
  await pool.close()
}

async function tables(pool) {
  return [...(await pool.sql`select relname from pg_class where relkind = 'r' order by 1`)].map(
    ({ relname }) => relname,
  )
}
