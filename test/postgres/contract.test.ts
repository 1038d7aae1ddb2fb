import { afterAll, beforeAll, test } from 'vitest'
import { driverContract } from '../../src/testing/index.ts'
import { DriverUnderTest } from '../support/connection.ts'
import { createDatabase } from '../support/database.ts'
import type { TestDatabase } from '../support/database.ts'

let db: TestDatabase
beforeAll(async () => {
  db = await createDatabase()
})
afterAll(() => db.drop())

const clauses = (under: DriverUnderTest): ReturnType<typeof driverContract> =>
  driverContract({
    driver: under.driver,
    kill: ({ identity: { pid } }) => db.admin`select pg_terminate_backend(${pid})`,
    count: async () => (await db.sessions()).length,
    touch: (connection) => under.sql(connection)`select set_config('app.tenant', 'a', false)`,
    timeoutMs: 10_000,
  })

const names = clauses(new DriverUnderTest('postgres://localhost/none')).map(({ name }) => name)

test.each(names)('PostgresDriver: %s', async (name) => {
  const clause = clauses(new DriverUnderTest(db.url)).find((one) => one.name === name)
  await clause?.run()
  await db.sessionsToBe(0)
})
