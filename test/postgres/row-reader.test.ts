import fc from 'fast-check'
import plain from 'postgres'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { createPool } from '../../src/postgres/index.ts'
import type { PostgresPool, PostgresSql } from '../../src/postgres/index.ts'
import { builtInParsers } from '../../src/postgres/built-in-types.ts'
import { RawQuery } from '../../src/postgres/query.ts'
import { RowReader } from '../../src/postgres/row-reader.ts'
import { rejection } from '../support/connection.ts'
import { createDatabase } from '../support/database.ts'
import type { TestDatabase } from '../support/database.ts'

// Rows that the pool reads itself are those that postgres.js reads: cut into chunks in any way, and of a real server.

const text = 25
const integer = 23

function frameOf(values: readonly (string | null)[]): Buffer {
  const parts = values.map((value) => {
    const bytes = Buffer.from(value ?? '')
    const length = Buffer.alloc(4)
    length.writeInt32BE(value === null ? -1 : bytes.length)
    return Buffer.concat([length, bytes])
  })
  const body = Buffer.concat(parts)
  const head = Buffer.alloc(7)
  head.write('D', 'latin1')
  head.writeUInt32BE(body.length + 6, 1)
  head.writeUInt16BE(values.length, 5)
  return Buffer.concat([head, body])
}

function readerOf(types: readonly number[]): { reader: RowReader; query: RawQuery } {
  const query = new RawQuery(['select'], [], {}, undefined, undefined)
  const columns = types.map((type, i) => ({ name: `c${i}`, type, parser: builtInParsers()[type] }))
  query.statement = { columns }
  return { reader: new RowReader(query), query }
}

const never = (): never => {
  throw new Error('a row was refused')
}

describe('frames', () => {
  const rows = fc.array(
    fc.tuple(
      fc.option(fc.string({ unit: 'grapheme' })),
      fc.option(fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 })),
      fc.option(fc.boolean()),
    ),
    { maxLength: 20 },
  )

  test('are read the same however they are cut', () => {
    fc.assert(
      fc.property(rows, fc.array(fc.nat(400)), (sent, cuts) => {
        const { reader, query } = readerOf([text, integer, 16])
        const bytes = Buffer.concat(
          sent.map(([name, number, flag]) =>
            frameOf([name, number === null ? null : String(number + 0), flag === null ? null : flag ? 't' : 'f']),
          ),
        )
        const ends = [...new Set(cuts)].filter((cut) => cut > 0 && cut < bytes.length).toSorted((a, b) => a - b)
        let from = 0
        for (const end of [...ends, bytes.length]) {
          const chunk = bytes.subarray(from, end)
          expect(reader.read(chunk, 0, never)).toBe(chunk.length)
          from = end
        }
        expect(reader.midway).toBe(false)
        expect(query.rows).toEqual(sent.map(([c0, c1, c2]) => ({ c0, c1: c1 === null ? null : c1 + 0, c2 })))
      }),
    )
  })

  test('of other kinds are left, and the reading goes on behind them', () => {
    const { reader, query } = readerOf([integer])
    const done = Buffer.from('C\0\0\0\rSELECT 2\0', 'latin1')
    const chunk = Buffer.concat([frameOf(['1']), frameOf(['-2']), done])
    expect(reader.read(chunk, 0, never)).toBe(chunk.length - done.length)
    const more = Buffer.concat([done, frameOf(['3']).subarray(0, 3)])
    expect(reader.read(more, done.length, never)).toBe(more.length)
    expect(reader.midway).toBe(true)
    const last = Buffer.concat([frameOf(['3']).subarray(3), done])
    expect(reader.read(last, 0, never)).toBe(last.length - done.length)
    expect(query.rows).toEqual([{ c0: 1 }, { c0: -2 }, { c0: 3 }])
  })

  test('whose parser throws are handed over as they came', () => {
    const { reader, query } = readerOf([text])
    query.statement = {
      columns: [
        {
          name: 'c0',
          type: text,
          parser: (value: string) => {
            if (value === 'bad') throw new Error('bad value')
            return value
          },
        },
      ],
    }
    const refused: Buffer[] = []
    const chunk = Buffer.concat([frameOf(['good']), frameOf(['bad']), frameOf(['fine'])])
    expect(reader.read(chunk, 0, (row) => void refused.push(row))).toBe(chunk.length)
    expect(refused).toEqual([frameOf(['bad'])])
    expect(query.rows).toEqual([{ c0: 'good' }, { c0: 'fine' }])
  })
})

type Ask = (sql: PostgresSql | plain.Sql) => PromiseLike<unknown>

const asks: Readonly<Record<string, Ask>> = {
  numbers: (sql) => sql`
    select 0::int2, (-32768)::int2 as b, 2147483647::int4 as c, (-2147483648)::int4 as d, 4294967295::oid as e,
      9007199254740993::int8 as f, 1.5::float4 as g, '-infinity'::float8 as h, 'NaN'::float8 as i, 1.10::numeric as j,
      ${1}::int as k`,
  'flags, texts, bytes': (sql) => sql`
    select true as t, false as f, ''::text as empty, ${'žluťoučký 🐎'}::text as wide, 'a'::"char" as one,
      'bc'::char(4) as four, '\\xdeadbeef'::bytea as bytes, gen_random_uuid()::text <> '' as some`,
  nulls: (sql) => sql`select null::int as a, null::text as b, null::bool as c, null::int[] as d, ${null}::json as e`,
  'times and json': (sql) => sql`
    select '2020-02-29 12:00:00.123+02'::timestamptz as a, '2020-02-29'::date as b, '12:00'::time as c,
      '{"a": [1, null, "x"]}'::json as d, '{"b": {}}'::jsonb as e, ${'1 day'}::interval as f`,
  arrays: (sql) => sql`
    select '{1,-2}'::int[] as a, '{{"x,y",z},{"",w}}'::text[] as b, '{}'::int8[] as c, '{t,f}'::bool[] as d,
      ${[1, 2]}::int[] as e`,
  'columns of the same name, and of dangerous ones': (sql) => sql`
    select 1 as x, 'second' as x, 'p' as "__proto__", 2 as "constructor", ${3}::int as "toString"`,
  'no columns': (sql) => sql`select from generate_series(1, ${3}::int)`,
  'no rows': (sql) => sql`select 1 as a where ${false}::bool`,
  'many rows': (sql) => sql`select i, -i as j, repeat('x', i) as t from generate_series(1, ${700}::int) i`,
  'rows that are longer than a chunk': (sql) => sql`
    select i, repeat(chr(960), ${300_000}::int) as t, i as after from generate_series(1, 3) i`,
  values: (sql) => sql`select 1, 'a', null, ${true}::bool, 1 as x, 2 as x from generate_series(1, 2)`.values(),
  'no parameters': (sql) => sql`select 1 as one, 'b' as two`,
  returning: (sql) => sql`
    with rows as (select * from generate_series(1, ${4}::int) i) select i * i as square from rows order by i desc`,
  'a text with parameters': (sql) => sql.unsafe('select $1::int as a, $2::text as b', [7, 'seven']),
  'a text that is prepared': (sql) => sql.unsafe('select $1::int as a', [7], { prepare: true }),
  'several statements': (sql) => sql.unsafe('select 1 as a; select 2 as b, true as c'),
  raw: (sql) => sql`select 1 as a, ${'x'}::text as b`.raw(),
  described: async (sql) => (await sql`select 1 as a, ${'x'}::text as b`.describe()).columns.map(({ name }) => name),
  'one by one': async (sql) => {
    const seen: unknown[] = []
    await sql`select i from generate_series(1, ${3}::int) i`.forEach((row) => void seen.push({ ...row }))
    return seen
  },
  'in portions': async (sql) => {
    const seen: unknown[] = []
    for await (const rows of sql`select i from generate_series(1, ${5}::int) i`.cursor(2)) seen.push([...rows])
    return seen
  },
}

function whole(answer: unknown): unknown {
  if (!Array.isArray(answer)) return answer
  const { count, command, columns } = answer as unknown as Record<string, unknown>
  const rows = answer as unknown[]
  const names = Array.isArray(columns)
    ? (columns as { name: string; type: number }[]).map(({ name, type }) => [name, type])
    : columns
  return { rows: [...rows], keys: rows.map((row) => Object.keys(row as object)), count, command, names }
}

const askForTwoTypes: Ask = (sql) => sql`select 'a'::text as some_text, ${1}::int as some_number`

describe('a real server', () => {
  let db: TestDatabase
  let pool: PostgresPool
  let peer: plain.Sql
  beforeAll(async () => {
    db = await createDatabase()
    pool = createPool(db.url, { max: 2 })
    peer = plain(db.url, { max: 1 })
  })
  afterAll(async () => {
    await pool.close()
    await peer.end()
    await db.drop()
  })

  for (const [name, ask] of Object.entries(asks)) {
    test(`${name}: what postgres.js answers`, async () => {
      const expected = whole(await ask(peer))
      expect(whole(await ask(pool.sql))).toEqual(expected)
      // As a statement that the session has prepared, and inside of a transaction.
      expect(whole(await ask(pool.sql))).toEqual(expected)
      expect(whole(await pool.transaction(async (sql) => await ask(sql)))).toEqual(expected)
    })
  }

  test('transformations and types of the user’s own', async () => {
    const options = {
      transform: { ...plain.camel, undefined: null },
      types: { shout: { to: 25, from: [25], serialize: String, parse: (value: string) => `${value}!` } },
    }
    const row = { transform: { row: (value: object) => ({ wrapped: { ...value } }), value: (x: unknown) => [x] } }
    for (const of of [options, row] as const) {
      const ours = createPool(db.url, { max: 1, ...of })
      const theirs = plain(db.url, { max: 1, ...of })
      expect(whole(await askForTwoTypes(ours.sql))).toEqual(whole(await askForTwoTypes(theirs)))
      await ours.close()
      await theirs.end()
    }
  })

  test('a parser that throws fails its query, and no other', async () => {
    const types = {
      picky: {
        to: 25,
        from: [25],
        serialize: String,
        parse: (value: string) => {
          if (value === '3') throw new Error('three')
          return value
        },
      },
    }
    const ours = createPool(db.url, { max: 1, types })
    const asked = ours.sql`select i::text as t from generate_series(1, ${5}::int) i`
    const after = ours.sql`select i::text as t from generate_series(1, ${2}::int) i`
    expect(await rejection(asked)).toMatchObject({ message: 'three' })
    expect([...(await after)]).toEqual([{ t: '1' }, { t: '2' }])
    expect(ours.stats().open).toBe(1)
    await ours.close()
  })

  test('an error after rows takes them along; the next answer has no holes', async () => {
    const failing = pool.sql`select 10 / (5 - i) as q from generate_series(1, ${9}::int) i`
    expect(await rejection(failing)).toMatchObject({ code: '22012' })
    expect([...(await pool.sql`select i from generate_series(1, ${2}::int) i`)]).toEqual([{ i: 1 }, { i: 2 }])
  })

  test('a statement that is sent a second time answers once', async () => {
    const own = createPool(db.url, { max: 1 })
    await own.sql`create table changing (a int)`
    await own.sql`insert into changing values (1), (2)`
    const ask = (): PromiseLike<readonly unknown[]> => own.sql`select * from changing where a > ${0} order by a`
    expect([...(await ask())]).toEqual([{ a: 1 }, { a: 2 }])
    await own.sql`alter table changing add column b text default 'new'`
    expect([...(await ask())]).toEqual([
      { a: 1, b: 'new' },
      { a: 2, b: 'new' },
    ])
    await own.close()
  })
})
