import { afterAll, beforeAll, describe, expect, expectTypeOf, test } from 'vitest'
import { AcquireTimeoutError, LeaseReleasedError } from '../../src/errors.ts'
import type {
  PostgresPool,
  PostgresPoolOptions,
  PostgresSql,
  TransactionOptions,
  TransactionSql,
} from '../../src/postgres/index.ts'
import { rejection } from '../support/connection.ts'
import { createDatabase, until } from '../support/database.ts'
import type { TestDatabase } from '../support/database.ts'
import { insert, makePool, pidOf } from '../support/pool.ts'

let db: TestDatabase
beforeAll(async () => {
  db = await createDatabase()
})
afterAll(() => db.drop())

const make = (options?: PostgresPoolOptions): PostgresPool => makePool(db, options)

let tables = 0

/** A table of one column, and what is in it, as others see it. */
async function table(pool: PostgresPool): Promise<{ name: string; read: () => Promise<unknown[]> }> {
  const name = `t${++tables}`
  await pool.sql.unsafe(`create table ${name} (a int primary key)`)
  const read = async (): Promise<unknown[]> =>
    (await pool.outside(() => pool.sql.unsafe(`select a from ${name} order by a`))).map((row) => row['a'] as unknown)
  return { name, read }
}

/** The server fails the transaction as if it stood in another one's way. */
const conflict = (sql: PostgresSql, code = '40001'): PromiseLike<unknown> =>
  sql.unsafe(`do $$ begin raise exception 'no' using errcode = '${code}'; end $$`)

/** Resolves for all when `count` have come. */
function barrier(count: number): () => Promise<void> {
  let come = 0
  let open!: () => void
  const all = new Promise<void>((resolve) => {
    open = resolve
  })
  return () => {
    if (++come === count) open()
    return all
  }
}

describe('transaction({ lazy })', () => {
  test('transaction({ lazy: true }) takes no connection before its first query, and begins then', async () => {
    const pool = make()
    const { name, read } = await table(pool)
    const before = pool.stats().acquires
    const result = await pool.transaction(
      async (sql) => {
        expect(pool.stats().acquires).toBe(before)
        await Promise.all([insert(sql, name, 1), insert(pool.sql, name, 2)])
        expect((await sql`select pg_current_xact_id_if_assigned() is not null as inside`)[0]).toEqual({ inside: true })
        expect(await read()).toEqual([])
        return 'done'
      },
      { lazy: true },
    )
    expect(result).toBe('done')
    expect(await read()).toEqual([1, 2])
  })

  test('transaction({ lazy: true }) takes none at all without a query, nested ones included', async () => {
    const pool = make({ max: 1 })
    const held = await pool.acquire()
    expect(await pool.transaction(() => pool.transaction(() => 3, { lazy: true }), { lazy: true })).toBe(3)
    const broken = new Error('no')
    const thrown = pool.transaction(() => Promise.reject(broken), { lazy: true })
    expect(await rejection(thrown)).toBe(broken)
    expect(pool.stats().acquires).toBe(1)
    await held.release()
  })

  test('transaction({ lazy: true }) gives up the connection that it waits for when its callback throws', async () => {
    const pool = make({ max: 1 })
    const held = await pool.acquire()
    const broken = new Error('no')
    let left: Promise<Error & { code?: string }> | undefined
    const attempt = pool.transaction(
      async (sql) => {
        left = rejection(sql`select 1`)
        await until(() => pool.stats().waiting === 1)
        throw broken
      },
      { lazy: true },
    )
    expect(await rejection(attempt)).toBe(broken)
    expect(await left).toBeInstanceOf(LeaseReleasedError)
    expect(pool.stats().waiting).toBe(0)
    await held.release()
    expect(await pidOf(pool.sql)).toBeDefined()
  })

  test('transaction({ lazy: true }) rejects each query when it cannot begin', async () => {
    const pool = make({ min: 1, max: 1, acquireTimeoutMs: 30 })
    // Opening has the same deadline, and may take longer.
    await until(() =>
      pool.open().then(
        () => pool.stats().idle === 1,
        () => false,
      ),
    )
    const held = await pool.acquire()
    const errors = await pool
      .transaction((sql) => Promise.all([rejection(sql`select 1`), rejection(sql`select 2`)]), { lazy: true })
      .catch((error: unknown) => error)
    expect(errors).toBeInstanceOf(AcquireTimeoutError)
    await held.release()
  })
})

describe('transaction({ rollback, independent, … })', () => {
  test('transaction({ rollback: true }) rolls back and returns what the callback did', async () => {
    const pool = make({ max: 1 })
    const { name, read } = await table(pool)
    const rows = await pool.transaction(
      async (sql) => {
        await insert(sql, name, 1)
        await pool.transaction(() => insert(pool.sql, name, 2))
        return (await sql.unsafe(`select a from ${name} order by a`)).map((row) => row['a'] as unknown)
      },
      { rollback: true },
    )
    expect(rows).toEqual([1, 2])
    expect(await read()).toEqual([])
    const swallowed = pool.transaction((sql) => rejection(sql`select 1/0`), { rollback: true })
    expect((await rejection(swallowed)).code).toBe('22012')
  })

  test('transaction({ rollback: true }) undoes itself alone inside another one', async () => {
    const pool = make({ max: 2 })
    const { name, read } = await table(pool)
    await pool.transaction(async (sql) => {
      await insert(sql, name, 1)
      expect(await pool.transaction(() => insert(pool.sql, name, 2).then(() => 'back'), { rollback: true })).toBe(
        'back',
      )
    })
    expect(await read()).toEqual([1])
  })

  test('transaction({ independent: true }) has a connection of its own, and outlives the one around it', async () => {
    const pool = make()
    const { name, read } = await table(pool)
    const broken = new Error('no')
    const attempt = pool.transaction(async (sql) => {
      await insert(sql, name, 1)
      const pid = await pidOf(pool.sql)
      await pool.transaction(
        async () => {
          expect(await pidOf(pool.sql)).not.toBe(pid)
          await insert(pool.sql, name, 2)
        },
        { independent: true },
      )
      expect(await pidOf(pool.sql)).toBe(pid)
      throw broken
    })
    expect(await rejection(attempt)).toBe(broken)
    expect(await read()).toEqual([2])
  })

  test('transaction() inside another one refuses to be what that is not', async () => {
    const pool = make()
    const inside = async (around: TransactionOptions, options: TransactionOptions): Promise<unknown> => {
      const nested = pool.transaction(() => pool.transaction(() => 'fine', options), around)
      return nested.catch((error: Error & { option?: string }) => error.option)
    }
    expect(await inside({}, { isolation: 'serializable' })).toBe('isolation')
    expect(await inside({ isolation: 'repeatable read' }, { isolation: 'serializable' })).toBe('isolation')
    expect(await inside({ isolation: 'serializable' }, { isolation: 'repeatable read' })).toBe('fine')
    expect(await inside({ readOnly: true }, { readOnly: false })).toBe('readOnly')
    expect(await inside({}, { deferrable: true })).toBe('deferrable')
    expect(await inside({}, { isolation: 'serializable', independent: true })).toBe('fine')
    expect(await inside({ isolation: 'serializable', lazy: true }, { isolation: 'serializable' })).toBe('fine')
  })

  test('transaction({ readOnly: true }) inside another one reads only, and that may write again afterwards', async () => {
    const pool = make()
    const { name, read } = await table(pool)
    await pool.transaction(async (sql) => {
      const attempt = pool.transaction(() => pool.transaction(() => insert(pool.sql, name, 1), { readOnly: true }), {
        readOnly: true,
      })
      expect((await rejection(attempt)).code).toBe('25006')
      const back = pool.transaction(() => pool.transaction(() => 1, { readOnly: false }), { readOnly: true })
      expect((await rejection(back)).code).toBe('ERR_OPTION')
      await insert(sql, name, 2)
    })
    expect(await read()).toEqual([2])
  })

  test.each([
    { isolation: 'loose' },
    { retries: -1 },
    { retries: 1.5 },
    { retries: 'many' },
    { timeoutMs: 0 },
    { lazy: 1 },
    { islation: 'serializable' },
  ])('transaction(fn, %o) rejects with ERR_OPTION, and takes nothing', async (options) => {
    const pool = make()
    const wrong = pool.transaction(() => undefined, options as unknown as TransactionOptions)
    expect(await rejection(wrong)).toMatchObject({ code: 'ERR_OPTION', option: Object.keys(options)[0] })
    expect(pool.stats().acquires).toBe(0)
  })

  test.each(['commit', 'rollback', 'abort'])(
    'transaction() runs nothing after a statement %s of its own',
    async (text) => {
      const pool = make({ max: 1 })
      const { name, read } = await table(pool)
      const attempt = pool.transaction(async (sql) => {
        await sql.unsafe(text)
        expect((await rejection(insert(sql, name, 1))).code).toBe('ERR_TRANSACTION_FAILED')
        expect((await rejection(insert(pool.sql, name, 2))).code).toBe('ERR_TRANSACTION_FAILED')
      })
      expect((await rejection(attempt)).code).toBe('ERR_TRANSACTION_FAILED')
      expect(await read()).toEqual([])
      expect(pool.stats().opens).toBe(1)
    },
  )

  test('transaction() throws the statement’s error that has failed it, not one that was never sent', async () => {
    const pool = make()
    const attempt = pool.transaction(async (sql) => {
      await rejection(sql`select ${undefined as never}`)
      await rejection(sql`select 1/0`)
    })
    expect((await rejection(attempt)).code).toBe('22012')
    expect(await pool.transaction((sql) => rejection(sql`select ${undefined as never}`))).toMatchObject({
      code: 'UNDEFINED_VALUE',
    })
  })
})

describe('transaction({ retries })', () => {
  test('transaction({ retries }) runs both again of which the server failed one: serializable for real', async () => {
    const pool = make()
    await pool.sql`create table skew (writer int, seen int)`
    const meet = barrier(2)
    const calls = [0, 0]
    const write = (writer: 0 | 1): Promise<unknown> =>
      pool.transaction(
        async (sql) => {
          calls[writer]!++
          const [row] = await sql`select count(*)::int as n from skew`
          if (calls[writer] === 1) await meet()
          await sql`insert into skew values (${writer}, ${row?.['n'] as number})`
        },
        { isolation: 'serializable', retries: 3 },
      )
    await Promise.all([write(0), write(1)])
    expect(calls[0]! + calls[1]!).toBe(3)
    const seen = await pool.sql`select seen from skew order by seen`
    expect([...seen]).toEqual([{ seen: 0 }, { seen: 1 }])
  })

  test('transaction({ retries }) runs the victim of a real deadlock again', async () => {
    const pool = make()
    await pool.sql`create table crossing as select g as id, 0 as n from generate_series(1, 2) g`
    const meet = barrier(2)
    const calls = [0, 0]
    const cross = (first: 1 | 2): Promise<unknown> =>
      pool.transaction(
        async (sql) => {
          const call = ++calls[first - 1]!
          await sql`set local deadlock_timeout = '20ms'`
          await sql`update crossing set n = n + 1 where id = ${first}`
          if (call === 1) await meet()
          await sql`update crossing set n = n + 1 where id = ${3 - first}`
        },
        { retries: 3 },
      )
    await Promise.all([cross(1), cross(2)])
    // Once more at the least; those that run again may meet again.
    expect(calls[0]! + calls[1]!).toBeGreaterThan(2)
    expect([...(await pool.sql`select n from crossing`)]).toEqual([{ n: 2 }, { n: 2 }])
  })

  test('transaction({ retries }) begins anew each time, and throws the last error at the end', async () => {
    const pool = make({ max: 1 })
    const { name, read } = await table(pool)
    const errors: unknown[] = []
    const attempt = pool.transaction(
      async (sql) => {
        await insert(sql, name, 1)
        expect(await sql.unsafe(`select a from ${name}`)).toHaveLength(1)
        const error = await rejection(conflict(sql, errors.length % 2 ? '40P01' : '40001'))
        errors.push(error)
        throw error
      },
      { retries: 3 },
    )
    expect(await rejection(attempt)).toBe(errors[3])
    expect(errors).toHaveLength(4)
    expect(await read()).toEqual([])
  })

  test('transaction({ retries }) sees the conflict that a callback has swallowed, or thrown as something else', async () => {
    const pool = make()
    let calls = 0
    const wrapped = pool.transaction(
      async (sql) => {
        if (++calls < 3) await rejection(conflict(sql))
        if (calls === 1) throw new Error('wrapped')
        return calls
      },
      { retries: 5 },
    )
    expect(await wrapped).toBe(3)
  })

  test.each([
    ['an error of the callback', () => Promise.reject(new Error('no'))],
    ['another error of the server', (sql: PostgresSql) => sql`select 1/0`],
  ])('transaction({ retries }) does not retry after %s', async (_, fn) => {
    const pool = make()
    let calls = 0
    const attempt = pool.transaction(
      (sql) => {
        calls++
        return fn(sql)
      },
      { retries: 5 },
    )
    await rejection(attempt)
    expect(calls).toBe(1)
  })

  test('transaction({ retries }) of a savepoint leaves it to the transaction around it', async () => {
    const pool = make()
    const calls = { outer: 0, inner: 0 }
    await pool.transaction(
      async () => {
        calls.outer++
        await pool.transaction(
          async () => {
            if (++calls.inner < 3) await conflict(pool.sql)
          },
          { retries: 9 },
        )
      },
      { retries: 2 },
    )
    expect(calls).toEqual({ outer: 3, inner: 3 })
  })

  test('transaction({ retries }) holds no connection while it pauses', async () => {
    const pool = make({ max: 1 })
    let calls = 0
    const retried = pool.transaction(
      async (sql) => {
        if (++calls < 6) await conflict(sql)
      },
      { retries: 9 },
    )
    while (calls < 5) await pool.sql`select 1`
    await retried
    expect(calls).toBe(6)
  })

  test('transaction({ retries, signal }) ends with the last error of the server', async () => {
    const pool = make()
    const controller = new AbortController()
    let calls = 0
    const attempt = pool.transaction(
      async (sql) => {
        calls++
        if (calls === 3) setImmediate(() => controller.abort())
        await conflict(sql)
      },
      { retries: Infinity, signal: controller.signal },
    )
    expect((await rejection(attempt)).code).toBe('40001')
    expect(calls).toBeLessThan(5)
  })

  test('transaction({ retries, timeoutMs }) ends with the last error of the server', async () => {
    const pool = make()
    // Its time is for the attempts.
    await pool.sql`select 1`
    let calls = 0
    const began = performance.now()
    const attempt = pool.transaction(
      async (sql) => {
        if (++calls > 3) await sql`select pg_sleep(60)`
        await conflict(sql)
      },
      { retries: Infinity, timeoutMs: 1_000 },
    )
    expect((await rejection(attempt)).code).toBe('40001')
    expect(performance.now() - began).toBeLessThan(5_000)
    expect(calls).toBeGreaterThan(1)
  })
})

describe('transaction({ signal, timeoutMs })', () => {
  test('transaction({ signal }) cancels what runs, rolls back, and rejects with the reason', async () => {
    const pool = make({ max: 1 })
    const { name, read } = await table(pool)
    const controller = new AbortController()
    const reason = new Error('enough')
    let inside: Promise<unknown> | undefined
    const attempt = pool.transaction(
      (sql) => {
        inside = (async () => {
          await insert(sql, name, 1)
          const cancelled = await rejection(sql`select pg_sleep(60), 'aborted'`)
          return [cancelled.code, await rejection(insert(sql, name, 2)), await rejection(insert(pool.sql, name, 3))]
        })()
        return inside
      },
      { signal: controller.signal },
    )
    await db.toRun('aborted')
    controller.abort(reason)
    expect(await rejection(attempt)).toBe(reason)
    expect(await inside).toEqual(['57014', expect.any(LeaseReleasedError), expect.any(LeaseReleasedError)])
    expect(await read()).toEqual([])
    expect(pool.stats()).toMatchObject({ opens: 1, leased: 0 })
  })

  test('transaction({ signal }) does not wait for a callback that does something else', async () => {
    const pool = make({ max: 1 })
    const controller = new AbortController()
    const never = new Promise(() => {})
    const attempt = pool.transaction(
      async (sql) => {
        await sql`select 1`
        setImmediate(() => controller.abort('now'))
        await never
      },
      { signal: controller.signal },
    )
    expect(await attempt.catch((error: unknown) => error)).toBe('now')
    expect(await pidOf(pool.sql)).toBeDefined()
    expect(pool.stats().opens).toBe(1)
  })

  test('transaction({ signal }) that is aborted already takes nothing', async () => {
    const pool = make()
    const attempt = pool.transaction(() => 1, { signal: AbortSignal.abort('before') })
    expect(await attempt.catch((error: unknown) => error)).toBe('before')
    expect(pool.stats().acquires).toBe(0)
  })

  test('transaction({ timeoutMs }) ends what runs at its deadline', async () => {
    const pool = make({ max: 1 })
    const { name, read } = await table(pool)
    const attempt = pool.transaction(
      async (sql) => {
        await insert(sql, name, 1)
        await sql.savepoint((inner) => inner`select pg_sleep(60)`)
      },
      { timeoutMs: 100 },
    )
    expect(await rejection(attempt)).toMatchObject({ code: 'ERR_TRANSACTION_TIMEOUT' })
    expect(await read()).toEqual([])
    expect(pool.stats().opens).toBe(1)
  })

  test('transaction({ timeoutMs }) is the deadline of its acquire, too', async () => {
    const pool = make({ max: 1 })
    const held = await pool.acquire()
    const error = await rejection(pool.transaction(() => 1, { timeoutMs: 30 }))
    expect(error).toMatchObject({ code: 'ERR_ACQUIRE_TIMEOUT', phase: 'queue' })
    await held.release()
  })

  test('transaction({ timeoutMs }) of a savepoint undoes that alone', async () => {
    const pool = make({ max: 2 })
    const { name, read } = await table(pool)
    await pool.transaction(async (sql) => {
      await insert(sql, name, 1)
      const inner = pool.transaction(
        async () => {
          await insert(pool.sql, name, 2)
          await pool.sql`select pg_sleep(60)`
        },
        { timeoutMs: 50 },
      )
      expect((await rejection(inner)).code).toBe('ERR_TRANSACTION_TIMEOUT')
      await insert(sql, name, 3)
    })
    expect(await read()).toEqual([1, 3])
  })
})

describe('the types of transactions', () => {
  test('transaction() has the type of what its callback returns', () => {
    expect(typesOf).toBeTypeOf('function')
  })
})

/** Only compiled. */
function typesOf(pool: PostgresPool): void {
  expectTypeOf(pool.transaction(() => 1)).toEqualTypeOf<Promise<number>>()
  expectTypeOf(pool.transaction((sql) => sql<{ a: string }[]>`select 'x' as a`)).resolves.toExtend<{ a: string }[]>()
  expectTypeOf(pool.transaction(async (sql) => sql.savepoint(() => 'x'))).toEqualTypeOf<Promise<string>>()
  expectTypeOf<Parameters<Parameters<typeof pool.transaction>[0]>[0]>().toEqualTypeOf<TransactionSql>()
  expectTypeOf<TransactionOptions['isolation']>().toEqualTypeOf<
    'serializable' | 'repeatable read' | 'read committed' | 'read uncommitted' | undefined
  >()
  expectTypeOf<TransactionSql>().not.toHaveProperty('begin')
  expectTypeOf(pool.outside(() => 1)).toEqualTypeOf<number>()
  // @ts-expect-error -- no such option
  void pool.transaction(() => 1, { retry: 3 }).catch(() => undefined)
  // @ts-expect-error -- options of a session are not those of a callback
  pool.session({ retries: 3 })
}
