import { expect, onTestFinished } from 'vitest'
import { createPool } from '../../src/postgres/index.ts'
import type { PostgresPool, PostgresPoolOptions, Types } from '../../src/postgres/index.ts'
import { until } from './database.ts'
import type { TestDatabase } from './database.ts'

/** A pool for one test, at whose end every connection is to be back: in the pool, and idle as the server sees it. */
export function poolFor<T extends Types = {}>(db: TestDatabase, options: PostgresPoolOptions<T> = {}): PostgresPool<T> {
  const pool = createPool<T>(db.url, { max: 2, ...options })
  onTestFinished(async () => {
    try {
      await givenBack(db, pool)
    } finally {
      await pool.close({ timeoutMs: 100 })
    }
  })
  return pool
}

export async function givenBack<T extends Types>(db: TestDatabase, pool: PostgresPool<T>): Promise<void> {
  await until(() => {
    const { leased, waiting, open, idle } = pool.stats()
    return leased === 0 && waiting === 0 && open === idle
  }, 'every connection to be given back')
  // The server shows a state some time after it has answered.
  await until(async () => (await db.sessions()).every(({ state }) => state === 'idle'), 'every session to be idle')
  expect(pool.stats()).toMatchObject({ leased: 0, waiting: 0 })
}

/** The number of a session that runs something with this in its text. */
export async function running(db: TestDatabase, text: string): Promise<number | undefined> {
  return (await db.sessions()).find(({ state, query }) => state === 'active' && query.includes(text))?.pid
}

export const runs = (db: TestDatabase, text: string): Promise<void> =>
  until(async () => (await running(db, text)) !== undefined, `${text} to run`)

/** Ends all sessions. */
export async function kill(db: TestDatabase): Promise<void> {
  await db.admin`select pg_terminate_backend(pid) from pg_stat_activity where datname = ${db.name}`
}
