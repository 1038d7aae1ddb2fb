// What require() gives is the function, as it is for postgres.js; everything else is on it.
const assert = require('node:assert/strict')
const postgres = require('millpond/postgres')
const { createPool, default: again, PostgresPool } = require('millpond/postgres')

assert.equal(typeof postgres, 'function')
assert.equal(again, postgres)

async function main() {
  const sql = postgres(process.env.DATABASE_URL, { max: 1, transform: postgres.camel })
  const [row] = await sql`select 1 as one_two`
  assert.deepEqual({ ...row }, { oneTwo: 1 })
  await assert.rejects(
    sql`select 1/0`,
    (error) => error instanceof postgres.PostgresError && error instanceof sql.PostgresError,
  )
  await sql.end()
  const pool = createPool(process.env.DATABASE_URL)
  assert.ok(pool instanceof PostgresPool)
  assert.equal((await pool.sql`select 1`).count, 1)
  await pool.close()
  assert.equal((await import('millpond/postgres')).default, postgres)
  console.log('require ok')
}
void main()
