// kysely's dialect for postgres.js: transactions, savepoints, streams.
import assert from 'node:assert/strict'
import { Kysely, sql } from 'kysely'
import { PostgresJSDialect } from 'kysely-postgres-js'
import { mode, withClient } from './with-client.mjs'

class Undo extends Error {}

await withClient(async (client, pool) => {
  const db = new Kysely({ dialect: new PostgresJSDialect({ postgres: client }) })
  const count = async () =>
    Number(
      (
        await db
          .selectFrom('kysely_users')
          .select(sql`count(*)`.as('n'))
          .executeTakeFirstOrThrow()
      ).n,
    )

  await db.schema
    .createTable('kysely_users')
    .addColumn('id', 'serial', (column) => column.primaryKey())
    .addColumn('name', 'text')
    .addColumn('data', 'jsonb')
    .addColumn('at', 'timestamptz')
    .execute()
  const at = new Date('2024-02-03T04:05:06.789Z')
  const row = await db
    .insertInto('kysely_users')
    .values({ name: 'Ann', data: { a: 1 }, at })
    .returningAll()
    .executeTakeFirstOrThrow()
  assert.deepEqual(row, { id: 1, name: 'Ann', data: { a: 1 }, at })
  const updated = await db.updateTable('kysely_users').set({ name: 'Eve' }).where('id', '=', 1).executeTakeFirst()
  assert.equal(updated.numUpdatedRows, 1n)

  await db.transaction().execute(async (trx) => {
    await trx.insertInto('kysely_users').values({ name: 'Bob' }).execute()
    const { n } = await trx
      .selectFrom('kysely_users')
      .select(sql`count(*)::int`.as('n'))
      .executeTakeFirstOrThrow()
    assert.equal(n, 2)
    // On the same connection where there is one transaction for all of it, and beside it elsewhere.
    assert.equal(await count(), mode === 'ambient' ? 2 : 1)
  })
  const undone = db.transaction().execute(async (trx) => {
    await trx.insertInto('kysely_users').values({ name: 'Joe' }).execute()
    throw new Undo()
  })
  await assert.rejects(undone, Undo)
  const failed = db.transaction().execute(async (trx) => {
    await trx.insertInto('kysely_users').values({ name: 'Joe' }).execute()
    await sql`select 1 / 0`.execute(trx)
  })
  await assert.rejects(failed, { code: '22012' })
  assert.equal(await count(), 2)

  const trx = await db.startTransaction().execute()
  await trx.insertInto('kysely_users').values({ name: 'Kim' }).execute()
  const saved = await trx.savepoint('before').execute()
  await saved.insertInto('kysely_users').values({ name: 'Joe' }).execute()
  await saved.rollbackToSavepoint('before').execute()
  await trx.commit().execute()
  assert.equal(await count(), 3)

  const serializable = db
    .transaction()
    .setIsolationLevel('serializable')
    .execute(async (inner) => {
      const { rows } = await sql`select current_setting('transaction_isolation') as level`.execute(inner)
      return rows[0].level
    })
  if (mode === 'ambient') await assert.rejects(serializable, { code: 'ERR_OPTION' })
  else assert.equal(await serializable, 'serializable')

  const numbers = db.selectFrom(sql`generate_series(1, 1000)`.as('n')).select('n')
  let sum = 0
  for await (const { n } of numbers.stream(100)) sum += n
  assert.equal(sum, 500_500)
  for await (const { n } of numbers.stream(10)) if (n === 15) break
  assert.equal(await count(), 3)

  await db.connection().execute(async (one) => {
    const pid = async () => (await sql`select pg_backend_pid() as pid`.execute(one)).rows[0].pid
    assert.equal(await pid(), await pid())
  })
  if (pool) assert.equal((await pool.sql`select from kysely_users`).count, 3)
  // It ends what it was given.
  if (mode === 'pool') {
    await db.destroy()
    await assert.rejects(pool.sql`select 1`, { code: 'ERR_POOL_CLOSED' })
  }
  if (mode === 'drop-in') {
    await db.destroy()
    await assert.rejects(client`select 1`, { code: 'CONNECTION_ENDED' })
  }
})
console.log('kysely', mode, 'ok')
