import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { deferred } from '../../src/deferred.ts'
import { ConnectionLostError, QueryCancelledError, QueryTimeoutError, SessionBusyError } from '../../src/errors.ts'
import type { PostgresPool, PostgresSql } from '../../src/postgres/index.ts'
import { FakeClock } from '../../src/testing/index.ts'
import { rejection } from '../support/connection.ts'
import { createDatabase, until } from '../support/database.ts'
import type { TestDatabase } from '../support/database.ts'
import { givenBack, kill, poolFor, runs } from '../support/given-back.ts'

let db: TestDatabase
beforeAll(async () => {
  db = await createDatabase()
})
afterAll(() => db.drop())

type Row = { g: number }
const five = ({ sql }: { sql: PostgresSql }) => sql<Row[]>`select g from generate_series(1, 5) g`

/** postgres.js's types do not know that a callback is waited for. */
const waited = <A extends unknown[]>(fn: (...values: A) => Promise<unknown>): ((...values: A) => void) => fn
const forever = new Promise<never>(() => undefined)

/** Still right, on the one connection that it began with. */
async function expectSound(pool: PostgresPool, opens = 1): Promise<void> {
  await givenBack(db, pool)
  for (const i of [1, 2]) {
    const rows = await pool.sql`select ${i}::int as i`
    expect([...rows]).toEqual([{ i }])
    expect(rows.count).toBe(1)
  }
  expect(pool.stats().opens).toBe(opens)
}

async function all(portions: AsyncIterable<Row[]>, then?: (rows: Row[]) => unknown): Promise<number[][]> {
  const seen: number[][] = []
  for await (const rows of portions) {
    seen.push(rows.map(({ g }) => g))
    await then?.(rows)
  }
  return seen
}

describe('cursor(), as an iterator', () => {
  test('cursor() gives all rows in portions, and the connection back', async () => {
    const pool = poolFor(db, { max: 1 })
    expect(await all(five(pool).cursor(2))).toEqual([[1, 2], [3, 4], [5]])
    expect(await all(five(pool).cursor())).toEqual([[1], [2], [3], [4], [5]])
    expect(await all(five(pool).cursor(5))).toEqual([[1, 2, 3, 4, 5]])
    expect(await all(five(pool).cursor(100))).toEqual([[1, 2, 3, 4, 5]])
    expect(await all(pool.sql<Row[]>`select 1 as g where false`.cursor(2))).toEqual([])
    expect(await all(pool.sql<Row[]>`select g from generate_series(1, ${3}::int) g`.cursor(2))).toEqual([[1, 2], [3]])
    await expectSound(pool)
  })

  test('cursor() gives values and raw bytes in portions as well', async () => {
    const pool = poolFor(db, { max: 1 })
    const seen: unknown[] = []
    for await (const rows of pool.sql`select 1 as a, 'x' as b`.values().cursor(2)) seen.push(...rows)
    expect(seen).toEqual([[1, 'x']])
    for await (const rows of pool.sql`select 'raw' as a`.raw().cursor(2)) expect(String(rows[0]?.[0])).toBe('raw')
    await expectSound(pool)
  })

  test('cursor() acquires nothing before somebody reads', async () => {
    const pool = poolFor(db, { max: 1 })
    const portions = five(pool).cursor(2)
    portions[Symbol.asyncIterator]()
    await new Promise((resolve) => {
      setImmediate(resolve)
    })
    expect(pool.stats().acquires).toBe(0)
  })

  test('cursor() holds its connection as long as it is read, and no longer', async () => {
    const pool = poolFor(db, { max: 1 })
    await all(five(pool).cursor(2), () => {
      expect(pool.tryAcquire()).toBeUndefined()
    })
    await expectSound(pool)
  })

  test('cursor() gives its connection back when its reader breaks, throws or returns', async () => {
    const pool = poolFor(db, { max: 1 })
    for await (const rows of five(pool).cursor(2)) {
      expect(rows.length).toBe(2)
      break
    }
    await expectSound(pool)
    const thrown = new Error('enough')
    const failing = async (): Promise<void> => {
      for await (const _ of five(pool).cursor(2)) throw thrown
    }
    expect(await rejection(failing())).toBe(thrown)
    await expectSound(pool)
    const first = async (): Promise<number | undefined> => {
      for await (const [row] of five(pool).cursor(2)) return row?.g
      return undefined
    }
    expect(await first()).toBe(1)
    await expectSound(pool)
  })

  test('cursor() left in its last portion gives its connection back', async () => {
    const pool = poolFor(db, { max: 1 })
    for await (const _ of five(pool).cursor(100)) break
    await expectSound(pool)
  })

  test('cursor() left while it waits for a connection gives its place up', async () => {
    const pool = poolFor(db, { max: 1 })
    const lease = await pool.acquire()
    const iterator = five(pool).cursor(2)[Symbol.asyncIterator]()
    const portion = iterator.next()
    await until(() => pool.stats().waiting === 1)
    await iterator.return?.()
    expect(await portion).toEqual({ done: true, value: undefined })
    await until(() => pool.stats().waiting === 0)
    await lease.release()
    await expectSound(pool)
  })

  test('cursor() left while its first portion is on its way is closed when that comes', async () => {
    const pool = poolFor(db, { max: 1 })
    const iterator = pool.sql`select pg_sleep(0.05) from generate_series(1, 3)`.cursor(1)[Symbol.asyncIterator]()
    const portion = iterator.next()
    await runs(db, 'pg_sleep')
    await iterator.return?.()
    expect((await portion).done).toBe(true)
    await expectSound(pool)
  })

  test('cursor() answers several who ask at the same time in their order', async () => {
    const pool = poolFor(db, { max: 1 })
    const iterator = five(pool).cursor(2)[Symbol.asyncIterator]()
    const answers = await Promise.all([1, 2, 3, 4, 5].map(() => iterator.next()))
    expect(answers.map(({ done, value }) => (done ? 'done' : value.length))).toEqual([2, 2, 1, 'done', 'done'])
    expect((await iterator.next()).done).toBe(true)
    await expectSound(pool)
  })

  test('cursor() tells its reader of an error after rows', async () => {
    const pool = poolFor(db, { max: 1 })
    const seen: number[] = []
    const read = async (): Promise<void> => {
      const query = pool.sql<Row[]>`select 12 / (5 - g) as g from generate_series(1, 9) g`
      for await (const rows of query.cursor(2)) seen.push(...rows.map(({ g }) => g))
    }
    expect((await rejection(read())).code).toBe('22012')
    expect(seen).toEqual([3, 4, 6, 12])
    await expectSound(pool)
    expect((await rejection(all(pool.sql<Row[]>`select nonsense`.cursor(2)))).code).toBe('42703')
    expect((await rejection(all(pool.sql<Row[]>`select ${undefined as never}`.cursor(2)))).code).toBe('UNDEFINED_VALUE')
    await expectSound(pool)
  })

  test('cursor() tells its reader that rows are missing when the connection dies between two portions', async () => {
    const pool = poolFor(db, { max: 1 })
    let portions = 0
    const read = all(five(pool).cursor(2), async () => {
      portions++
      await kill(db)
      await db.sessionsToBe(0)
    })
    expect(await rejection(read)).toBeInstanceOf(ConnectionLostError)
    expect(portions).toBe(1)
    await expectSound(pool, 2)
  })

  test('cursor() that its reader has forgotten in the middle is closed', async () => {
    setFlagsFromString('--expose-gc')
    const collect = runInNewContext('gc') as () => void
    const pool = poolFor(db, { max: 1 })
    const forget = async (): Promise<void> => {
      const portion = await five(pool).cursor(2)[Symbol.asyncIterator]().next()
      expect(portion.done).toBe(false)
    }
    await forget()
    expect(pool.stats().leased).toBe(1)
    await until(() => {
      collect()
      return pool.stats().leased === 0
    }, 'the cursor to be closed')
    await expectSound(pool)
  })
})

describe('cursor(), with a callback', () => {
  test('cursor() resolves when its callback has seen all portions, and has finished with the last', async () => {
    const pool = poolFor(db, { max: 1 })
    const seen: number[] = []
    const result = await five(pool).cursor(
      2,
      waited(async (rows) => {
        await new Promise((resolve) => {
          setTimeout(resolve, 5)
        })
        seen.push(rows.length)
      }),
    )
    expect(seen).toEqual([2, 2, 1])
    expect(result.command).toBe('SELECT')
    await five(pool).cursor((row) => seen.push(...row.map(({ g }) => g)))
    expect(seen.slice(3)).toEqual([1, 2, 3, 4, 5])
    await expectSound(pool)
  })

  test('cursor() ends when its callback returns CLOSE, at once or later', async () => {
    const pool = poolFor(db, { max: 1 })
    const seen: number[] = []
    await five(pool).cursor(2, (rows) => {
      seen.push(rows.length)
      return pool.sql.CLOSE
    })
    await five(pool).cursor(
      2,
      waited(async (rows) => {
        await Promise.resolve()
        seen.push(rows.length)
        return pool.sql.END
      }),
    )
    expect(seen).toEqual([2, 2])
    await expectSound(pool)
  })

  test('cursor() rejects with what its callback throws, and is closed', async () => {
    const pool = poolFor(db, { max: 1 })
    const thrown = new Error('enough')
    let calls = 0
    const atOnce = five(pool).cursor(2, () => {
      calls++
      throw thrown
    })
    expect(await rejection(atOnce)).toBe(thrown)
    const later = five(pool).cursor(
      2,
      waited(async () => {
        calls++
        await Promise.resolve()
        throw thrown
      }),
    )
    expect(await rejection(later)).toBe(thrown)
    expect(calls).toBe(2)
    await expectSound(pool)
  })

  test('cursor() rejects with what its callback throws at the last portion', async () => {
    const pool = poolFor(db, { max: 1 })
    const thrown = new Error('enough')
    const atOnce = five(pool).cursor(9, () => {
      throw thrown
    })
    expect(await rejection(atOnce)).toBe(thrown)
    const later = five(pool).cursor(
      9,
      waited(async () => {
        await new Promise((resolve) => {
          setTimeout(resolve, 5)
        })
        throw thrown
      }),
    )
    expect(await rejection(later)).toBe(thrown)
    await expectSound(pool)
  })

  test('cursor() rejects when the connection dies while its callback is at work', async () => {
    const pool = poolFor(db, { max: 1 })
    let calls = 0
    const lost = five(pool).cursor(
      2,
      waited(async () => {
        calls++
        await kill(db)
        await new Promise((resolve) => {
          setTimeout(resolve, 20)
        })
      }),
    )
    expect(await rejection(lost)).toBeInstanceOf(ConnectionLostError)
    expect(calls).toBe(1)
    await expectSound(pool, 2)
  })
})

describe('cursor(), cancelled and out of time', () => {
  test('cursor() that is cancelled between two portions tells its reader, and is closed', async () => {
    const pool = poolFor(db, { max: 1 })
    const query = five(pool)
    const read = all(query.cursor(2), () => query.cancel())
    const error = await rejection(read)
    expect(error).toBeInstanceOf(QueryCancelledError)
    expect(error.code).toBe('57014')
    await expectSound(pool)
  })

  test('cursor() that is cancelled while a portion is on its way tells its reader', async () => {
    const pool = poolFor(db, { max: 1 })
    const query = pool.sql<Row[]>`select pg_sleep(60), 1 as g`
    const read = rejection(all(query.cursor(2)))
    await runs(db, 'pg_sleep(60)')
    query.cancel()
    expect((await read).code).toBe('57014')
    await expectSound(pool)
  })

  test('cursor() that is cancelled while its callback is at work rejects, and does not wait for it', async () => {
    const pool = poolFor(db, { max: 1 })
    const query = five(pool)
    let calls = 0
    const cursor = query.cursor(
      2,
      waited(() => {
        calls++
        query.cancel()
        return new Promise<void>(() => undefined)
      }),
    )
    expect((await rejection(cursor)).code).toBe('57014')
    expect(calls).toBe(1)
    await expectSound(pool)
  })

  test('cursor() meets its deadline between two portions, while one is on its way, and in its callback', async () => {
    const clock = new FakeClock()
    const pool = poolFor(db, { max: 1, clock })
    const { sql } = pool.with({ timeoutMs: 50 })
    const iterator = five({ sql }).cursor(2)[Symbol.asyncIterator]()
    await iterator.next()
    await clock.advance(50)
    expect(await rejection(iterator.next())).toMatchObject({ name: 'QueryTimeoutError', phase: 'run', timeoutMs: 50 })
    expect((await iterator.next()).done).toBe(true)
    await expectSound(pool)
    const onItsWay = rejection(all(sql<Row[]>`select pg_sleep(60), 1 as g`.cursor(2)))
    await runs(db, 'pg_sleep(60)')
    await clock.advance(50)
    expect(await onItsWay).toBeInstanceOf(QueryTimeoutError)
    await expectSound(pool)
    const called = deferred<void>()
    const callback = waited(() => {
      called.resolve()
      return forever
    })
    const failed = rejection(five({ sql }).cursor(2, callback))
    await called.promise
    await clock.advance(50)
    expect(await failed).toBeInstanceOf(QueryTimeoutError)
    await expectSound(pool)
  })

  test('cursor() that is aborted rejects with the signal’s reason', async () => {
    const pool = poolFor(db, { max: 1 })
    const controller = new AbortController()
    const reason = new Error('the client has left')
    const { sql } = pool.with({ signal: controller.signal })
    const read = all(five({ sql }).cursor(2), () => controller.abort(reason))
    expect(await rejection(read)).toBe(reason)
    await expectSound(pool)
    expect(await rejection(all(five({ sql }).cursor(2)))).toBe(reason)
    expect(await rejection(five({ sql }).cursor(2, () => undefined))).toBe(reason)
    await expectSound(pool)
  })
})

describe('cursor(), on a lease and in a transaction', () => {
  test('a query behind the open cursor of its own lease is refused at once', async () => {
    const pool = poolFor(db, { max: 1 })
    const lease = await pool.acquire()
    const errors: unknown[] = []
    const portions = await all(five(lease).cursor(2), async (rows) => {
      if (rows.length === 2) errors.push(await rejection(lease.sql`select 1`))
    })
    expect(portions.flat()).toEqual([1, 2, 3, 4, 5])
    expect(errors).toHaveLength(2)
    expect(errors[0]).toBeInstanceOf(SessionBusyError)
    expect(errors[0]).toMatchObject({ code: 'ERR_SESSION_BUSY', open: 'cursor' })
    expect([...(await lease.sql`select 1 as one`)]).toEqual([{ one: 1 }])
    const inside = await rejection(
      five(lease).cursor(
        2,
        waited(async () => lease.sql`select 1`),
      ),
    )
    expect(inside).toBeInstanceOf(SessionBusyError)
    await lease.release()
    await expectSound(pool)
  })

  test('a query behind the open cursor of its own transaction is refused at once, whichever tag it is on', async () => {
    const pool = poolFor(db, { max: 1 })
    await pool.transaction(async (sql) => {
      const busy: unknown[] = []
      await all(five({ sql }).cursor(3), async (rows) => {
        if (rows.length === 3) {
          busy.push(
            await rejection(pool.sql`select 1`),
            await rejection(sql`select 1`),
            await rejection(sql.savepoint(() => 1)),
          )
        }
      })
      expect(busy.map((error) => error instanceof SessionBusyError)).toEqual([true, true, true])
      expect([...(await sql`select 1 as one`)]).toEqual([{ one: 1 }])
    })
    await expectSound(pool)
  })

  test('a query that the callback of a cursor only starts waits for the cursor’s end', async () => {
    const pool = poolFor(db, { max: 1 })
    await pool.use(async (sql) => {
      const started: PromiseLike<unknown>[] = []
      await five({ sql }).cursor(2, () => void started.push(sql`select 1 as one`.execute()))
      const answers = await Promise.all(started)
      expect(answers).toEqual([1, 2, 3].map(() => [{ one: 1 }]))
    })
    await expectSound(pool)
  })

  test('a query right after a cursor was left waits for that, and so do those that were there before it opened', async () => {
    const pool = poolFor(db, { max: 1 })
    const lease = await pool.acquire()
    for await (const _ of five(lease).cursor(2)) break
    expect([...(await lease.sql`select 1 as one`)]).toEqual([{ one: 1 }])
    const [portions, rows] = await Promise.all([all(five(lease).cursor(2)), lease.sql`select 2 as two`])
    expect(portions.flat()).toEqual([1, 2, 3, 4, 5])
    expect([...rows]).toEqual([{ two: 2 }])
    await lease.release()
    await expectSound(pool)
  })

  test('a lease that is released with a cursor open is cleaned or replaced, in time', async () => {
    const pool = poolFor(db, { max: 1, resetTimeoutMs: 200 })
    const lease = await pool.acquire()
    const iterator = five(lease).cursor(2)[Symbol.asyncIterator]()
    await iterator.next()
    await lease.release()
    expect(await rejection(iterator.next())).toBeInstanceOf(ConnectionLostError)
    await givenBack(db, pool)
    expect([...(await pool.sql`select 1 as one`)]).toEqual([{ one: 1 }])
  })

  test('lease.cancel() ends the cursor that is open, and the lease goes on', async () => {
    const pool = poolFor(db, { max: 1 })
    const lease = await pool.acquire()
    expect((await rejection(all(five(lease).cursor(2), () => lease.cancel()))).code).toBe('57014')
    expect([...(await lease.sql`select 1 as one`)]).toEqual([{ one: 1 }])
    await lease.release()
    await expectSound(pool)
  })

  test('a transaction goes on after a cursor that was left or that was out of time between two portions', async () => {
    const clock = new FakeClock()
    const pool = poolFor(db, { max: 1, clock })
    const one = await pool.transaction(async (sql) => {
      for await (const _ of five({ sql }).cursor(2)) break
      const late = pool.within({ timeoutMs: 50 }, async () => {
        const iterator = five({ sql }).cursor(2)[Symbol.asyncIterator]()
        await iterator.next()
        await clock.advance(50)
        await iterator.next()
      })
      expect(await rejection(late)).toBeInstanceOf(QueryTimeoutError)
      return [...(await sql`select 1 as one`)]
    })
    expect(one).toEqual([{ one: 1 }])
    await expectSound(pool)
  })
})
