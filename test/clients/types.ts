// What compiles for postgres.js compiles here: the types of clients, and those that people name.
import { drizzle } from 'drizzle-orm/postgres-js'
import { Kysely } from 'kysely'
import { PostgresJSDialect } from 'kysely-postgres-js'
import postgres, { createPool, type Options, type Row, type RowList, type Sql } from 'millpond/postgres'
import type plain from 'postgres'

const sql: postgres.Sql = postgres('postgres://h/d', { max: 3, idle_timeout: 20, limit: 20, transform: postgres.camel })
const same: Sql = sql
const theirs: plain.Sql = sql
const back: postgres.Sql = theirs
const options: postgres.Options<{}> = { host: 'h', onnotice: () => undefined, broker: 'orders' }
const named: Options = options
const plainOptions: plain.Options<{}> = { host: 'h' }
postgres(plainOptions)
postgres(named)

const withTypes = postgres({ types: { bigint: postgres.BigInt } })
const big: postgres.Parameter<bigint> = withTypes.typed.bigint(1n)
// @ts-expect-error -- not one of its own types
const noType: unknown = withTypes.typed.other

interface User {
  id: number
  name: string
}
const users: Promise<RowList<User[]>> = sql<User[]>`select * from users`
const done: Promise<[Row | undefined, number]> = sql.begin(
  'read write',
  async (transaction: postgres.TransactionSql) => {
    const [row] = await transaction`select 1`
    await transaction.savepoint('name', (inner) => inner`select 1`)
    return [row, 1]
  },
)
const reserved: Promise<postgres.ReservedSql> = sql.reserve()
function isError(error: unknown): error is postgres.PostgresError {
  return error instanceof postgres.PostgresError
}
// @ts-expect-error -- not an option
postgres({ nothing: 1 })

const pool = createPool('postgres://h/d')
const ofPool: plain.Sql = pool.sql
const typedPool: plain.Sql<{ bigint: bigint }> = createPool('postgres://h/d', {
  types: { bigint: postgres.BigInt },
}).sql
const drizzled = [drizzle(pool.sql), drizzle(sql), drizzle({ client: pool.sql })]
const kyselies = [pool.sql, sql].map((one) => new Kysely<{}>({ dialect: new PostgresJSDialect({ postgres: one }) }))

export { back, big, done, drizzled, isError, kyselies, noType, ofPool, reserved, same, typedPool, users }
