import plain from 'postgres'
import { afterAll, beforeAll, beforeEach, describe, expect, onTestFinished, test } from 'vitest'
import { createPool } from '../../src/postgres/index.ts'
import type { PostgresPool, PostgresPoolOptions } from '../../src/postgres/index.ts'
import { beginOptions } from '../../src/postgres/sql-face-begin.ts'
import { poolSql } from '../../src/postgres/sql-face.ts'
import type { FaceHouse } from '../../src/postgres/sql-face.ts'
import type { PostgresSql } from '../../src/postgres/sql.ts'
import { rejection } from '../support/connection.ts'
import { createDatabase, until } from '../support/database.ts'
import type { TestDatabase } from '../support/database.ts'

let db: TestDatabase
let there: plain.Sql
beforeAll(async () => {
  db = await createDatabase()
  there = plain(db.url, { max: 1 })
  await there`create table t (a int)`
})
beforeEach(async () => void (await there`truncate t`))
afterAll(async () => {
  await there.end()
  await db.drop()
})

function make(options: PostgresPoolOptions = {}): PostgresPool {
  const pool = createPool(db.url, { max: 2, acquireTimeoutMs: 2_000, ...options })
  onTestFinished(async () => void (await pool.close({ timeoutMs: 100 })))
  return pool
}

test('sql.notify() has one template, of which is noted once where it was first used', async () => {
  const templates: unknown[] = []
  const tag = async (template: unknown): Promise<void> => void templates.push(template)
  const house = {
    template: { options: { shared: {} } },
    settings: { addresses: [], pool: {} },
    parameters: {},
  } as unknown as FaceHouse
  const sql = poolSql(tag as unknown as PostgresSql, house)
  await sql.notify('news', 'one')
  await sql.notify('news', 'two')
  expect(templates).toHaveLength(2)
  expect(templates[1]).toBe(templates[0])
})

const pid = async (tag: plain.ISql): Promise<unknown> => (await tag`select pg_backend_pid() as pid`)[0]?.['pid']

/** What is there for others. */
const committed = async (): Promise<number[]> =>
  (await there<{ a: number }[]>`select a from t order by a`).map(({ a }) => a)

describe('PoolSql.begin()', () => {
  test('is a transaction: what is run on the pool inside of it is part of it', async () => {
    const pool = make()
    const wrong = pool.sql.begin(async (sql) => {
      await sql`insert into t values (1)`
      await pool.sql`insert into t values (2)`
      throw new Error('mine')
    })
    expect((await rejection(wrong)).message).toBe('mine')
    expect(await committed()).toEqual([])
    await pool.sql.begin((sql) => [sql`insert into t values (3)`, sql`insert into t values (4)`])
    expect(await committed()).toEqual([3, 4])
  })

  test('inside of a transaction it is a savepoint', async () => {
    const pool = make({ max: 1 })
    await pool.transaction(async () => {
      await pool.sql`insert into t values (1)`
      const inner = pool.sql.begin(async (sql) => {
        await sql`insert into t values (2)`
        await sql.savepoint((deeper) => deeper`select 1 / 0`)
      })
      expect(await rejection(inner)).toMatchObject({ code: '22012' })
      await pool.sql.begin('read write', (sql) => sql`insert into t values (3)`)
    })
    expect(await committed()).toEqual([1, 3])
  })

  test('a savepoint cannot be more than its transaction is, nor be prepared', async () => {
    const pool = make()
    await pool.transaction(async () => {
      const serializable = pool.sql.begin('isolation level serializable', (sql) => sql`select 1`)
      expect(await rejection(serializable)).toMatchObject({ code: 'ERR_OPTION' })
      const prepared = pool.sql.begin(async (sql) => void (await sql.prepare('x')))
      expect(await rejection(prepared)).toMatchObject({ code: 'ERR_UNFINISHED' })
    })
  })

  test('its options are read, and nothing else is sent', () => {
    const cases: [string, object][] = [
      ['', {}],
      ['read write', { readOnly: false }],
      ['READ ONLY', { readOnly: true }],
      [
        'isolation level serializable, read only, deferrable',
        { isolation: 'serializable', readOnly: true, deferrable: true },
      ],
      [
        'transaction isolation level repeatable read not deferrable',
        { isolation: 'repeatable read', deferrable: false },
      ],
    ]
    for (const [text, options] of cases) expect(beginOptions(text)).toEqual(options)
    for (const text of ['wat', 'read', 'isolation level chaos', 'read only; drop table t', 'read onlyx']) {
      expect(() => beginOptions(text)).toThrow(expect.objectContaining({ code: 'ERR_OPTION' }))
    }
  })
})

describe('PoolSql.reserve()', () => {
  test('is a lease: a callable tag without a then, which release() gives back and says nothing', async () => {
    const pool = make({ max: 1 })
    const reserved = await pool.sql.reserve()
    expect([typeof reserved, 'then' in reserved, pool.stats().leased]).toEqual(['function', false, 1])
    await reserved`set statement_timeout = '3s'`
    expect(reserved.release()).toBeUndefined()
    expect(reserved.release()).toBeUndefined()
    expect((await pool.sql`show statement_timeout`)[0]).toEqual({ statement_timeout: '0' })
    expect(await rejection(reserved`select 1`)).toMatchObject({ code: 'ERR_LEASE_RELEASED' })
  })

  test('release() of one whose connection was lost does not reject, and takes nothing along', async () => {
    const pool = make({ max: 1 })
    const reserved = await pool.sql.reserve()
    const [row] = await reserved<[{ pid: number }]>`select pg_backend_pid() as pid`
    await db.admin`select pg_terminate_backend(${row.pid})`
    expect(await rejection(reserved`select pg_sleep(10)`)).toMatchObject({ code: 'ERR_CONNECTION_LOST' })
    reserved.release()
    expect((await pool.sql`select 1 as one`)[0]).toEqual({ one: 1 })
  })

  test('inside of a transaction it is that one’s connection, and BEGIN … COMMIT a savepoint', async () => {
    const pool = make({ max: 1 })
    await pool.transaction(async (sql) => {
      const reserved = await pool.sql.reserve()
      expect(await pid(reserved)).toBe(await pid(sql))
      await reserved.unsafe('begin')
      await reserved`insert into t values (1)`
      // Neither waits for the other.
      await pool.sql`insert into t values (2)`
      await reserved.unsafe('commit')
      await reserved.unsafe('start transaction read write;')
      await reserved`insert into t values (3)`
      expect(await rejection(reserved`select 1 / 0`)).toMatchObject({ code: '22012' })
      await reserved.unsafe('rollback')
      expect(reserved.release()).toBeUndefined()
      expect(await rejection(reserved`select 1`)).toMatchObject({ code: 'ERR_LEASE_RELEASED' })
      expect(await committed()).toEqual([])
    })
    expect(await committed()).toEqual([1, 2])
  })

  test('what it begins and leaves is undone; what it has not begun, it does not end', async () => {
    const pool = make({ max: 1 })
    await pool.transaction(async () => {
      const first = await pool.sql.reserve()
      await first`insert into t values (1)`
      await first.unsafe('commit')
      await first.unsafe('rollback')
      await first.unsafe('BEGIN TRANSACTION')
      await first.unsafe('begin')
      await first`insert into t values (2)`
      first.release()
      const second = await pool.sql.reserve()
      await second`begin`
      await second`insert into t values (3)`
      await second`savepoint mine`
      await second`insert into t values (4)`
      await second`rollback to mine`
      await second`end`
      second.release()
    })
    expect(await committed()).toEqual([1, 3])
  })

  test('a COMMIT that fails leaves it to be rolled back', async () => {
    const pool = make({ max: 1 })
    await pool.transaction(async () => {
      const reserved = await pool.sql.reserve()
      await reserved.unsafe('begin')
      await rejection(reserved`select 1 / 0`)
      expect(await rejection(reserved.unsafe('commit'))).toMatchObject({ code: '25P02' })
      await reserved.unsafe('rollback')
      await reserved`insert into t values (5)`
    })
    expect(await committed()).toEqual([5])
  })

  test('it cannot be more than the transaction around is', async () => {
    const pool = make({ max: 1 })
    await pool.transaction(
      async () => {
        const reserved = await pool.sql.reserve()
        expect(await rejection(reserved.unsafe('begin isolation level serializable'))).toMatchObject({
          code: 'ERR_OPTION',
        })
        expect(await rejection(reserved.unsafe('begin wat'))).toMatchObject({ code: 'ERR_OPTION' })
        await reserved.unsafe('begin isolation level repeatable read read only')
        expect(await rejection(reserved`insert into t values (1)`)).toMatchObject({ code: '25006' })
        await reserved.unsafe('rollback')
        await reserved`insert into t values (2)`
        reserved.release()
      },
      { isolation: 'repeatable read' },
    )
    expect(await committed()).toEqual([2])
  })

  test('after the transaction it is of no use', async () => {
    const pool = make({ max: 1 })
    const left = await pool.transaction(() => pool.sql.reserve())
    expect(await rejection(left`select 1`)).toMatchObject({ code: 'ERR_LEASE_RELEASED' })
    left.release()
  })
})

describe('the other members of PoolSql', () => {
  test('parsers and serializers that are set later hold for every connection', async () => {
    const pool = make({ max: 3 })
    const day = (): Promise<unknown[]> =>
      Promise.all(
        [1, 2, 3].map(
          async () => (await pool.sql`select '2020-01-02'::date as d, pg_sleep(0.01)`)[0]?.['d'] as unknown,
        ),
      )
    await pool.sql`select 1`
    pool.sql.options.parsers[1082] = (text: string) => `day ${text}`
    expect(await day()).toEqual(['day 2020-01-02', 'day 2020-01-02', 'day 2020-01-02'])
    pool.sql.options.serializers[1082] = (value: { day: string }) => value.day
    const [row] = await pool.sql`select ${{ day: '2021-01-01' } as never}::date::text as d`
    expect(row).toEqual({ d: '2021-01-01' })
  })

  test('options and parameters tell what there is, and no password', async () => {
    const pool = make({ max: 3 })
    const { options } = pool.sql
    const { hostname, port, pathname } = new URL(db.url)
    expect(options).toMatchObject({
      host: [hostname],
      port: [Number(port)],
      database: pathname.slice(1),
      max: 3,
      pass: null,
    })
    expect(JSON.stringify(options)).not.toContain(db.server.password)
    expect(pool.sql.parameters).toEqual({})
    await pool.sql`select 1`
    expect(pool.sql.parameters).toMatchObject({ server_encoding: 'UTF8', integer_datetimes: 'on' })
  })

  test('listen() and unlisten()', async () => {
    const pool = make()
    const heard: string[] = []
    let ready = 0
    const listener = await pool.sql.listen(
      'news',
      (payload) => void heard.push(payload),
      () => void ready++,
    )
    await pool.sql.notify('news', 'one')
    await until(() => heard.length === 1)
    // Whose session it is: as in postgres.js.
    const session = (await db.sessions()).find(({ query }) => /^listen/i.test(query))
    expect(listener.state).toEqual({ pid: session?.pid, secret: expect.any(Number) })
    await listener.unlisten()
    expect([heard, ready]).toEqual([['one'], 1])
  })

  test('close() replaces all connections, end() closes the pool', async () => {
    const pool = make()
    await pool.sql`select 1`
    await pool.sql.close()
    await db.sessionsToBe(1)
    await pool.sql`select 1`
    expect(pool.stats().opens).toBe(2)
    await pool.sql.end({ timeout: 1 })
    expect(await rejection(pool.sql`select 1`)).toMatchObject({ code: 'ERR_POOL_CLOSED' })
  })

  test('subscribe() rejects', async () => {
    expect(await rejection(make().sql.subscribe('*', () => undefined))).toMatchObject({ code: 'ERR_NOT_SUPPORTED' })
  })
})
