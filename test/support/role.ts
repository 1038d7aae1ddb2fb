import { randomUUID } from 'node:crypto'
import postgres from 'postgres'
import type { Session, TestDatabase } from './database.ts'

/** A role without privileges of its own, to which the server itself allows no more connections than `limit`. */
export interface TestRole {
  readonly name: string
  readonly url: string
  /** The server's sessions of this role, in whatever database. */
  sessions(): Promise<readonly Session[]>
}

/** Sessions of the role may do anything with the tables that the database has by now. */
export async function createRole(database: TestDatabase, limit: number): Promise<TestRole> {
  const { admin } = database
  const name = `role_${randomUUID().slice(0, 8)}`
  const password = randomUUID()
  await admin.unsafe(`create role ${name} login password '${password}' connection limit ${limit}`)
  const there = postgres(database.url, { max: 1 })
  await there.unsafe(`grant all on all tables in schema public to ${name}`)
  await there.end()
  const url = new URL(database.url)
  url.username = name
  url.password = password
  return {
    name,
    url: url.href,
    sessions: async () =>
      await admin<Session[]>`
        select pid, application_name as name, state, query, wait_event as wait from pg_stat_activity
        where usename = ${name}`,
  }
}
