import { connect } from 'node:net'
import { afterAll, beforeAll, describe, expect, expectTypeOf, test } from 'vitest'
import { ConnectionLostError, LeaseReleasedError, TransactionOutcomeUnknownError } from '../../src/errors.ts'
import type {
  PostgresPool,
  PostgresPoolOptions,
  PostgresSession,
  SessionOptions,
  TransactionSql,
} from '../../src/postgres/index.ts'
import { rejection, tcpServer } from '../support/connection.ts'
import { createDatabase, until } from '../support/database.ts'
import type { TestDatabase } from '../support/database.ts'
import { insert, makePool, makeTable } from '../support/pool.ts'

let db: TestDatabase
beforeAll(async () => {
  db = await createDatabase()
})
afterAll(() => db.drop())

const make = (options?: PostgresPoolOptions): PostgresPool => makePool(db, options)

describe('PostgresSession', () => {
  test('PostgresPool.session() acquires nothing before its first query, and nothing at all without one', async () => {
    const pool = make({ max: 1 })
    const { name, read } = await makeTable(pool)
    const { acquires } = pool.stats()
    for (const end of ['commit', 'rollback', 'dispose'] as const) {
      const session = pool.session()
      expect(await session.run(() => 5)).toBe(5)
      await (end === 'dispose' ? session[Symbol.asyncDispose]() : session[end]())
    }
    expect(pool.stats().acquires).toBe(acquires)
    await using session = pool.session()
    await insert(session.sql, name, 1)
    expect(pool.stats()).toMatchObject({ acquires: acquires + 1, leased: 1 })
    await session.commit()
    expect(pool.stats().leased).toBe(0)
    expect(await read()).toEqual([1])
  })

  test('PostgresSession is rolled back unless committed, also when its block throws', async () => {
    const pool = make({ max: 1 })
    const { name, read } = await makeTable(pool)
    {
      await using session = pool.session()
      await insert(session.sql, name, 1)
    }
    const broken = async (): Promise<void> => {
      await using session = pool.session()
      await insert(session.sql, name, 2)
      throw new Error('no')
    }
    expect((await rejection(broken())).message).toBe('no')
    expect(await read()).toEqual([])
    expect(pool.stats()).toMatchObject({ opens: 1, leased: 0 })
  })

  test('PostgresSession begins as it is told to', async () => {
    const pool = make()
    await using session = pool.session({ isolation: 'repeatable read', readOnly: true })
    const [row] = await session.sql`
      select current_setting('transaction_isolation') as isolation, current_setting('transaction_read_only') as ro`
    expect(row).toEqual({ isolation: 'repeatable read', ro: 'on' })
    for (const wrong of [{ isolation: 'loose' }, { retries: 1 }, { lazy: true }, { timeoutMs: -1 }]) {
      expect(() => pool.session(wrong as unknown as SessionOptions)).toThrow(
        expect.objectContaining({ code: 'ERR_OPTION' }),
      )
    }
  })

  test('PostgresSession.run() is ambient inside, and neither commits nor rolls back', async () => {
    const pool = make()
    const { name, read } = await makeTable(pool)
    await using session = pool.session()
    await session.run(async (sql) => {
      await Promise.all([insert(pool.sql, name, 1), insert(sql, name, 2)])
      await pool.transaction(() => insert(pool.sql, name, 3))
      await rejection(pool.transaction(() => Promise.all([insert(pool.sql, name, 4), Promise.reject(new Error('no'))])))
      expect(await pool.outside(read)).toEqual([])
    })
    const no = new Error('no')
    expect(await rejection(session.run(() => Promise.reject(no)))).toBe(no)
    await session.sql.savepoint((sql) => insert(sql, name, 5))
    expect(await read()).toEqual([])
    await session.commit()
    expect(await read()).toEqual([1, 2, 3, 5])
  })

  test('PostgresSession is dead after its end', async () => {
    const pool = make()
    const { name, read } = await makeTable(pool)
    for (const end of ['commit', 'rollback'] as const) {
      const session = pool.session()
      let made: PromiseLike<unknown> | undefined
      await session.run(async (sql) => {
        await sql`select 1`
        made = insert(pool.sql, name, 1)
      })
      const { sql } = session
      await session[end]()
      expect(await rejection(insert(sql, name, 2))).toBeInstanceOf(LeaseReleasedError)
      expect(await rejection(insert(session.sql, name, 3))).toBeInstanceOf(LeaseReleasedError)
      expect(await rejection(session.run(() => 1))).toBeInstanceOf(LeaseReleasedError)
      expect(await rejection(sql.savepoint(() => 1))).toBeInstanceOf(LeaseReleasedError)
      const late = await rejection(made!)
      expect(late).toBeInstanceOf(LeaseReleasedError)
      expect(late.message).toContain('pool.outside(')
    }
    expect(await read()).toEqual([])
  })

  test('PostgresSession.commit() twice commits once; rollback() after it is refused', async () => {
    const pool = make()
    const { name, read } = await makeTable(pool)
    const session = pool.session()
    await insert(session.sql, name, 1)
    const first = session.commit()
    expect(session.commit()).toBe(first)
    const refused = rejection(session.rollback())
    await first
    expect(await refused).toMatchObject({ code: 'ERR_LEASE_RELEASED', message: expect.stringContaining('committed') })
    await session[Symbol.asyncDispose]()
    expect(await read()).toEqual([1])
  })

  test('PostgresSession.rollback() may be called again; commit() after it is refused', async () => {
    const pool = make()
    const { name, read } = await makeTable(pool)
    const session = pool.session()
    await insert(session.sql, name, 1)
    await Promise.all([session.rollback(), session.rollback()])
    await session.rollback()
    const refused = await rejection(session.commit())
    expect(refused).toMatchObject({ code: 'ERR_LEASE_RELEASED', message: expect.stringContaining('rolled back') })
    expect(await read()).toEqual([])
  })

  test('PostgresSession.commit() rejects with what has failed the transaction, which is rolled back', async () => {
    const pool = make({ max: 1 })
    const { name, read } = await makeTable(pool)
    {
      await using session = pool.session()
      await insert(session.sql, name, 1)
      await rejection(session.sql`select 1/0`)
      expect((await rejection(session.sql`select 1`)).code).toBe('25P02')
      expect((await rejection(session.commit())).code).toBe('22012')
      await session.rollback()
    }
    await pool.sql.unsafe(`create table later_${name} (a int unique deferrable initially deferred)`)
    await using session = pool.session()
    await session.sql.unsafe(`insert into later_${name} values (1), (1)`)
    expect((await rejection(session.commit())).code).toBe('23505')
    await session.rollback()
    expect(await read()).toEqual([])
    expect(pool.stats()).toMatchObject({ opens: 1, leased: 0 })
  })

  test('PostgresSession.commit() lets what was run finish; rollback() cancels it', async () => {
    const pool = make({ max: 1 })
    const { name, read } = await makeTable(pool)
    const first = pool.session()
    void first.sql`insert into ${first.sql(name)} select 1 from pg_sleep(0.02)`.execute()
    await until(() => pool.stats().leased === 1)
    await first.commit()
    const second = pool.session()
    const cancelled = rejection(second.sql`select pg_sleep(60), 'cancelled'`)
    await db.toRun("'cancelled'")
    await second.rollback()
    expect((await cancelled).code).toBe('57014')
    expect(await read()).toEqual([1])
    expect(pool.stats().opens).toBe(1)
  })

  test('PostgresSession does not know the outcome where the connection is lost after COMMIT was sent', async () => {
    await using proxy = await tcpServer((socket) => {
      const upstream = connect(db.server.port, db.server.host)
      upstream.on('error', () => undefined)
      upstream.pipe(socket)
      socket.on('data', (chunk) => {
        if (!chunk.includes('COMMIT')) return upstream.write(chunk)
        upstream.end(chunk)
        return socket.destroy()
      })
      socket.on('close', () => upstream.end())
    })
    const pool = make({ port: proxy.port })
    await using session = pool.session()
    await session.sql`select 1`
    expect(await rejection(session.commit())).toBeInstanceOf(TransactionOutcomeUnknownError)
    expect(await rejection(session.rollback())).toBeInstanceOf(TransactionOutcomeUnknownError)
  })

  test('PostgresSession runs nothing outside of its transaction when its session is ended', async () => {
    const pool = make()
    const { name, read } = await makeTable(pool)
    await using session = pool.session()
    await insert(session.sql, name, 1)
    const running = rejection(session.sql`select pg_sleep(60), 'ended'`)
    await db.toRun("'ended'")
    await db.admin`select pg_terminate_backend(pid) from pg_stat_activity where query like ${"%'ended'%"} and datname = ${db.name}`
    expect(await running).toBeInstanceOf(ConnectionLostError)
    expect(await rejection(insert(session.sql, name, 2))).toBeInstanceOf(ConnectionLostError)
    expect(await rejection(session.run(() => insert(pool.sql, name, 3)))).toBeInstanceOf(ConnectionLostError)
    expect(await rejection(session.commit())).toBeInstanceOf(ConnectionLostError)
    await session.rollback()
    expect(await read()).toEqual([])
  })

  test('PostgresSession ends with its signal, and at its deadline', async () => {
    const pool = make({ max: 1 })
    const { name, read } = await makeTable(pool)
    const controller = new AbortController()
    const reason = new Error('enough')
    const first = pool.session({ signal: controller.signal })
    await insert(first.sql, name, 1)
    const running = rejection(first.sql`select pg_sleep(60), 'signal'`)
    await db.toRun("'signal'")
    controller.abort(reason)
    expect((await running).code).toBe('57014')
    expect(await rejection(first.commit())).toBe(reason)
    await first.rollback()
    const second = pool.session({ timeoutMs: 50 })
    await insert(second.sql, name, 2)
    expect((await rejection(second.sql`select pg_sleep(60)`)).code).toBe('57014')
    expect((await rejection(second.commit())).code).toBe('ERR_TRANSACTION_TIMEOUT')
    expect(await rejection(insert(second.sql, name, 3))).toBeInstanceOf(LeaseReleasedError)
    expect(await read()).toEqual([])
    expect(pool.stats()).toMatchObject({ opens: 1, leased: 0 })
  })

  test('PostgresSession waits for its connection no longer than its signal, and rejects with the reason', async () => {
    const pool = make({ max: 1 })
    const held = await pool.acquire()
    const controller = new AbortController()
    const session = pool.session({ signal: controller.signal })
    const waiting = [session.sql`select 1`, session.sql.savepoint(() => 1)].map((one) =>
      Promise.resolve(one).catch((error: unknown) => error),
    )
    await until(() => pool.stats().waiting === 1)
    controller.abort('enough')
    expect(await Promise.all(waiting)).toEqual(['enough', 'enough'])
    expect(await session.commit().catch((error: unknown) => error)).toBe('enough')
    const aborted = pool.session({ signal: AbortSignal.abort('before') })
    expect(await aborted.sql`select 1`.catch((error: unknown) => error)).toBe('before')
    expect(pool.stats().waiting).toBe(0)
    await held.release()
  })

  test('PostgresPool.close() revokes a session that was never ended', async () => {
    const pool = make()
    const session = pool.session()
    await session.sql`select 1`
    expect(await pool.close({ timeoutMs: 20 })).toEqual({ revoked: 1 })
    expect((await rejection(session.sql`select 1`)).code).toBe('ERR_LEASE_REVOKED')
    expect((await rejection(session.commit())).code).toBe('ERR_LEASE_REVOKED')
    await session.rollback()
  })

  test('PostgresSession has the types of the pool', () => {
    expect(typesOf).toBeTypeOf('function')
  })
})

/** Only compiled. */
function typesOf(pool: PostgresPool): void {
  const session = pool.session({ isolation: 'serializable' })
  expectTypeOf(session).toEqualTypeOf<PostgresSession>()
  expectTypeOf(session.sql).toEqualTypeOf<TransactionSql>()
  expectTypeOf(session.run(async () => 'x')).toEqualTypeOf<Promise<string>>()
  expectTypeOf(session.run((sql) => sql<{ a: number }[]>`select 1 as a`)).resolves.toExtend<{ a: number }[]>()
  expectTypeOf(session.commit()).toEqualTypeOf<Promise<void>>()
  expectTypeOf(session.rollback()).toEqualTypeOf<Promise<void>>()
  expectTypeOf(session).toExtend<AsyncDisposable>()
}
