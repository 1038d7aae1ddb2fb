import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import type postgres from 'postgres'
import { afterAll, beforeAll, describe, expect, expectTypeOf, onTestFinished, test, vi } from 'vitest'
import { ConnectionLostError, PoolError, QueryCancelledError, QueryTimeoutError } from '../../src/errors.ts'
import type { PostgresPool, PostgresSql } from '../../src/postgres/index.ts'
import { FakeClock } from '../../src/testing/index.ts'
import { rejection } from '../support/connection.ts'
import { createDatabase, until } from '../support/database.ts'
import type { TestDatabase } from '../support/database.ts'
import { givenBack, kill, poolFor, runs } from '../support/given-back.ts'

let db: TestDatabase
let folder: string
const file = (name: string): string => join(folder, name)
beforeAll(async () => {
  db = await createDatabase()
  folder = await mkdtemp(join(tmpdir(), 'queries-'))
  await writeFile(file('one.sql'), 'select 1 as one')
  await writeFile(file('script.sql'), 'select 1 as one; select 2 as two')
  await writeFile(file('parameter.sql'), 'select $1::int as one')
  await writeFile(file('slow.sql'), 'select pg_sleep(60)')
})
afterAll(async () => {
  await rm(folder, { recursive: true })
  await db.drop()
})

const plain = (rows: Iterable<unknown>): unknown[] => [...rows]

function parse(): never {
  throw new Error('not for the pool')
}

/** What can be run, by its answer. */
const surface: Record<string, { expected: unknown; run: (sql: PostgresSql) => PromiseLike<unknown> }> = {
  'the tag': { expected: [{ a: 1, b: 'x' }], run: async (sql) => plain(await sql`select ${1}::int as a, ${'x'} as b`) },
  fragments: {
    expected: [{ a: 2 }],
    run: async (sql) => {
      const where = (a: number): postgres.Fragment => sql`where a = ${a}`
      return plain(await sql`select a from (values (1), (2)) t(a) ${where(2)} ${sql``}`)
    },
  },
  'insert, update and select helpers': {
    expected: [{ name: 'changed', tags: ['a', 'b"c'] }],
    run: async (sql) => {
      const rows = [
        { id: 1, name: 'one', tags: ['a', 'b"c'] },
        { id: 2, name: 'two', tags: [] },
      ]
      return plain(
        await sql`
        with given as (select * from (values ${sql(rows.map(({ id, name }) => [id, name]))}) t(id, name))
        select 'changed' as name, ${rows[0]!.tags}::text[] as tags from given where id::int in ${sql([1, 3])}`,
      )
    },
  },
  'insert of objects': {
    expected: [{ id: 2, name: 'two' }],
    run: async (sql) => {
      await sql`create temp table if not exists people (id int, name text)`
      const two = { id: 2, name: 'second' }
      const [made] = await sql<[{ id: number }]>`insert into people ${sql([two], 'id', 'name')} returning id`
      const change = { name: 'two' }
      const done =
        await sql`update people set ${sql(change, 'name')} where id = ${made.id} returning ${sql(['id', 'name'])}`
      await sql`drop table people`
      return plain(done)
    },
  },
  identifiers: {
    expected: [{ 'a "b"': 1 }],
    run: async (sql) => plain(await sql`select 1 as ${sql('a "b"')}`),
  },
  arrays: {
    expected: [{ a: [1, 2], b: ['x', null] }],
    run: async (sql) => plain(await sql`select ${sql.array([1, 2])}::int[] as a, ${['x', null]}::text[] as b`),
  },
  json: {
    expected: [{ a: { b: [1, null] } }],
    run: async (sql) => plain(await sql`select ${sql.json({ b: [1, null] })} as a`),
  },
  typed: { expected: [{ a: 7 }], run: async (sql) => plain(await sql`select ${sql.typed(7, 23)} as a`) },
  'values()': { expected: [[1, 'x']], run: async (sql) => plain(await sql`select 1 as a, 'x' as b`.values()) },
  'raw()': { expected: 'raw', run: async (sql) => String((await sql`select 'raw' as a`.raw())[0]?.[0]) },
  'simple()': { expected: [[{ a: 1 }], [{ b: 2 }]], run: (sql) => sql.unsafe('select 1 as a; select 2 as b').simple() },
  'describe()': {
    expected: ['a', 23],
    run: async (sql) => {
      const { columns, types } = await sql`select ${1}::int as a`.describe()
      return [columns[0]?.name, types[0]]
    },
  },
  'forEach()': {
    expected: [1, 2, 3],
    run: async (sql) => {
      const seen: unknown[] = []
      const result = await sql`select g from generate_series(1, 3) g`.forEach((row) => seen.push(row['g']))
      expect(result.count).toBe(3)
      return seen
    },
  },
  'cursor(), iterated': {
    expected: [2, 1],
    run: async (sql) => {
      const seen: number[] = []
      for await (const rows of sql`select g from generate_series(1, 3) g`.cursor(2)) seen.push(rows.length)
      return seen
    },
  },
  'cursor(), with a callback': {
    expected: [2, 1],
    run: async (sql) => {
      const seen: number[] = []
      await sql`select g from generate_series(1, 3) g`.cursor(2, (rows) => seen.push(rows.length))
      return seen
    },
  },
  'execute()': { expected: [{ a: 1 }], run: async (sql) => plain(await sql`select 1 as a`.execute()) },
  'unsafe()': {
    expected: [{ a: 3 }],
    run: async (sql) => plain(await sql.unsafe('select $1::int + $2::int as a', [1, 2])),
  },
  'unsafe() prepared': {
    expected: [{ a: 3 }],
    run: async (sql) => plain(await sql.unsafe('select $1::int as a', [3], { prepare: true })),
  },
  'unsafe() as a fragment': {
    expected: [{ a: 4 }],
    run: async (sql) => plain(await sql`select ${sql.unsafe('4 as a')}`),
  },
  'file()': { expected: [{ one: 1 }], run: async (sql) => plain(await sql.file(file('one.sql'))) },
  'file() with several statements': {
    expected: [[{ one: 1 }], [{ two: 2 }]],
    run: (sql) => sql.file(file('script.sql')),
  },
  'file() with parameters': {
    expected: [{ one: 5 }],
    run: async (sql) => plain(await sql.file(file('parameter.sql'), [5])),
  },
  'notify()': { expected: 1, run: async (sql) => (await sql.notify('somewhere', 'x')).length },
  'readable()': {
    expected: '1\n',
    run: async (sql) => {
      let text = ''
      for await (const chunk of await sql`copy (select 1) to stdout`.readable()) text += String(chunk)
      return text
    },
  },
  'CLOSE, END and PostgresError': {
    expected: true,
    run: async (sql) => (await rejection(sql`select 1/0`)) instanceof sql.PostgresError && sql.END === sql.CLOSE,
  },
}

/** Everything that can be run in a way that takes a minute, and how it looks to the server. */
const slow: Record<string, (sql: PostgresSql) => PromiseLike<unknown>> = {
  'the tag': (sql) => sql`select pg_sleep(60)`,
  'a prepared one': (sql) => sql`select pg_sleep(${60})`,
  'values()': (sql) => sql`select pg_sleep(60)`.values(),
  'raw()': (sql) => sql`select pg_sleep(60)`.raw(),
  'simple()': (sql) => sql`select 1; select pg_sleep(60)`.simple(),
  'forEach()': (sql) => sql`select pg_sleep(60)`.forEach(() => undefined),
  'cursor(), iterated': async (sql) => {
    for await (const _ of sql`select pg_sleep(60)`.cursor(2));
  },
  'cursor(), with a callback': (sql) => sql`select pg_sleep(60)`.cursor(2, () => undefined),
  'execute()': (sql) => sql`select pg_sleep(60)`.execute(),
  'unsafe()': (sql) => sql.unsafe('select pg_sleep(60)'),
  'unsafe() with parameters': (sql) => sql.unsafe('select pg_sleep($1)', [60]),
  'file()': (sql) => sql.file(file('slow.sql')),
  'after rows': (sql) => sql`select pg_sleep(case g when 3 then 60 else 0 end) from generate_series(1, 9) g`,
}

/** Every tag there is. */
const faces: Record<string, (pool: PostgresPool, run: (sql: PostgresSql) => PromiseLike<unknown>) => Promise<unknown>> =
  {
    'pool.sql': async (pool, run) => run(pool.sql),
    'pool.with().sql': async (pool, run) => run(pool.with({ timeoutMs: 60_000 }).sql),
    'pool.within()': (pool, run) => pool.within({ timeoutMs: 60_000 }, () => run(pool.sql)),
    'lease.sql': (pool, run) => pool.use((sql) => run(sql)),
    'the tag of a transaction': (pool, run) => pool.transaction((sql) => run(sql)),
    'pool.sql in a transaction': (pool, run) => pool.transaction(() => run(pool.sql)),
    'session.sql': async (pool, run) => {
      await using session = pool.session()
      const answer = await run(session.sql)
      await session.commit()
      return answer
    },
  }

describe('the whole surface of postgres.js', () => {
  for (const [face, use] of Object.entries(faces)) {
    test(`${face} answers everything, and gives every connection back`, async () => {
      const pool = poolFor(db, { max: 1 })
      for (const [name, { expected, run }] of Object.entries(surface)) {
        if (name.startsWith('CLOSE') && /transaction|session/.test(face)) continue
        // A temporary table needs one session.
        if (name === 'insert of objects' && /^pool\.(?:sql|with\(\)\.sql|within\(\))$/.test(face)) continue
        expect(await use(pool, run), name).toEqual(expected)
        await givenBack(db, pool)
      }
      expect(pool.stats().opens).toBe(1)
    })
  }

  test('an error shows where its query was made', async () => {
    const pool = poolFor(db)
    expect((await rejection(pool.sql`select nothing_like_it`)).stack).toContain('queries.test.ts')
    await pool.use(async (sql) => {
      expect((await rejection(sql`select nothing_like_it`)).stack).toContain('queries.test.ts')
    })
  })

  test('what the pool asks by itself is read by postgres.js’s own types, whatever the user’s are', async () => {
    const text = { to: 25, from: [25, 16, 23], serialize: String, parse }
    const pool = poolFor(db, { max: 2, types: { text }, target_session_attrs: 'primary', pingAfterIdleMs: 0 })
    expect((await pool.sql`select null::text as a, 1.5::float8 as b`)[0]).toEqual({ a: null, b: 1.5 })
    expect((await pool.sql`select array[7.5::float8] as a`)[0]).toEqual({ a: [7.5] })
    expect((await rejection(pool.sql`select 'x'::text`)).message).toBe('not for the pool')
    await pool.use((sql) => sql`set work_mem = '7MB'`)
    const unprintable = { toString: () => parse() } as unknown as string
    expect((await rejection(pool.transaction((sql) => sql.unsafe(unprintable)))).message).toBe('not for the pool')
  })

  test('debug hears of what the user sends, in whichever words, and of nothing that the pool asks by itself', async () => {
    const heard: [string, unknown[]][] = []
    const debug = (_: number, text: string, parameters: unknown[]): void => void heard.push([text, [...parameters]])
    const pool = poolFor(db, { max: 1, debug, pingAfterIdleMs: 0, target_session_attrs: 'primary', reset: 'full' })
    await pool.sql`select ${1}::int as a`
    await pool.transaction((sql) => sql.savepoint(() => pool.sql`select 2`), { isolation: 'serializable' })
    await pool.use((sql) => sql.unsafe('begin'))
    const listener = await pool.listen('debug', () => undefined)
    await listener.unlisten()
    await givenBack(db, pool)
    const words = heard.map(([text]) => text.replace(/millpond_\d+/, 'millpond_'))
    expect(heard[0]).toEqual(['select $1::int as a', [1]])
    expect(words.slice(1)).toEqual([
      'BEGIN ISOLATION LEVEL SERIALIZABLE',
      'SAVEPOINT millpond_',
      'select 2',
      'RELEASE SAVEPOINT millpond_',
      'COMMIT',
      'begin',
      'listen "debug"',
      'unlisten *',
    ])
  })

  test('a callback that throws fails its own query at most: forEach(), transform, debug', async () => {
    const mine = new Error('mine')
    const throws = (): never => {
      throw mine
    }
    const warned = vi.spyOn(process, 'emitWarning').mockImplementation(() => undefined)
    onTestFinished(() => warned.mockRestore())
    const pool = poolFor(db, { max: 1, debug: throws, onnotice: throws, transform: { row: { from: picky } } })
    function picky(row: postgres.Row): postgres.Row {
      return row['g'] === 2 ? throws() : row
    }
    const numbers = (): postgres.PendingQuery<postgres.Row[]> => pool.sql`select g from generate_series(1, 5) g`
    expect(await rejection(numbers())).toBe(mine)
    expect(await rejection(numbers().forEach(throws))).toBe(mine)
    expect(await rejection(pool.transaction(() => numbers().forEach(throws)))).toBe(mine)
    expect(await pool.transaction(async (sql) => plain(await sql`select 1 as one`))).toEqual([{ one: 1 }])
    await pool.sql.unsafe(`do $$ begin raise notice 'hello'; end $$`)
    expect(plain(await pool.sql`select 2 as two`)).toEqual([{ two: 2 }])
    expect(pool.stats().opens).toBe(1)
    const words = warned.mock.calls.map(([text]) => String(text))
    expect(new Set(words)).toEqual(new Set(['debug threw: Error: mine', 'onnotice threw: Error: mine']))
  })

  test('.stream() says what it is called now', () => {
    const pool = poolFor(db)
    expect(() => pool.sql`select 1`.stream(() => undefined)).toThrow('.forEach')
  })

  test('types of the pool’s own travel both ways', async () => {
    const point = {
      to: 600,
      from: [600],
      serialize: ({ x, y }: { x: number; y: number }) => `(${x},${y})`,
      parse: (text: string) => ({ x: Number(text.slice(1, 2)), y: Number(text.slice(3, 4)) }),
    }
    const pool = poolFor(db, { types: { point } })
    const { sql } = pool
    expect(plain(await sql`select ${sql.typed.point({ x: 1, y: 2 })} as p`)).toEqual([{ p: { x: 1, y: 2 } }])
    expect(plain(await sql`select ${sql.types.point({ x: 3, y: 4 })} as p`)).toEqual([{ p: { x: 3, y: 4 } }])
  })

  test('modifiers are refused once a query has been sent', async () => {
    const pool = poolFor(db, { max: 1 })
    const query = pool.sql`select 1 as one`
    await query
    for (const name of ['values', 'raw', 'simple', 'describe', 'cursor', 'forEach'] as const) {
      expect(() => query[name](() => undefined), name).toThrow(expect.objectContaining({ code: 'ERR_QUERY_SENT' }))
    }
    expect(plain(await pool.sql`select 2 as two`)).toEqual([{ two: 2 }])
  })

  test('an error after rows stays out of the next answer, whatever was sent', async () => {
    const pool = poolFor(db, { max: 1 })
    const { sql } = pool
    const text = 'select 1/(g-4) as x from generate_series(1, 5) g'
    const failing = [
      () => sql.unsafe(text),
      () => sql`select 1/(g-4) as x from generate_series(1, 5) g`,
      () => sql.unsafe(text).simple(),
      () => sql.unsafe(text).values(),
      () => sql.unsafe(text).raw(),
      () => sql.unsafe(text).forEach(() => undefined),
      () => sql.unsafe(text).cursor(2, () => undefined),
      () => sql.unsafe(`select 7; ${text}; select 8`),
    ]
    for (const run of failing) {
      expect((await rejection(run())).code).toBe('22012')
      const rows = await sql`select 1 as one`
      expect(plain(rows)).toEqual([{ one: 1 }])
      expect(rows.length).toBe(1)
      await givenBack(db, pool)
    }
    expect(pool.stats().opens).toBe(1)
  })
})

describe('everything that runs, ended', () => {
  for (const [name, run] of Object.entries(slow)) {
    test(`${name}: aborted, out of time, and its connection dead`, async () => {
      const clock = new FakeClock()
      const pool = poolFor(db, { max: 1, clock })
      const controller = new AbortController()
      const reason = new Error('the client has left')
      const aborted = rejection(run(pool.with({ signal: controller.signal }).sql))
      await runs(db, 'pg_sleep')
      controller.abort(reason)
      expect(await aborted).toBe(reason)
      await givenBack(db, pool)

      const late = rejection(run(pool.with({ timeoutMs: 500 }).sql))
      await runs(db, 'pg_sleep')
      await clock.advance(500)
      expect(await late).toMatchObject({ code: 'ERR_QUERY_TIMEOUT', phase: 'run', timeoutMs: 500, waitedMs: 500 })
      await givenBack(db, pool)
      expect(plain(await pool.sql`select 1 as one`)).toEqual([{ one: 1 }])
      expect(pool.stats().opens).toBe(1)

      const lost = rejection(run(pool.sql))
      await runs(db, 'pg_sleep')
      await kill(db)
      const error = await lost
      expect(error).toBeInstanceOf(ConnectionLostError)
      expect(error.cause).toMatchObject({ code: '57P01' })
      await givenBack(db, pool)
      expect(plain(await pool.sql`select 1 as one`)).toEqual([{ one: 1 }])
    })
  }

  test('cancel() ends a query in the queue, in a file, and on the server, and none that comes after', async () => {
    const pool = poolFor(db, { max: 1 })
    const lease = await pool.acquire()
    const queued = pool.sql`select 1`
    const errors = [rejection(queued)]
    await until(() => pool.stats().waiting === 1)
    queued.cancel()
    const read = pool.sql.file(file('one.sql')).execute()
    errors.push(rejection(read))
    await Promise.resolve()
    read.cancel()
    for (const error of await Promise.all(errors)) {
      expect(error).toBeInstanceOf(QueryCancelledError)
      expect(error).toBeInstanceOf(PoolError)
      expect(error.code).toBe('57014')
    }
    await until(() => pool.stats().waiting === 0)
    await lease.release()
    const running = pool.sql`select pg_sleep(60)`
    const ended = rejection(running)
    await runs(db, 'pg_sleep(60)')
    running.cancel()
    running.cancel()
    expect(await ended).toMatchObject({ name: 'PostgresError', code: '57014' })
    expect(plain(await pool.sql`select 2 as two`)).toEqual([{ two: 2 }])
    expect(pool.stats().opens).toBe(1)
  })
})

describe('PostgresPool.query()', () => {
  test('query() gives rows for texts with and without parameters, at once', async () => {
    const pool = poolFor(db, { max: 1 })
    const rows = await pool.query<{ a: number; b: string }>('select $1::int as a, $2::text as b', [1, 'x'])
    expect(plain(rows)).toEqual([{ a: 1, b: 'x' }])
    expect(rows.count).toBe(1)
    expect(rows.columns.map((column) => column.name)).toEqual(['a', 'b'])
    expect(await pool.query('select 1 as a; select 2 as b')).toEqual([[{ a: 1 }], [{ b: 2 }]])
    expect(plain(await pool.query('select any_of from unnest($1::int[]) any_of', [[3, 4]]))).toEqual([
      { any_of: 3 },
      { any_of: 4 },
    ])
    const asked = pool.query('select pg_sleep(60)')
    const cancelled = rejection(asked)
    await runs(db, 'pg_sleep(60)')
    await db.admin`select pg_cancel_backend(pid) from pg_stat_activity where datname = ${db.name}`
    expect((await cancelled).code).toBe('57014')
  })

  test('query() prepares its statement where it is asked to', async () => {
    const pool = poolFor(db, { max: 1 })
    const prepared = (): PromiseLike<number | undefined> =>
      pool.sql<
        { n: number }[]
      >`select count(*)::int as n from pg_prepared_statements where statement like 'select $1::int as kept'`.then(
        ([row]) => row?.n,
      )
    await pool.query('select $1::int as kept', [1])
    expect(await prepared()).toBe(0)
    await pool.query('select $1::int as kept', [1], { prepare: true })
    expect(await prepared()).toBe(1)
  })

  test('query() rejects as the tag does, and refuses options that it does not know', async () => {
    const pool = poolFor(db, { max: 1 })
    expect(await rejection(pool.query('select 1/0'))).toMatchObject({ name: 'PostgresError', code: '22012' })
    expect(await rejection(pool.query('select 1/0'))).toBeInstanceOf(pool.sql.PostgresError)
    const late = await rejection(pool.query('select pg_sleep(60)', [], { timeoutMs: 100 }))
    expect(late).toBeInstanceOf(QueryTimeoutError)
    const reason = new Error('gone')
    expect(await rejection(pool.query('select 1', [], { signal: AbortSignal.abort(reason) }))).toBe(reason)
    await expect(pool.query('select 1', [], { timeout: 1 } as never)).rejects.toMatchObject({ code: 'ERR_OPTION' })
    await expect(pool.query('select 1', [], { timeoutMs: 0 })).rejects.toMatchObject({ code: 'ERR_OPTION' })
  })

  test('query() belongs to the transaction that it is made in', async () => {
    const pool = poolFor(db, { max: 1 })
    await pool.sql`create table if not exists joined (a int)`
    await expect(
      pool.transaction(async () => {
        await pool.query('insert into joined values ($1)', [1])
        throw new Error('undo')
      }),
    ).rejects.toThrow('undo')
    expect(plain(await pool.query('select a from joined'))).toEqual([])
  })
})

test('100 mixed one-shots at once each get their own answer, and every connection is given back', async () => {
  const pool = poolFor(db, { max: 4 })
  const { sql } = pool
  await sql`create table if not exists mixed (a int)`
  const kinds: ((nonce: number) => Promise<unknown>)[] = [
    async (nonce) => (await sql`select ${nonce}::int as n`)[0]?.['n'] as unknown,
    async (nonce) => (await sql`select ${nonce}::int as n`.values())[0]?.[0] as unknown,
    async (nonce) => Number(String((await sql.unsafe(`select ${nonce}`).raw())[0]?.[0])),
    async (nonce) => (await sql.unsafe(`select 0 as n; select ${nonce} as n`))[1]?.['0' as never]?.['n'] as unknown,
    async (nonce) => (await pool.query<{ n: number }>('select $1::int as n', [nonce]))[0]?.n,
    async (nonce) => {
      const error = await rejection(sql`select 1/(g-3) from generate_series(1, 5) g where ${nonce}::int > 0`)
      return error.code === '22012' ? nonce : error
    },
    async (nonce) =>
      (await rejection(sql`select ${undefined as never}`)).code === 'UNDEFINED_VALUE' ? nonce : 'wrong',
    async (nonce) => {
      for await (const [row] of sql`select ${nonce}::int as n from generate_series(1, 9)`.cursor(2))
        return row?.['n'] as unknown
      return 'nothing'
    },
    async (nonce) => {
      let text = ''
      for await (const chunk of await sql.unsafe(`copy (select ${nonce}) to stdout`).readable()) text += String(chunk)
      return Number(text)
    },
    async (nonce) => {
      await pipeline(Readable.from([`${nonce}\n`]), await sql`copy mixed from stdin`.writable())
      return (await sql`select a from mixed where a = ${nonce}`)[0]?.['a'] as unknown
    },
    async (nonce) => {
      const query = sql`select ${nonce}::int as n, pg_sleep(0.002)`.execute()
      const answer = query.then(
        ([row]) => row?.['n'] as unknown,
        (error: unknown) => ((error as { code: string }).code === '57014' ? nonce : error),
      )
      setTimeout(() => query.cancel(), nonce % 5)
      return answer
    },
    async (nonce) => {
      const error = await rejection(pool.with({ timeoutMs: 1 + (nonce % 3) }).sql`select pg_sleep(1)`)
      return error instanceof QueryTimeoutError ? nonce : error
    },
  ]
  const nonces = Array.from({ length: 100 }, (_, i) => 1_000 + i)
  const answers = await Promise.all(nonces.map(async (nonce, i) => kinds[i % kinds.length]?.(nonce)))
  expect(answers).toEqual(nonces)
  await givenBack(db, pool)
  expect(pool.stats().opens).toBeLessThanOrEqual(4)
})

async function typed(pool: PostgresPool, sql: postgres.Sql): Promise<void> {
  type Row = { a: number; b: string | null }
  const rows = await pool.sql<Row[]>`select 1`
  expectTypeOf(rows).toEqualTypeOf(await sql<Row[]>`select 1`)
  expectTypeOf(rows[0]).toEqualTypeOf<Row | undefined>()
  expectTypeOf(await pool.sql`select 1`).toEqualTypeOf(await sql`select 1`)
  expectTypeOf(await pool.sql<Row[]>`select 1`.values()).toEqualTypeOf(await sql<Row[]>`select 1`.values())
  expectTypeOf(await pool.sql<Row[]>`select 1`.raw()).toEqualTypeOf(await sql<Row[]>`select 1`.raw())
  expectTypeOf(await pool.sql`select 1`.describe()).toEqualTypeOf<postgres.Statement>()
  expectTypeOf(await pool.sql.unsafe<Row[]>('')).toEqualTypeOf(await sql.unsafe<Row[]>(''))
  expectTypeOf(await pool.sql.file<Row[]>('')).toEqualTypeOf(await sql.file<Row[]>(''))
  for await (const portion of pool.sql<Row[]>`select 1`.cursor(2)) expectTypeOf(portion).toEqualTypeOf<Row[]>()
  expectTypeOf(await pool.query<Row>('')).toEqualTypeOf<postgres.RowList<Row[]>>()
  expectTypeOf(await pool.query('')).toEqualTypeOf<postgres.RowList<postgres.Row[]>>()
  const [one]: [Row?] = await pool.sql<[Row?]>`select 1`
  expectTypeOf(one).toEqualTypeOf<Row | undefined>()
  expectTypeOf(pool.with({ timeoutMs: 1 }).sql).toExtend<postgres.ISql>()
  expectTypeOf(await pool.within({ timeoutMs: 1 }, () => pool.sql<Row[]>`select 1`)).toEqualTypeOf(rows)
  expectTypeOf<typeof pool.sql>().toExtend<Pick<postgres.Sql, 'largeObject' | 'CLOSE' | 'END' | 'PostgresError'>>()
  expectTypeOf((await (await pool.sql.largeObject()).read(1))[0].data).toEqualTypeOf<Uint8Array>()
}

test('rows are typed as in postgres.js', () => {
  // The compiler is the judge.
  expect(typed).toBeTypeOf('function')
})
