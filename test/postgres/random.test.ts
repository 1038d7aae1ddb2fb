import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { createPool } from '../../src/postgres/index.ts'
import type { PostgresPool, PostgresSql } from '../../src/postgres/index.ts'
import { createDatabase, until } from '../support/database.ts'
import type { TestDatabase } from '../support/database.ts'

let db: TestDatabase
beforeAll(async () => {
  db = await createDatabase()
})
afterAll(() => db.drop())

const seed = Number(process.env['SEED'] ?? Date.now() % 1_000_000)
let state = seed
function random(below: number): number {
  state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
  return Math.floor((state / 2 ** 32) * below)
}

/** What may come of a query whose connection is ended, or which is cancelled, at any moment. */
const excused = new Set(['57014', 'ERR_CONNECTION_LOST', 'ERR_OUTCOME_UNKNOWN', 'ERR_LEASE_RELEASED', '25P02'])
const codeOf = (error: unknown): unknown => (error instanceof Error && 'code' in error ? error.code : error)

const wrong: unknown[] = []

/** Runs something, and notes what is neither its right answer nor an error that may happen. */
async function check(i: number, expected: unknown, run: () => PromiseLike<unknown>): Promise<void> {
  try {
    const actual = JSON.stringify(await run())
    if (actual !== JSON.stringify(expected)) wrong.push({ i, expected, actual })
  } catch (error) {
    const code = codeOf(error)
    if (code !== expected && !excused.has(String(code))) wrong.push({ i, expected, error })
  }
}

const kinds: ((sql: PostgresSql, i: number) => Promise<void>)[] = [
  (sql, i) => check(i, [{ i }], () => sql`select ${i}::int as i`),
  (sql, i) => check(i, [[i], [i]], () => sql`select ${i}::int from generate_series(1, 2)`.values()),
  (sql, i) => check(i, '22012', () => sql`select 1/(g-5) from generate_series(1, 9) g`),
  (sql, i) => check(i, 'UNDEFINED_VALUE', () => sql`select ${undefined as never}`),
  (sql, i) => check(i, [[{ i }], [{ j: i }]], () => sql.unsafe(`select ${i} as i; select ${i} as j`)),
  (sql, i) => check(i, 'i', async () => (await sql`select ${i}::int as i`.describe()).columns[0]?.name),
  (sql, i) => check(i, [], () => sql`insert into random values (${i})`),
  (sql, i) =>
    check(i, i, async () => {
      let last: unknown
      for await (const rows of sql`select ${i}::int as i from generate_series(1, 20)`.cursor(1 + random(9))) {
        last = rows[0]?.['i']
        if (random(4) === 0) break
      }
      return last
    }),
  (sql, i) =>
    check(i, `${i}\n`, async () => {
      let text = ''
      for await (const chunk of await sql.unsafe(`copy (select ${i}) to stdout`).readable()) text += String(chunk)
      return text
    }),
  (sql, i) =>
    check(i, i, async () => {
      const query = sql`select pg_sleep(0.003), ${i}::int as i`.execute()
      void sleep(random(6)).then(() => query.cancel())
      return (await query)[0]?.['i'] as unknown
    }),
]

const any = (sql: PostgresSql, i: number): Promise<void> => kinds[random(kinds.length)]?.(sql, i) ?? Promise.resolve()

const ways: ((pool: PostgresPool, i: number) => Promise<void>)[] = [
  (pool, i) => any(pool.sql, i),
  async (pool, i) => {
    const lease = await pool.acquire()
    const all = [any(lease.sql, i), any(lease.sql, i + 1), any(lease.sql, i + 2)]
    if (random(2)) await Promise.all(all)
    if (random(8) === 0) lease.cancel()
    await lease.release()
    await Promise.all(all)
  },
  (pool, i) =>
    check(i, '22012', () =>
      pool.transaction(async (sql) => {
        await any(sql, i)
        await sql.savepoint((inner) => any(inner, i + 1))
        await sql`select 1/0`
      }),
    ),
  (pool, i) =>
    pool.use(async (sql) => {
      await check(i, [], () => sql`set statement_timeout = '77s'`)
      await any(sql, i)
    }),
  (pool, i) => check(i, [{ statement_timeout: '0' }], () => pool.sql`show statement_timeout`),
]

test(`createPool() gives every query its own answer while sessions die and plans change (SEED=${seed})`, async () => {
  const pool = createPool(db.url, { max: 4, resetTimeoutMs: 500, connection: { client_min_messages: 'error' } })
  await pool.sql`create table random (a int)`
  const end = Date.now() + 3_000
  const disturb = async (): Promise<void> => {
    for (let i = 0; Date.now() < end; i++) {
      await sleep(40)
      await db.admin`
        select pg_terminate_backend(pid) from pg_stat_activity where datname = ${db.name} order by random() limit 1`
      await check(i, [], () => pool.sql`alter table random add column ${pool.sql(`c${i}`)} int`)
    }
  }
  let i = 0
  const use = async (): Promise<void> => {
    while (Date.now() < end) await ways[random(ways.length)]?.(pool, (i += 10))
  }
  await Promise.all([disturb(), ...Array.from({ length: 16 }, use)])
  expect(wrong).toEqual([])
  expect(i).toBeGreaterThan(1_000)
  await until(() => pool.stats().leased === 0 && pool.stats().doubtful === 0, 'every connection to come back')
  expect(pool.stats().waiting).toBe(0)
  expect(await pool.close()).toEqual({ revoked: 0 })
  expect(await db.sessions()).toEqual([])
})
