import { EventEmitter } from 'node:events'
import { AsyncLocalStorage } from 'node:async_hooks'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { LeaseReleasedError } from '../../src/errors.ts'
import { deferred } from '../../src/deferred.ts'
import type { PostgresPool, PostgresPoolOptions, PostgresSql } from '../../src/postgres/index.ts'
import { rejection } from '../support/connection.ts'
import { createDatabase, until } from '../support/database.ts'
import type { TestDatabase } from '../support/database.ts'
import { makePool, pidOf } from '../support/pool.ts'

let db: TestDatabase
beforeAll(async () => {
  db = await createDatabase()
})
afterAll(() => db.drop())

const make = (options?: PostgresPoolOptions): PostgresPool => makePool(db, { max: 3, ...options })

/** The transaction that a query runs in; its own if it is in no other. */
const xidOf = async (sql: PostgresSql): Promise<unknown> =>
  (await sql`select pg_current_xact_id()::text as x`)[0]?.['x']

describe('the ambient transaction', () => {
  test('PostgresPool.sql inside a transaction runs in it, in every form', async () => {
    const pool = make()
    await pool.transaction(async (sql) => {
      const xid = await xidOf(sql)
      const text = 'select pg_current_xact_id()::text as x'
      expect(await xidOf(pool.sql)).toBe(xid)
      expect([...(await pool.sql.unsafe(text))]).toEqual([{ x: xid }])
      expect([...(await pool.sql.unsafe(text).values())]).toEqual([[xid]])
      const seen: unknown[] = []
      await pool.sql.unsafe<{ x: string }[]>(text).forEach(({ x }) => seen.push(x))
      for await (const rows of pool.sql.unsafe<{ x: string }[]>(text).cursor()) seen.push(rows[0]?.x)
      for await (const chunk of await pool.sql.unsafe(`copy (${text}) to stdout`).readable()) {
        seen.push(String(chunk).trim())
      }
      expect(seen).toEqual([xid, xid, xid])
      expect(pool.stats().leased).toBe(1)
    })
  })

  test('PostgresPool.sql inside a transaction belongs to it wherever it is called from', async () => {
    const pool = make()
    const emitter = new EventEmitter()
    await pool.transaction(async (sql) => {
      const xid = await xidOf(sql)
      const inside = async (defer: (fn: () => void) => void): Promise<unknown> =>
        new Promise((resolve, reject) => {
          defer(() => {
            xidOf(pool.sql).then(resolve, reject)
          })
        })
      emitter.once('event', () => emitter.emit('answer', xidOf(pool.sql)))
      const answer = new Promise((resolve) => {
        emitter.once('answer', resolve)
      })
      emitter.emit('event')
      async function* rows(): AsyncGenerator {
        yield await xidOf(pool.sql)
        await new Promise((resolve) => {
          setImmediate(resolve)
        })
        yield await xidOf(pool.sql)
      }
      const generated: unknown[] = []
      for await (const row of rows()) generated.push(row)
      const seen = await Promise.all([
        inside((fn) => setTimeout(fn, 1)),
        inside(queueMicrotask),
        inside(setImmediate),
        inside((fn) => process.nextTick(fn)),
        inside((fn) => void Promise.resolve().then(fn)),
        inside((fn) => void import('node:os').then(fn)),
        answer,
      ])
      expect([...seen, ...generated]).toEqual(Array.from({ length: 9 }, () => xid))
    })
  })

  test('PostgresPool.sql in the callbacks of an answer belongs to the transaction of the query', async () => {
    const pool = make()
    await pool.sql`select 1`
    await pool.transaction(async (sql) => {
      const xid = await xidOf(sql)
      const inside: Promise<unknown>[] = []
      await pool.sql`select 1 from generate_series(1, 2)`.forEach(() => inside.push(xidOf(pool.sql)))
      await sql`select 1 from generate_series(1, 2)`.cursor(1, () => void inside.push(xidOf(pool.sql)))
      const readable = await sql`copy (select 1) to stdout`.readable()
      await new Promise<void>((resolve) => {
        readable.on('data', () => inside.push(xidOf(pool.sql)))
        readable.on('end', resolve)
      })
      expect(await Promise.all(inside)).toEqual([xid, xid, xid, xid, xid])
    })
  })

  test('PostgresPool.sql belongs to where its query was made, not to where it is run', async () => {
    const pool = make()
    const before = pool.sql`select pg_current_xact_id()::text as x`
    let inside: PromiseLike<unknown> | undefined
    let late: PromiseLike<unknown> | undefined
    const out = deferred<void>()
    let running: Promise<unknown> | undefined
    await pool.transaction(async (sql) => {
      const xid = await xidOf(sql)
      expect((await before)[0]?.['x']).not.toBe(xid)
      inside = pool.sql`select pg_current_xact_id()::text as x`
      late = pool.sql`select 1`
      running = pool.outside(() => out.promise.then(() => inside))
      out.resolve()
      expect(await running).toEqual([{ x: xid }])
    })
    expect(await rejection(late!)).toBeInstanceOf(LeaseReleasedError)
  })

  test('PostgresPool.sql left behind in a transaction rejects after its end, and says how to leave it', async () => {
    const pool = make()
    await pool.sql`create table left_behind (a int)`
    const ended = deferred<void>()
    const left: Promise<Error & { code?: string }>[] = []
    const behind = (run: () => PromiseLike<unknown>): void => void left.push(rejection(ended.promise.then(run)))
    await pool.transaction(async (sql) => {
      await sql`select 1`
      behind(() => pool.sql`insert into left_behind values (1)`)
      behind(() => pool.transaction(() => pool.sql`insert into left_behind values (2)`))
      behind(() => sql`insert into left_behind values (3)`)
      behind(() => sql.savepoint(() => undefined))
    })
    ended.resolve()
    const errors = await Promise.all(left)
    for (const error of errors) expect(error).toBeInstanceOf(LeaseReleasedError)
    expect(errors.map(({ message }) => message.includes('pool.outside('))).toEqual([true, true, false, false])
    expect([...(await pool.sql`select * from left_behind`)]).toEqual([])
  })

  test('PostgresPool.transaction() includes what was run before the end, and rejects what was not', async () => {
    const pool = make()
    await pool.sql`create table forgotten (a int)`
    let late: Promise<Error> | undefined
    await pool.transaction(() => {
      void pool.sql`insert into forgotten select 1 from pg_sleep(0.02)`.execute()
      void pool.transaction((inner) => inner`insert into forgotten values (2)`)
      late = new Promise((resolve) => {
        setTimeout(() => resolve(rejection(pool.sql`insert into forgotten values (3)`)), 60)
      })
    })
    expect(await late!).toBeInstanceOf(LeaseReleasedError)
    expect((await pool.sql`select a from forgotten order by a`).map((row) => row['a'] as unknown)).toEqual([1, 2])
  })

  test('PostgresPool.outside() leaves the transaction', async () => {
    const pool = make()
    await pool.transaction(async (sql) => {
      const [pid, xid] = [await pidOf(sql), await xidOf(sql)]
      const there = await pool.outside(async () => {
        expect(await pidOf(pool.sql)).not.toBe(pid)
        expect(await xidOf(sql)).toBe(xid)
        return pool.transaction(async (other) => {
          expect(await pidOf(pool.sql)).toBe(await pidOf(other))
          return pidOf(other)
        })
      })
      expect(there).not.toBe(pid)
      expect(await pidOf(pool.sql)).toBe(pid)
    })
    expect(pool.outside(() => 5)).toBe(5)
  })

  test('PostgresPool.acquire(), use() and session() inside a transaction have connections of their own', async () => {
    const pool = make()
    await pool.transaction(async (sql) => {
      const pid = await pidOf(sql)
      const lease = await pool.acquire()
      expect(await pidOf(lease.sql)).not.toBe(pid)
      await lease.release()
      await pool.use(async (other) => expect(await pidOf(other)).not.toBe(pid))
      await using session = pool.session()
      expect(await pidOf(session.sql)).not.toBe(pid)
      await session.run(async () => expect(await pidOf(pool.sql)).toBe(await pidOf(session.sql)))
      expect(await pidOf(pool.sql)).toBe(pid)
    })
  })

  test("one pool's transaction is nothing to another pool", async () => {
    const [one, other] = [make(), make()]
    await one.transaction(async (sql) => {
      const pid = await pidOf(sql)
      expect(await pidOf(other.sql)).not.toBe(pid)
      await other.transaction(async (inner) => {
        expect(await pidOf(one.sql)).toBe(pid)
        expect(await pidOf(other.sql)).toBe(await pidOf(inner))
        await one.outside(async () => {
          expect(await pidOf(one.sql)).not.toBe(pid)
          expect(await pidOf(other.sql)).toBe(await pidOf(inner))
        })
      })
    })
  })

  test('createPool({ ambient: false }) keeps all of it apart', async () => {
    const pool = make({ ambient: false })
    await pool.transaction(async (sql) => {
      const pid = await pidOf(sql)
      expect(await pidOf(pool.sql)).not.toBe(pid)
      expect(await pool.transaction(pidOf)).not.toBe(pid)
      expect(await sql.savepoint((inner) => Promise.all([pidOf(inner), pidOf(sql)]))).toEqual([pid, pid])
      await using session = pool.session()
      await session.run(async (own) => expect(await pidOf(own)).not.toBe(await pidOf(pool.sql)))
    })
    expect(() => make({ ambient: 'no' as never })).toThrow(expect.objectContaining({ code: 'ERR_OPTION' }))
  })

  test('transactions side by side stay apart', async () => {
    const pool = make({ max: 3 })
    await pool.sql`create table side_by_side (who int, pid int)`
    const one = (who: number): Promise<void> =>
      pool.transaction(async (sql) => {
        const pid = await pidOf(sql)
        for (let i = 0; i < 5; i++) {
          await Promise.all([
            pool.sql`insert into side_by_side values (${who}, pg_backend_pid())`,
            pool.transaction(() => pool.sql`insert into side_by_side values (${who}, pg_backend_pid())`),
          ])
          expect(await pidOf(pool.sql)).toBe(pid)
        }
        if (who % 3 === 0) throw new Error('no')
      })
    await Promise.allSettled(Array.from({ length: 12 }, (_, who) => one(who)))
    const rows =
      await pool.sql`select who, count(*)::int as n, count(distinct pid)::int as pids from side_by_side group by who`
    expect(rows).toHaveLength(8)
    for (const row of rows) expect(row).toMatchObject({ n: 10, pids: 1 })
  })
})

describe('what is nobody’s', () => {
  test('hooks, log and password of a pool are in no transaction of their callers', async () => {
    const inside: Promise<unknown>[] = []
    const look = (): void => {
      if (inside.length < 40) inside.push(xidOf(pool.sql).catch((error: unknown) => error))
    }
    const pool: PostgresPool = make({
      max: 4,
      password: () => {
        look()
        return db.server.password
      },
      onOpen: look,
      onRelease: look,
      log: ({ type }) => {
        if (type !== 'millpond:acquire' && type !== 'millpond:release') look()
      },
    })
    const xid = await pool.transaction(async (sql) => {
      await Promise.all([pool.acquire(), pool.acquire()].map(async (lease) => (await lease).destroy()))
      pool.evict()
      return xidOf(sql)
    })
    const others = await Promise.all(inside)
    expect(inside.length).toBeGreaterThan(3)
    // Each in its own, and none refused for having been made in one that has ended.
    expect(others.filter((other) => typeof other !== 'string' || other === xid)).toEqual([])
  })

  test('notices come where the socket was opened: outside', async () => {
    const seen: Promise<unknown>[] = []
    const pool: PostgresPool = make({ max: 6, onnotice: () => seen.push(xidOf(pool.sql)) })
    const notice = "do $$ begin raise notice 'hear'; end $$"
    const leases = await pool.transaction(async (sql) => {
      const xid = await xidOf(sql)
      await sql.unsafe(notice)
      await until(() => seen.length === 1)
      // More than are idle: some are opened for a caller in a transaction, and used for longer.
      const opened = await Promise.all([pool.acquire(), pool.acquire(), pool.acquire()])
      for (const lease of opened) await lease.sql.unsafe(notice)
      await until(() => seen.length === 4)
      expect(await Promise.all(seen)).not.toContain(xid)
      return opened
    })
    for (const lease of leases) await lease.sql.unsafe(notice)
    await until(() => seen.length === 7)
    for (const one of seen) expect(await one).toBeTypeOf('string')
    for (const lease of leases) await lease.release()
  })

  test('the async context of the application is left alone', async () => {
    const pool = make()
    const request = new AsyncLocalStorage<string>()
    await request.run('mine', () =>
      pool.transaction(async (sql) => {
        await sql`select 1`
        expect(request.getStore()).toBe('mine')
        await pool.outside(async () => {
          await pool.sql`select 1`
          expect(request.getStore()).toBe('mine')
        })
        await pool.transaction(() => expect(request.getStore()).toBe('mine'))
      }),
    )
  })
})

describe('hold and wait', () => {
  const held = { code: 'ERR_ACQUIRE_TIMEOUT', holds: { connection: expect.stringMatching(/^mp/) } }

  test.each([
    ['acquire()', (pool: PostgresPool) => pool.acquire({ timeoutMs: 30 })],
    ['use()', (pool: PostgresPool) => pool.use(() => undefined, { timeoutMs: 30 })],
    ['outside()', (pool: PostgresPool) => pool.outside(() => pool.sql`select 1`)],
    [
      'transaction({ independent })',
      (pool: PostgresPool) => pool.transaction(() => 1, { independent: true, timeoutMs: 30 }),
    ],
    ['session()', (pool: PostgresPool) => pool.session({ timeoutMs: 30 }).sql`select 1`],
  ])('%s that times out names the lease of the transaction or session around it', async (_, wait) => {
    const pool = make({ min: 1, max: 1, acquireTimeoutMs: 60 })
    // Opening has the same deadline, and may take longer.
    await until(() =>
      pool.open().then(
        () => pool.stats().idle === 1,
        () => false,
      ),
    )
    const inTransaction = pool.transaction(() => rejection(wait(pool)))
    expect(await inTransaction).toMatchObject(held)
    const lazy = pool.transaction(
      async () => {
        await pool.sql`select 1`
        return rejection(wait(pool))
      },
      { lazy: true },
    )
    expect(await lazy).toMatchObject(held)
    await using session = pool.session()
    await session.sql`select 1`
    expect(await session.run(() => rejection(wait(pool)))).toMatchObject(held)
    const nested = await session.run(() => pool.transaction(() => rejection(wait(pool))))
    expect(nested).toMatchObject(held)
    expect(nested.message).toContain('its caller already holds a lease')
  })

  test('acquire() beside a transaction names nothing', async () => {
    const pool = make({ max: 1 })
    const error = await pool
      .transaction(() => undefined)
      .then(async () => {
        const lease = await pool.acquire()
        const late = await rejection(pool.acquire({ timeoutMs: 20 }))
        await lease.release()
        return late
      })
    expect(error).toMatchObject({ code: 'ERR_ACQUIRE_TIMEOUT', holds: undefined })
  })
})
