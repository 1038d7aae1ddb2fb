import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest'
import type { PostgresPool, PostgresSql } from '../../src/postgres/index.ts'
import { createDatabase, until } from '../support/database.ts'
import type { TestDatabase } from '../support/database.ts'
import { hear } from '../support/events.ts'
import { makePool } from '../support/pool.ts'

// What pipelining must not change: who waits for whom and for how long, and what becomes of a connection.

let db: TestDatabase
beforeAll(async () => {
  db = await createDatabase()
})
afterAll(() => db.drop())

const range = (count: number): number[] => Array.from({ length: count }, (_, i) => i)
const whereabouts = async (sql: PostgresSql): Promise<number> =>
  (await sql<{ pid: number }[]>`select pg_backend_pid() as pid`)[0]?.pid ?? 0
const slowly = async (sql: PostgresSql, seconds: number): Promise<number> =>
  (await sql<{ pid: number }[]>`select pg_backend_pid() as pid, pg_sleep(${seconds}::float8)`)[0]?.pid ?? 0

/** How many of these each has. */
function counts(pids: readonly number[]): number[] {
  const all = new Map<number, number>()
  for (const pid of pids) all.set(pid, (all.get(pid) ?? 0) + 1)
  return [...all.values()].toSorted((a, b) => b - a)
}

/** So many callers ask without a pause, until the callback has settled. Resolves with the sessions that have answered. */
async function busy(pool: PostgresPool, callers: number, fn: (pids: number[]) => Promise<unknown>): Promise<number[]> {
  const pids: number[] = []
  let going = true
  const caller = async (): Promise<void> => {
    while (going) pids.push(await whereabouts(pool.sql))
  }
  const all = Promise.all(range(callers).map(caller))
  try {
    await fn(pids)
  } finally {
    going = false
    await all
  }
  return pids
}

test('what the holder of a lock waits for is not sent behind what waits for the lock', async () => {
  const pool = makePool(db, { max: 3, min: 3, pipelining: 8, acquireTimeoutMs: 5_000 })
  await pool.sql`create table locked (id int primary key, n int)`
  await pool.sql`insert into locked values (1, 0)`
  const add = async (): Promise<unknown> => await pool.sql`update locked set n = n + 1 where id = ${1}`
  // All three know the statements.
  await Promise.all(range(9).flatMap(() => [add(), slowly(pool.sql, 0.01), whereabouts(pool.sql)]))
  let others: Promise<unknown>[] = []
  await pool.transaction(async (sql) => {
    await sql`update locked set n = 0 where id = 1`
    await pool.outside(async () => {
      others = [add(), slowly(pool.sql, 0.3)]
      await db.toRun('update locked')
      // So long that all have seen it wait.
      await slowlyElsewhere(0.1)
      expect(await whereabouts(pool.sql)).toBeGreaterThan(0)
    })
  })
  await Promise.all(others)
  expect((await pool.sql`select n from locked`)[0]).toEqual({ n: 1 })
})

/** Time as the server has it. */
async function slowlyElsewhere(seconds: number): Promise<void> {
  await db.admin`select pg_sleep(${seconds}::float8)`
}

test('those who wait are spread over all connections', async () => {
  const pool = makePool(db, { max: 4, pipelining: 16 })
  await pool.sql`select 1`
  // Nobody knows the statement at first.
  for (const burst of [1, 2]) {
    const pids = await Promise.all(range(24).map(() => slowly(pool.sql, 0.03)))
    expect(counts(pids)[0], `burst ${burst}`).toBeLessThanOrEqual(9)
  }
})

test('each query that shares is a use', async () => {
  const pool = makePool(db, { max: 1, pipelining: 8, maxUses: 20 })
  const pids = await busy(pool, 6, (seen) => until(() => seen.length > 200, 'some answers'))
  expect(counts(pids)[0]).toBe(20)
  expect(pool.stats().acquires).toBeLessThan(pids.length)
})

test('after evict(), nothing runs on a connection of before', async () => {
  const pool = makePool(db, { max: 2, pipelining: 8 })
  await busy(pool, 40, async (seen) => {
    await until(() => seen.length > 200, 'some answers')
    for (const round of range(5)) {
      const before = new Set((await db.sessions()).map(({ pid }) => pid))
      pool.evict()
      expect(before, `round ${round}`).not.toContain(await whereabouts(pool.sql))
    }
  })
})

test('onAcquire looks at a connection for each query', async () => {
  let looks = 0
  const pool = makePool(db, { max: 1, pipelining: 8, onAcquire: () => void looks++ })
  await Promise.all(range(20).map(() => whereabouts(pool.sql)))
  expect([looks, pool.stats().acquires]).toEqual([20, 20])
})

test('close() stops all that was sent, and leaves nothing in doubt', async () => {
  const doubts = hear('millpond:doubtful')
  const pool = makePool(db, { max: 1, pipelining: 8 })
  await slowly(pool.sql, 0)
  const lost = Promise.allSettled(range(6).map(() => slowly(pool.sql, 60)))
  await db.toRun('pg_sleep')
  await pool.close({ timeoutMs: 0 })
  expect((await lost).map(({ status }) => status)).toEqual(range(6).map(() => 'rejected'))
  expect([doubts, await db.sessions()]).toEqual([[], []])
})

test('a text that can still be changed is not sent ahead', async () => {
  const pool = makePool(db, { max: 1, pipelining: 8 })
  const texts = ['select ', `::int as x, pg_sleep(0.1)::text as slept`]
  const strings = Object.assign(texts, { raw: [...texts] })
  const ask = async (n: number): Promise<object[]> => [...(await pool.sql(strings, n))]
  expect(await ask(1)).toEqual([{ x: 1, slept: '' }])
  const first = ask(2)
  await db.toRun('as x, pg_sleep')
  strings[1] = '::int as y'
  expect(await Promise.all([first, ask(3)])).toEqual([[{ x: 2, slept: '' }], [{ y: 3 }]])
})

test('where nothing can be sent at once, nothing is sent ahead', async () => {
  const real = globalThis.setImmediate
  // As with a bundler that gives functions other names: what postgres.js does at the end of the turn is not known for it.
  Object.defineProperty(globalThis, 'setImmediate', { get: () => real, set() {}, configurable: true })
  onTestFinished(() => {
    Object.defineProperty(globalThis, 'setImmediate', { value: real, writable: true, configurable: true })
  })
  const pool = makePool(db, { max: 1, pipelining: 8 })
  await slowly(pool.sql, 0)
  const pid = await whereabouts(pool.sql)
  const first = slowly(pool.sql, 0.1)
  await db.toRun('pg_sleep')
  const others = range(5).map(() => whereabouts(pool.sql))
  await until(() => pool.stats().waiting === 5, 'all to wait for a connection')
  expect(await Promise.all([first, ...others])).toEqual(range(6).map(() => pid))
  expect(pool.stats().acquires).toBe(8)
})
