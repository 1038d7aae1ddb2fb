import { afterAll, beforeAll, expect, test } from 'vitest'
import { createPool } from '../../src/postgres/index.ts'
import { createDatabase } from '../support/database.ts'
import type { TestDatabase } from '../support/database.ts'

let db: TestDatabase
beforeAll(async () => {
  db = await createDatabase()
})
afterAll(() => db.drop())

test('smoke', async () => {
  const pool = createPool(db.url, { max: 3 })
  const t0 = performance.now()
  expect(await pool.sql`select ${1}::int as a`).toEqual([{ a: 1 }])
  const rows = await Promise.all(Array.from({ length: 50 }, (_, i) => pool.sql`select ${i}::int as i`))
  expect(rows.map((r) => r[0]?.['i'])).toEqual(Array.from({ length: 50 }, (_, i) => i))
  expect((await pool.sql`select ${['a', 'b']}::text[] as x, '{1,NULL}'::int[] as y`)[0]).toEqual({
    x: ['a', 'b'],
    y: [1, null],
  })
  await pool.transaction(async (sql) => {
    await sql`create table t (a int)`
    await sql`insert into t ${sql({ a: 5 })}`
  })
  expect(await pool.sql`select * from t`).toEqual([{ a: 5 }])
  await pool.close()
  await db.sessionsToBe(0)
})
