import postgres from 'postgres'
import { databaseUrl } from './database-url.ts'
import type { Database } from './work.ts'

let sql: postgres.Sql | undefined

/** The database the usual way: a pool of 10 in every thread that needs one. */
export const usual: Database = {
  async lease(fn) {
    sql ??= postgres(databaseUrl(), { max: 10, onnotice: () => {}, connection: { application_name: 'the usual way' } })
    const connection = sql
    await fn((ms) => connection`select pg_sleep(${ms / 1000}::float8)`)
  },
}
