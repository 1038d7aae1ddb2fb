import { randomUUID } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import plain from 'postgres'
import { afterAll, beforeAll, describe, expect, onTestFinished, test, vi } from 'vitest'
import dropIn, { createPool } from '../../src/postgres/index.ts'
import { ConnectError } from '../../src/errors.ts'
import { dropInOptions } from '../../src/postgres/drop-in-options.ts'
import { rejection, tcpServer } from '../support/connection.ts'
import { createDatabase, until } from '../support/database.ts'
import type { TestDatabase } from '../support/database.ts'
import { createRole } from '../support/role.ts'
import { authenticated, authentication, challenge, message, offer, scriptedServer } from '../support/scripted-server.ts'

type Postgres = typeof plain
type Options = NonNullable<Parameters<typeof dropIn>[1]>

let db: TestDatabase
let folder: string
beforeAll(async () => {
  db = await createDatabase()
  folder = mkdtempSync(join(tmpdir(), 'drop-in-'))
  writeFileSync(join(folder, 'select.sql'), 'select 7 as seven')
  writeFileSync(join(folder, 'parameters.sql'), 'select $1 as a, $2 as b')
})
afterAll(async () => {
  rmSync(folder, { recursive: true, force: true })
  await db.drop()
})

function make(options: Options = {}): plain.Sql {
  const sql = dropIn(db.url, options)
  onTestFinished(() => sql.end({ timeout: 0 }))
  return sql
}

/** What a call came to, as far as it can be compared. */
async function outcome(call: () => unknown): Promise<unknown> {
  try {
    return { value: strip(await call()) }
  } catch (error) {
    const { code, name } = error as Error & { code?: string }
    return { code, name: code === undefined ? name : undefined }
  }
}

/** Rows without what differs from run to run. */
function strip(value: unknown): unknown {
  if (!Array.isArray(value)) return value
  const { count, command, columns } = value as unknown as plain.RowList<plain.Row[]>
  const shown = columns?.map?.(({ name, type }) => ({ name, type }))
  return { rows: [...(value as unknown[])].map(strip), count, command, columns: shown }
}

const runs = (text: string): Promise<void> =>
  until(async () => (await db.sessions()).some((s) => s.state === 'active' && s.query.includes(text)), text)

async function kill(text: string): Promise<void> {
  await runs(text)
  await db.admin`select pg_terminate_backend(pid) from pg_stat_activity where datname = ${db.name} and query like ${`%${text}%`} and pid <> pg_backend_pid()`
}

interface Case {
  /** The part of postgres.js's README that it is about. */
  readonly about: string
  /** On instances of its own. */
  readonly options?: plain.Options<{}>
  readonly run: (sql: plain.Sql, postgres: Postgres) => unknown
}

async function described(query: plain.PendingQuery<plain.Row[]>): Promise<unknown> {
  const { types, columns } = await query.describe()
  return [types, columns.map(({ name, type }) => [name, type])]
}

const people = (sql: plain.ISql): plain.Fragment => sql`(values ('Murray', 68), ('Walter', 80)) as people (name, age)`

/** Each runs on both; what they come to has to be the same. */
const cases: readonly Case[] = [
  // ── Queries ──
  { about: 'a query', run: (sql) => sql`select name, age from ${people(sql)} where age > ${70}` },
  { about: 'a query without rows', run: (sql) => sql`select 1 as one where false` },
  {
    about: 'parameters',
    run: (sql) => sql`select ${'Mur'} || '%' as a, ${60}::int as b, ${null} as c, ${true}::bool as d`,
  },
  { about: 'dates', run: (sql) => sql`select ${new Date(0)}::timestamptz as at, '2020-01-02'::date as d` },
  { about: 'bytes', run: (sql) => sql`select ${Buffer.from([1, 2, 255])}::bytea as b` },
  { about: 'json', run: (sql) => sql`select ${sql.json({ a: [1, 'b'] })} as j, ${sql.json('x')} as k` },
  { about: 'json by its type', run: (sql) => sql`select ${{ a: 1 } as never}::jsonb as j` },
  {
    about: 'arrays',
    run: async (sql) => {
      // On a connection that is not there yet, postgres.js does not know the types of arrays when the query is made.
      await sql`select 1`
      return sql`select ${sql.array([1, 2, 3])} as a, ${['x', 'y,"z']}::text[] as b`
    },
  },
  {
    about: 'arrays of arrays',
    run: (sql) =>
      sql`select ${
        [
          [1, 2],
          [3, 4],
        ] as never
      }::int[][] as a`,
  },
  { about: 'numbers', run: (sql) => sql`select 1::int2 as a, 2::int8 as b, 1.5::numeric as c, 2.5::float8 as d` },
  { about: 'dynamic columns', run: (sql) => sql`select ${sql(['name', 'age'])} from ${people(sql)}` },
  { about: 'dynamic values', run: (sql) => sql`select * from (values ${sql(['a', 'b', 'c'])}) as x (a, b, c)` },
  { about: 'where in', run: (sql) => sql`select name from ${people(sql)} where age in ${sql([68, 75])}` },
  {
    about: 'inserts and updates from objects',
    run: (sql) =>
      sql.begin(async (t) => {
        await t`create temp table u (id int, name text, age int)`
        const inserted = await t`insert into u ${t(
          [
            { id: 1, name: 'A', age: 2 },
            { id: 2, name: 'B', age: 3 },
          ],
          'id',
          'name',
        )} returning *`
        const updated = await t`update u set ${t({ name: 'C', age: 9 }, ['age'])} where id = 1 returning *`
        const several = await t`
          update u set name = d.name from (values ${t([
            ['1', 'X'],
            ['2', 'Y'],
          ])}) as d (id, name) where u.id = d.id::int
          returning u.id, u.name`
        const { count } = await t`delete from u`
        return [strip(inserted), strip(updated), strip(several), count]
      }),
  },
  {
    about: 'every way to name the columns of inserts and updates',
    run: (sql) =>
      sql.begin(async (t) => {
        await t`create temp table w (name text, age int)`
        const [ann, bob] = [
          { name: 'Ann', age: 1 },
          { name: 'Bob', age: 2 },
        ] as const
        const columns = ['name', 'age'] as const
        await t`insert into w ${t(ann, 'name', 'age')}`
        await t`insert into w ${t(ann, columns)}`
        await t`insert into w ${t(ann)}`
        await t`insert into w ${t([ann, bob])}`
        await t`insert into w ${t([ann, bob], 'age')}`
        await t`update w set ${t({ name: 'Eve', age: 3 }, 'name', 'age')} where age = 1`
        await t`update w set ${t({ name: 'Joe', age: 4 })} where age = 2 and name is null`
        return t`select ${t('name', 'age')}, count(*) from w group by name, age order by 1, 2`
      }),
  },
  // ── Building queries ──
  {
    about: 'fragments',
    run: (sql) => sql`select name from ${people(sql)} where true ${sql`and age > ${70}`} ${sql``}`,
  },
  {
    about: 'lists of fragments',
    run: (sql) =>
      sql`select name from ${people(sql)} order by ${['age', 'name'].map((c, i) => sql`${i ? sql`,` : sql``} ${sql(c)} desc`)}`,
  },
  {
    about: 'lists of fragments in fragments',
    run: (sql) =>
      sql`select name from ${people(sql)} order by ${Object.entries({ age: 'asc', name: 'desc' }).flatMap(
        ([column, order], i) => [i ? sql`,` : sql``, sql`${sql(column)} ${order === 'desc' ? sql`desc` : sql`asc`}`],
      )}`,
  },
  {
    about: 'a value or a fragment',
    run: (sql) => sql`select ${[null, 'y'].map((value) => value ?? sql`upper('x')`)[0] ?? null} as a`,
  },
  { about: 'functions in place of values', run: (sql) => sql`select ${sql`upper('a')`} as a` },
  { about: 'names', run: (sql) => sql`select ${sql('x.a')} from (select 1 as a) as ${sql('x')}` },
  // ── Advanced methods ──
  {
    about: 'a cursor with a callback',
    options: {},
    run: async (sql) => {
      const seen: unknown[] = []
      await sql`select * from generate_series(1,4) as x`.cursor(([row]) => void seen.push(row))
      await sql`select * from generate_series(1,5) as x`.cursor(2, (rows) => void seen.push(rows.length))
      await sql`select * from generate_series(1,9) as x`.cursor(
        (rows) => (seen.push(rows[0]), seen.length > 9 ? sql.CLOSE : undefined) as never,
      )
      return seen
    },
  },
  {
    about: 'an error in the callback of a cursor',
    options: {},
    run: (sql) =>
      sql`select * from generate_series(1,4) as x`.cursor(
        () => Promise.reject(Object.assign(new Error('mine'), { code: 'MINE' })) as never,
      ),
  },
  {
    about: 'a cursor as an iterable',
    options: {},
    run: async (sql) => {
      const seen: unknown[] = []
      for await (const rows of sql`select * from generate_series(1,5) as x`.cursor(2))
        seen.push(rows.map((row) => row['x'] as unknown))
      for await (const [row] of sql`select * from generate_series(1,5) as x`.cursor()) {
        seen.push(row)
        break
      }
      return seen
    },
  },
  {
    about: 'forEach',
    run: async (sql) => {
      const seen: unknown[] = []
      const { count } = await sql`select x from generate_series(1,3) as x`.forEach((row) => void seen.push(row))
      return [seen, count]
    },
  },
  {
    about: 'describe',
    run: async (sql) => {
      const { string, types, columns } = await sql`select ${1}::int as a, ${'x'}::text as b`.describe()
      return { string, types, columns: columns.map(({ name, type }) => ({ name, type })) }
    },
  },
  { about: 'values', run: (sql) => sql`select 1 as a, 2 as a`.values() },
  {
    about: 'the parsers of columns',
    run: async (sql) => {
      const { columns } = await sql`select 1::int as a, now() as b, '{}'::json as c`.values()
      return columns.map(({ parser }) => typeof parser)
    },
  },
  { about: 'raw', run: async (sql) => (await sql`select 1 as a, 'x' as b`.raw()).map((row) => row.map(String)) },
  { about: 'a file', run: (sql) => sql.file(join(folder, 'select.sql')) },
  { about: 'a file with parameters', run: (sql) => sql.file(join(folder, 'parameters.sql'), ['x', 'y']) },
  { about: 'a file by its URL', run: (sql) => sql.file(pathToFileURL(join(folder, 'select.sql'))) },
  { about: 'a file with options', run: (sql) => sql.file(join(folder, 'select.sql'), { cache: false }) },
  { about: 'a file that is not there', run: (sql) => sql.file(join(folder, 'nothing.sql')) },
  { about: 'several statements', run: (sql) => sql`select 1 as a; select 2 as b`.simple() },
  {
    about: 'COPY from and to',
    run: (sql) =>
      sql.begin(async (t) => {
        await t`create temp table c (name text, age int)`
        await pipeline(
          Readable.from(['Murray\t68\n', 'Walter\t80\n']),
          await t`copy c (name, age) from stdin`.writable(),
        )
        let text = ''
        for await (const chunk of await t`copy c to stdout`.readable()) text += String(chunk)
        return text
      }),
  },
  {
    about: 'cancelling what runs',
    options: {},
    run: async (sql) => {
      const query = sql`select pg_sleep(30)`.execute()
      const cancelled = outcome(() => query)
      await runs('pg_sleep(30)')
      query.cancel()
      return cancelled
    },
  },
  { about: 'execute', run: (sql) => sql`select 1 as a`.execute() },
  { about: 'unsafe', run: (sql) => sql.unsafe('select 1 as a') },
  {
    about: 'unsafe with parameters',
    run: (sql) => sql.unsafe('select $1::int + $2::int as sum', [1, 2], { prepare: true }),
  },
  { about: 'unsafe with several statements', run: (sql) => sql.unsafe('select 1 as a; select 2 as b') },
  { about: 'unsafe inside of a query', run: (sql) => sql`select ${sql.unsafe('1 + 1')} as two` },
  // ── Transactions ──
  { about: 'begin', run: (sql) => sql.begin(async (t) => [(await t`select 1 as a`)[0], (await t`select 2 as b`)[0]]) },
  {
    about: 'begin with options',
    run: (sql) =>
      sql.begin(
        'isolation level serializable read only',
        (t) => t`select current_setting('transaction_isolation') as i, current_setting('transaction_read_only') as r`,
      ),
  },
  {
    about: 'begin with an array',
    run: async (sql) => (await sql.begin((t) => [t`select 1 as a`, t`select 2 as b`])).map(strip),
  },
  { about: 'begin with what is no option', run: (sql) => sql.begin('wat', (t) => t`select 1`).catch(() => 'refused') },
  {
    about: 'prepare transaction',
    run: (sql) =>
      sql.begin(async (t) => {
        await t`select 1`
        await t.prepare('tx1')
      }),
  },
  {
    about: 'begin that throws',
    run: (sql) => sql.begin(() => Promise.reject(Object.assign(new Error('mine'), { code: 'MINE' }))),
  },
  {
    about: 'begin with a failed statement',
    run: (sql) => sql.begin(async (t) => void (await t`select nothing`.catch(() => undefined))),
  },
  { about: 'begin with a failed array', run: (sql) => sql.begin((t) => [t`select wat`, t`select ${1} as a`]) },
  {
    about: 'savepoint',
    run: (sql) =>
      sql.begin(async (t) => {
        await t`create temp table s (a int)`
        await t.savepoint((s) => s`insert into s values (1)`)
        await t.savepoint('named', (s) => s`insert into s values (2)`)
        const caught = await outcome(() =>
          t.savepoint(async (s) => [await s`insert into s values (3)`, await s`select wat`]),
        )
        const array = await t.savepoint((s) => [s`select 1 as a`, s`select 2 as a`])
        return [strip(await t`select a from s order by a`), caught, array.map(strip)]
      }),
  },
  {
    about: 'savepoint as a tag',
    run: (sql) =>
      sql.begin(
        (t) => (t.savepoint as unknown as plain.ISql)`select 7 as seven` as Promise<plain.RowList<plain.Row[]>>,
      ),
  },
  {
    about: 'the outer tag is outside of the transaction',
    run: (sql) =>
      sql.begin(
        async (t) =>
          (await t`select pg_backend_pid() as p`)[0]?.['p'] !== (await sql`select pg_backend_pid() as p`)[0]?.['p'],
      ),
  },
  // ── Transformation ──
  ...(['camel', 'pascal', 'kebab', 'toCamel', 'toPascal', 'toKebab'] as const).map((name): Case => ({
    about: `transform: ${name}`,
    options: { transform: plain[name] },
    run: (sql) => sql`select 1 as a_test, ${sql('b_test')} from (select 2 as b_test) as x`,
  })),
  {
    about: 'transform: fromCamel',
    options: { transform: plain.fromCamel },
    run: (sql) => sql`select ${sql('aTest')} from (select 2 as a_test) as x`,
  },
  { about: 'undefined is refused', run: (sql) => sql`select ${undefined as never} as a` },
  {
    about: 'undefined as null',
    options: { transform: { undefined: null } },
    run: (sql) => sql`select ${undefined as never} as a`,
  },
  {
    about: 'transform: own functions',
    options: {
      transform: {
        column: { from: (name) => `c_${name}` },
        value: { from: (value) => [value] },
        row: { from: (row) => ({ ...row, more: 1 }) },
      },
    },
    run: (sql) => sql`select 1 as a`,
  },
  {
    about: 'transform: there and back, with null for undefined',
    options: { transform: { ...plain.camel, undefined: null } },
    run: (sql) =>
      sql.begin(async (t) => {
        await t`create temp table camel (a_test int, b_test text)`
        await t`insert into camel ${t([{ aTest: 1, bTest: undefined } as never, { aTest: 2, bTest: 'x' } as never])}`
        return t`select ${t('aTest', 'bTest')}, b_test is null as b_none from camel`
      }),
  },
  {
    about: 'transform: a function for each, in place of from and to',
    options: {
      transform: {
        column: (name: string) => name.toUpperCase(),
        value: (value: unknown) => `<${String(value)}>`,
        row: (row: object) => Object.keys(row).length,
      },
    },
    run: (sql) => sql`select 1 as a, 2 as b`,
  },
  {
    about: 'transform: json from another case',
    options: { transform: plain.camel },
    run: (sql) => sql`select '{"a_test": {"b_test": [{"c_test": 1}]}}'::json as j`,
  },
  // ── Types ──
  {
    about: 'BigInt',
    options: { types: { bigint: plain.BigInt } },
    run: (sql) =>
      sql`select 9007199254740993::int8 as big, ${(sql.types as unknown as { bigint(x: bigint): never }).bigint(9007199254740995n)} as b`,
  },
  {
    about: 'own types',
    options: {
      types: {
        point: {
          to: 600,
          from: [600],
          serialize: ([x, y]: number[]) => `(${x},${y})`,
          parse: (text: string) => text.slice(1, -1).split(',').map(Number),
        },
      },
    },
    run: (sql) =>
      sql`select ${(sql.typed as unknown as { point(x: number[]): never }).point([1, 2])} as p, ${sql.typed('(3,4)', 600)} as q`,
  },
  {
    about: 'types set later',
    options: {},
    run: async (sql) => {
      await sql`select 1`
      sql.options.parsers[1082] = (text: string) => `day ${text}`
      return sql`select '2020-01-02'::date as d`
    },
  },
  // ── Results ──
  {
    about: 'results',
    run: async (sql) => {
      const result = await sql`select 1 as a`
      const { state, statement } = result
      return [typeof state.pid, typeof state.secret, statement.string, statement.types, JSON.stringify(result)]
    },
  },
  // ── Errors ──
  { about: 'a server error', run: (sql) => sql`select 1/0` },
  {
    about: 'a server error has its query',
    run: async (sql) => {
      const error = (await sql`select ${1}::int / 0`.catch((e: unknown) => e)) as plain.PostgresError
      return [
        error instanceof sql.PostgresError,
        error.name,
        error.query,
        error.parameters,
        Object.keys(error).includes('query'),
      ]
    },
  },
  {
    about: 'the same with debug',
    options: { debug: true },
    run: async (sql) => {
      const error = (await sql`select ${1}::int / 0`.catch((e: unknown) => e)) as plain.PostgresError
      return Object.keys(error).includes('query')
    },
  },
  { about: 'a raw BEGIN', run: (sql) => sql`begin` },
  { about: 'a raw BEGIN among others', run: (sql) => sql.unsafe('begin; select 1') },
  { about: 'not tagged', run: (sql) => (sql as unknown as (text: string) => Promise<unknown>)('select 1') },
  {
    about: 'too many parameters',
    run: (sql) => sql`select * from (values ${sql(Array.from({ length: 65_535 }, (_, i) => i))}) as x`,
  },
  { about: 'a wrong password', options: { password: 'wrong' }, run: (sql) => sql`select 1` },
  {
    about: 'a wrong password of a transaction',
    options: { password: 'wrong' },
    run: (sql) => sql.begin((t) => t`select 1`),
  },
  {
    about: 'a password that rejects, as one that is wrong',
    options: { password: () => Promise.resolve('wrong') },
    run: (sql) => sql`select 1`,
  },
  { about: 'no such database', options: { database: 'nothing_here' }, run: (sql) => sql`select 1` },
  {
    about: 'a parameter that the server refuses',
    options: { connection: { nothing_here: 1 } },
    run: (sql) => sql`select 1`,
  },
  { about: 'nothing listens', options: { host: '127.0.0.1', port: 1 }, run: (sql) => sql`select 1` },
  { about: 'no such name', options: { host: 'nowhere.invalid' }, run: (sql) => sql`select 1` },
  // ── Options ──
  {
    about: 'max 1 is one session',
    options: { max: 1 },
    run: async (sql) => {
      await sql`set statement_timeout = '7s'`
      await sql`create temp table mine (a int)`
      await sql`begin`
      await sql`insert into mine values (1)`
      await sql`rollback`
      return [strip(await sql`show statement_timeout`), (await sql`select count(*) from mine`)[0]]
    },
  },
  {
    about: 'names of options',
    options: { hostname: '127.0.0.1', username: 'nobody_here', pass: 'x', db: 'postgres' },
    run: (sql) => sql`select 1`,
  },
  {
    about: 'empty options',
    options: { host: '', path: '', database: '', username: '', password: '' },
    run: (sql) => sql`select current_database() <> '' as there`,
  },
  {
    about: 'connection',
    options: { connection: { search_path: 'pg_catalog', TimeZone: 'Asia/Tokyo', statement_timeout: 4_000 } },
    run: (sql) =>
      sql`select current_setting('search_path') as a, current_setting('TimeZone') as b, current_setting('statement_timeout') as c`,
  },
  {
    about: 'prepare: false',
    options: { prepare: false },
    run: async (sql) => [
      strip(await sql`select ${1}::int as a`),
      strip(await sql`select name from pg_prepared_statements`),
    ],
  },
  {
    about: 'no_prepare',
    options: { no_prepare: true },
    run: async (sql) => [
      strip(await sql`select ${1}::int as a`),
      strip(await sql`select name from pg_prepared_statements`),
    ],
  },
  {
    about: 'prepared statements are kept, but for those of unsafe()',
    options: { max: 1, fetch_types: false },
    run: async (sql) => {
      for (let i = 0; i < 3; i++) await sql`select ${i}::int as kept`
      for (let i = 0; i < 3; i++) await sql.unsafe('select $1::int as left', [i])
      return (await sql`select statement from pg_prepared_statements where statement not like '%pg_prepared%'`).map(
        (row) => row['statement'] as unknown,
      )
    },
  },
  {
    about: 'several hosts, of which the first does not answer',
    run: async (_, postgres) => {
      const { host, port } = db.server
      const other = postgres(db.url.replace(`${host}:${port}`, `${host}:1,${host}:${port}`), { max: 1 })
      const rows = strip(await other`select 1 as one`)
      await other.end()
      return rows
    },
  },
  {
    about: 'target_session_attrs',
    options: { target_session_attrs: 'read-write' },
    run: (sql) => sql`select current_setting('transaction_read_only') as r`,
  },
  {
    about: 'target_session_attrs in the URL that is none',
    run: (_, postgres) => {
      try {
        return typeof postgres(`${db.url}?target_session_attrs=master`)
      } catch (error) {
        return (error as Error).message.includes('target_session_attrs')
      }
    },
  },
  {
    about: 'path',
    run: async (_, postgres) => {
      const { socketDirectory, port, user, password } = db.server
      const path = `${socketDirectory}/.s.PGSQL.${port}`
      const other = postgres({ path, database: db.name, user, password, max: 1 })
      const rows = strip(await other`select inet_client_addr() is null as socket`)
      await other.end()
      return rows
    },
  },
  {
    about: 'a directory as the host',
    run: async (_, postgres) => {
      const { socketDirectory: host, port, user, password } = db.server
      const other = postgres({ host, port, database: db.name, user, password, max: 1 })
      const rows = strip(await other`select inet_client_addr() is null as socket`)
      await other.end()
      return rows
    },
  },
  {
    about: 'a password that is fetched for each connection',
    run: async (_, postgres) => {
      let asked = 0
      const password = async (): Promise<string> => {
        asked++
        return db.server.password
      }
      const other = postgres(db.url.replace(`:${db.server.password}@`, '@'), { max: 2, password, fetch_types: false })
      await Promise.all([other`select pg_sleep(0.1)`, other`select pg_sleep(0.1)`])
      await other.end()
      return asked
    },
  },
  {
    about: 'parameters of the session in the URL',
    run: async (_, postgres) => {
      const other = postgres(`${db.url}?statement_timeout=7000&application_name=mine&prepare=false&sslmode=prefer`)
      const [row] = await other`
        select current_setting('statement_timeout') as t, current_setting('application_name') like 'mine%' as n,
          (select count(*) from pg_prepared_statements) as p`
      await other.end()
      return row
    },
  },
  {
    about: 'a parameter in the URL that the server does not know',
    run: async (_, postgres) => {
      const other = postgres(`${db.url}?nothing_here=5`, { max: 1 })
      const came = await outcome(() => other`select 1`)
      await other.end({ timeout: 0 })
      return came
    },
  },
  {
    about: 'connections are opened as they are needed, up to max',
    run: async (_, postgres) => {
      const pids = new Set<unknown>()
      const other = postgres(db.url, { max: 2, fetch_types: false })
      const ask = async (): Promise<unknown> =>
        pids.add((await other`select pg_backend_pid() as p, pg_sleep(0.05)`)[0]?.['p'])
      await ask()
      await ask()
      const first = pids.size
      await Promise.all([ask(), ask(), ask(), ask()])
      await other.end()
      return [first, pids.size]
    },
  },
  {
    about: 'idle_timeout',
    run: async (_, postgres) => {
      const name = `idle ${randomUUID().slice(0, 8)}`
      const other = postgres(db.url, { max: 1, idle_timeout: 0.1, connection: { application_name: name } })
      await other`select 1`
      const there = async (): Promise<number> => (await db.sessions()).filter((s) => s.name.startsWith(name)).length
      const before = await there()
      await until(async () => (await there()) === 0)
      const rows = strip(await other`select 1 as one`)
      await other.end()
      return [before, rows]
    },
  },
  {
    about: 'max_lifetime',
    run: async (_, postgres) => {
      const other = postgres(db.url, { max: 1, max_lifetime: 0.2 })
      const pid = async (): Promise<unknown> => (await other`select pg_backend_pid() as p`)[0]?.['p']
      const first = await pid()
      await until(async () => (await pid()) !== first)
      await other.end()
      return 'another one'
    },
  },
  { about: 'fetch_types: false', options: { fetch_types: false }, run: (sql) => sql`select '{1,2}'::int[] as a` },
  {
    about: 'onparameter',
    run: async (_, postgres) => {
      const seen = new Set<string>()
      const other = postgres(db.url, { max: 1, onparameter: (key: string) => void seen.add(key) })
      await other`select 1`
      const { parameters } = other
      await other.end()
      return [[...seen].toSorted(), parameters['TimeZone'], parameters['server_version']]
    },
  },
  {
    about: 'onnotice',
    run: async (_, postgres) => {
      const seen: unknown[] = []
      const other = postgres(db.url, {
        max: 1,
        onnotice: (notice) => void seen.push([notice['severity'], notice['message']]),
      })
      await other.unsafe(`do $$ begin raise notice 'hello'; end $$`)
      await other.end()
      return seen
    },
  },
  {
    about: 'debug',
    run: async (_, postgres) => {
      const seen: unknown[] = []
      const other = postgres(db.url, {
        max: 1,
        fetch_types: false,
        debug: (...[, text, parameters, types]) => void seen.push({ text, parameters, types }),
      })
      await other`select ${'x'}::text as a`
      await other.end()
      return seen
    },
  },
  {
    about: 'debug of transactions, savepoints and listeners',
    run: async (_, postgres) => {
      const seen: string[] = []
      const other = postgres(db.url, {
        max: 1,
        fetch_types: false,
        debug: (...[, text]) => void seen.push(/^\w+/.exec(text.toLowerCase())?.[0] ?? text),
      })
      await other.begin((t) => t.savepoint((s) => s`select 1`))
      const undone = other.begin(async (t) => {
        await t`select 2`
        throw new Error('undo')
      })
      await undone.catch(() => undefined)
      const listener = await other.listen(`debug ${randomUUID()}`, () => undefined)
      await listener.unlisten()
      await other.end()
      // Theirs leaves a savepoint to its transaction.
      return seen.filter((word) => word !== 'release')
    },
  },
  // ── Listen and notify ──
  {
    about: 'listen and notify',
    options: {},
    run: async (sql) => {
      const heard: string[] = []
      let ready = 0
      // The two of a pair run side by side on one server.
      const channel = `news ${randomUUID()}`
      const listener = await sql.listen(
        channel,
        (payload) => void heard.push(payload),
        () => void ready++,
      )
      const again = await sql.listen(channel, (payload) => void heard.push(`again ${payload}`))
      await sql.notify(channel, 'first')
      await until(() => heard.length === 2)
      await listener.unlisten()
      await again.unlisten()
      return [heard, ready, typeof listener.state.pid, typeof listener.state.secret]
    },
  },
  // ── Reserving ──
  {
    about: 'reserve',
    run: async (sql) => {
      const reserved = await sql.reserve()
      const [a, b] = await Promise.all([reserved`select pg_backend_pid() as p`, reserved`select pg_backend_pid() as p`])
      const raw = [
        strip(await reserved.unsafe('begin')),
        strip(await reserved`select 1 as one`),
        strip(await reserved.unsafe('rollback')),
      ]
      const then = typeof (reserved as unknown as { then?: unknown }).then
      return [a[0]?.['p'] === b[0]?.['p'], raw, then, typeof reserved, reserved.release()]
    },
  },
  {
    about: 'large objects',
    run: (sql) =>
      sql.begin(async () => {
        const object = await sql.largeObject()
        await pipeline(Readable.from(['some ', 'bytes']), await object.writable())
        await object.seek(0)
        let text = ''
        for await (const chunk of await object.readable()) text += String(chunk)
        await object.close()
        return text
      }),
  },
  // ── As its own tests have it ──
  {
    about: 'a stack that ends where the query was made',
    run: async (sql) => {
      const made = sql`error`
      const error = (await made.catch((e: unknown) => e)) as Error
      return /drop-in\.test\.ts/.test(error.stack?.split('\n').pop() ?? '')
    },
  },
  {
    about: 'a longer stack with debug',
    options: { debug: true },
    run: async (sql) => {
      const wat = (): PromiseLike<unknown> => sql`error`
      const yo = (): PromiseLike<unknown> => wat()
      const error = (await Promise.resolve(yo()).catch((e: unknown) => e)) as Error
      return error.stack?.match(/\bwat\b|\byo\b/g)?.join(' ')
    },
  },
  {
    about: 'an error has its parameters, as sent and as given',
    run: async (sql) => {
      const error = (await sql`selec ${1}`.catch((e: unknown) => e)) as plain.PostgresError & { args: unknown[] }
      return [error.query, error.parameters, error.args, Object.keys(error).includes('parameters')]
    },
  },
  {
    about: 'statements whose plan has become invalid are prepared again',
    run: async (sql, postgres) => {
      const name = `replanned_${postgres === plain ? 'theirs' : 'ours'}`
      const insert = (): PromiseLike<unknown> =>
        sql`insert into ${sql(name)} (name) values (${'1'}) returning name`.then(strip)
      const select = (): PromiseLike<unknown> => sql`select name from ${sql(name)}`.then(strip)
      await sql`create table ${sql(name)} (name text)`
      const before = [await insert(), await select()]
      await sql`alter table ${sql(name)} alter column name type int using name::integer`
      return [before, await insert(), await select()]
    },
  },
  {
    about: 'a text that cannot be made',
    run: (sql) =>
      sql.unsafe({
        toString() {
          throw Object.assign(new Error('mine'), { code: 'MINE' })
        },
      } as never),
  },
  {
    about: 'end() in the same turn as a query, before it and after it',
    options: { max: 1 },
    run: async (_, postgres) => {
      const after = postgres(db.url, { max: 1 })
      void after.end()
      const late = await outcome(() => after`select 1`)
      const before = postgres(db.url, { max: 1 })
      const early = outcome(() => before`select 1 as one`.execute())
      await before.end()
      return [late, await early]
    },
  },
  {
    about: 'a COPY that is destroyed',
    options: { max: 1 },
    run: async (sql) => {
      await sql`create temp table c (x int)`
      const writable = await sql`copy c from stdin`.writable()
      const aborted = new Promise((resolve) => writable.on('error', (error) => resolve(error.message)))
      writable.write('1\n')
      writable.destroy(new Error('abort'))
      return [await aborted, strip(await sql`select * from c`)]
    },
  },
  {
    about: 'a COPY whose stream is ended and not waited for',
    run: (sql) =>
      sql.begin(async (t) => {
        await t`create temp table ended (x int)`
        ;(await t`copy ended from stdin`.writable()).end('1\n2')
        await new Promise((resolve) => setTimeout(resolve, 50))
        return t`select x from ended`
      }),
  },
  {
    about: 'arrays of arrays, of dates, of what has to be escaped, and of nothing',
    run: async (sql) => {
      await sql`select 1`
      return sql`select ${sql.array([[[1, 2]], [[3, 4]]])} as a, ${sql.array(['Hello "you"', 'c:\\windows', '{},'])} as b,
        ${sql.array([new Date(0)])} as c, ${sql.array([], 1009)} as d, ${sql.array([])} as e`
    },
  },
  {
    about: 'undefined in an array',
    run: (sql) => sql`select ${['a', undefined] as never}::text[] as a`,
  },
  {
    about: 'undefined in an array, as null',
    options: { transform: { undefined: null } },
    run: async (sql) => {
      await sql`select 1`
      return sql`select array_length(${['a', undefined] as never}::text[], 1) as n, (${['a', undefined] as never}::text[])[2] as a`
    },
  },
  {
    about: 'fragments in fragments, with parameters',
    run: (sql) => {
      const inner = (n: number): plain.Fragment => sql`x = ${n}`
      const outer = sql`where (${inner(1)} or ${inner(3)}) and x in ${sql([1, 2, 3])}`
      return sql`select * from generate_series(1, 4) as x ${outer} ${[sql`order by x`, sql`desc`]}`
    },
  },
  {
    about: 'names with dots and stars',
    run: (sql) => sql`select ${sql('x.*' as never)} from (select 1 as a) as x`,
  },
  {
    about: 'more than one cursor, one behind the other',
    run: async (sql) => {
      const seen: unknown[] = []
      const slowly = (([row]: [plain.Row]) =>
        new Promise((resolve) => setTimeout(resolve, 5)).then(() => seen.push(row['x']))) as (row: [plain.Row]) => void
      await sql.begin(async (t) => {
        await t`select x from generate_series(1, 3) x`.cursor(slowly)
        await t`select x from generate_series(4, 6) x`.cursor(([row]) => void seen.push(row['x']))
      })
      return seen
    },
  },
  {
    about: 'cursors of values, of raw rows, of unsafe texts, and of errors',
    run: async (sql) => {
      const seen: unknown[] = []
      await sql`select x from generate_series(1, 2) x`.values().cursor(1, (rows) => void seen.push([...rows]))
      await sql`select x from generate_series(1, 2) x`.raw().cursor(1, (rows) => void seen.push(String(rows[0]?.[0])))
      await sql.unsafe('select x from generate_series(1, 2) x').cursor((rows) => void seen.push([...rows]))
      seen.push(await outcome(() => sql`wat`.cursor(() => undefined)))
      return seen
    },
  },
  {
    about: 'forEach gets the result, and returns one without rows',
    run: async (sql) => {
      const seen: unknown[] = []
      const result = await sql`select 1 as x`.forEach((row, { columns }) => void seen.push(row, columns[0]?.name))
      return [seen, strip(result)]
    },
  },
  {
    about: 'describe, of statements with and without parameters and columns',
    run: async (sql) => {
      return [
        await described(sql`select relname, relpages from pg_class where relname like $1 and relpages > $2`),
        await described(sql`select relname from pg_class`),
        await described(sql`update pg_class set relname = $1 where false`),
      ]
    },
  },
  {
    about: 'an array in a helper, and a fragment in one',
    run: (sql) =>
      sql.begin(async (t) => {
        await t`create temp table h (a int[], b text)`
        return t`insert into h ${t({ a: t.array([1, 2]), b: 'x' } as never)} returning *`
      }),
  },
  {
    about: 'an answer with many rows, and one with many parameters',
    run: async (sql) => [
      (await sql`select * from generate_series(1, 100000)`).count,
      (await sql`select * from (values ${sql(Array.from({ length: 5_000 }, (_, i) => [i, 'x']))}) as x`).count,
    ],
  },
  {
    about: 'several queries before the first connection',
    options: { max: 2 },
    run: async (sql) =>
      (await Promise.all([1, 2, 3, 4].map((x) => sql`select ${x}::int as x`))).map(([row]) => row?.['x'] as number),
  },
  {
    about: 'a parser and a serializer that throw',
    options: {
      max: 1,
      types: {
        text: {
          to: 25,
          from: [25],
          parse: (): never => {
            throw Object.assign(new Error('parse'), { code: 'PARSE' })
          },
          serialize: (): never => {
            throw Object.assign(new Error('serialize'), { code: 'SERIALIZE' })
          },
        },
      },
    },
    run: async (sql) => [
      await outcome(() => sql`select 'x'`),
      await outcome(() => sql`select ${'x'}`),
      await outcome(() => sql.begin((t) => [t`select 1`, t`select 'x'`])),
      await outcome(() => sql`select 1 as one`),
    ],
  },
  {
    about: 'arrays on a reserved connection',
    run: async (sql) => {
      const reserved = await sql.reserve()
      const rows = strip(await reserved`select array[1, 2, 3] as x`)
      reserved.release()
      return rows
    },
  },
  {
    about: 'a reserve that cannot connect',
    options: { host: '127.0.0.1', port: 1 },
    run: (sql) => sql.reserve(),
  },
  {
    about: 'a listener knows its session, also the next one',
    options: {},
    run: async (sql) => {
      const listener = await sql.listen(`state ${randomUUID()}`, () => undefined)
      const { state } = listener
      const first = state.pid
      await db.admin`select pg_terminate_backend(${first}::int)`
      await until(() => state.pid !== first)
      await listener.unlisten()
      return typeof state.pid
    },
  },
  // ── The end ──
  {
    about: 'end, then a query',
    options: {},
    run: async (sql) => {
      const running = sql`select pg_sleep(0.05), 1 as one`.execute()
      await sql.end()
      return [
        (await running)[0]?.['one'],
        await outcome(() => sql`select 1`),
        await outcome(() => sql.begin((t) => t`select 1`)),
      ]
    },
  },
  {
    about: 'end with a timeout',
    options: {},
    run: async (sql) => {
      const running = outcome(() => sql`select pg_sleep(30)`)
      await runs('pg_sleep(30)')
      await sql.end({ timeout: 0.05 })
      return running
    },
  },
  {
    about: 'close, then a query',
    options: {},
    run: async (sql) => {
      await sql`select 1`
      await (sql as unknown as { close(): Promise<void> }).close()
      return sql`select 2 as two`
    },
  },
]

describe('postgres.js and the drop-in come to the same', () => {
  // What postgres.js has left running on the server is not to be counted below.
  afterAll(async () => {
    await db.admin`select pg_terminate_backend(pid) from pg_stat_activity where datname = ${db.name}`
    await db.sessionsToBe(0)
  })

  const instances = [plain, dropIn as unknown as Postgres] as const
  const open = (options?: plain.Options<{}>): plain.Sql[] =>
    instances.map((postgres) => postgres(db.url, { max: 3, onnotice: () => undefined, ...options }))
  let shared: plain.Sql[]
  beforeAll(() => {
    shared = open()
  })
  afterAll(() => Promise.all(shared.map((sql) => sql.end({ timeout: 0 }))))

  test.each(cases)('$about', async ({ options, run }) => {
    const pair = options ? open(options) : shared
    try {
      const [theirs, ours] = await Promise.all(pair.map((sql, i) => outcome(() => run(sql, instances[i] ?? plain))))
      expect(theirs).not.toEqual({ value: undefined })
      expect(ours).toEqual(theirs)
    } finally {
      if (pair !== shared) await Promise.all(pair.map((sql) => sql.end({ timeout: 0 })))
    }
  })

  test('the environment', async () => {
    const { host, port, user, password } = db.server
    const variables = {
      PGHOST: host,
      PGPORT: String(port),
      PGDATABASE: db.name,
      PGPASSWORD: password,
      PGAPPNAME: 'of the environment',
      PGIDLE_TIMEOUT: '20',
      PGCONNECT_TIMEOUT: '20',
    }
    onTestFinished(() => void vi.unstubAllEnvs())
    for (const [name, value] of Object.entries(variables)) vi.stubEnv(name, value)
    for (const name of ['PGUSERNAME', 'PGUSER']) {
      vi.stubEnv('PGUSERNAME', undefined)
      vi.stubEnv(name, user)
      const [theirs, ours] = await Promise.all(
        instances.map(async (postgres) => {
          const sql = postgres()
          const [row] = await sql`
            select current_user as u, current_database() as d, inet_server_port() as p,
              split_part(current_setting('application_name'), ' mp', 1) as n`
          await sql.end()
          return row
        }),
      )
      expect(ours).toEqual(theirs)
      expect(ours).toEqual({ u: user, d: db.name, p: port, n: 'of the environment' })
    }
  })

  test('what is on the function', () => {
    const names = Object.keys(plain).toSorted()
    expect(Object.keys(dropIn)).toEqual(expect.arrayContaining(names))
    for (const name of names) expect(Reflect.get(dropIn, name)).toBe(Reflect.get(plain, name))
  })

  test('what options tell', () => {
    const given = {
      max: 3,
      idle_timeout: 20,
      connect_timeout: 5,
      max_lifetime: 600,
      prepare: false,
      fetch_types: false,
    }
    const [theirs, ours] = instances.map((postgres) => postgres(db.url, given).options as unknown as object)
    const names = [...Object.keys(given), 'host', 'port', 'path', 'database', 'user', 'ssl', 'connection', 'transform']
    for (const name of names) {
      const told = (options: object | undefined): unknown => Reflect.get(options ?? {}, name)
      expect([name, told(ours)]).toEqual([name, told(theirs)])
    }
  })

  test('what is on the tag, on that of a pool, and on reserved ones', async () => {
    const sql = plain(db.url, { max: 1 })
    onTestFinished(() => sql.end())
    const pool = createPool(db.url)
    onTestFinished(async () => void (await pool.close()))
    const ours = make()
    for (const name of Object.keys(sql)) {
      expect([name, typeof Reflect.get(ours, name)]).toEqual([name, typeof Reflect.get(sql, name)])
      expect([name, typeof Reflect.get(pool.sql, name)]).toEqual([name, typeof Reflect.get(sql, name)])
    }
    const reserved = await ours.reserve()
    for (const name of ['types', 'typed', 'unsafe', 'notify', 'array', 'json', 'file', 'release']) {
      expect([name, typeof Reflect.get(reserved, name)]).toEqual([name, 'function'])
    }
    reserved.release()
  })
})

describe('errors of connections are those of postgres.js, with ours as their cause', () => {
  test('nothing listens', async () => {
    const sql = make({ host: '127.0.0.1', port: 1 })
    const all = await Promise.all([1, 2, 3].map(() => rejection(sql`select 1`)))
    for (const error of all) {
      expect(error).toMatchObject({ code: 'ECONNREFUSED', address: '127.0.0.1', port: 1, syscall: 'connect' })
      expect(error.cause).toBeInstanceOf(ConnectError)
    }
    expect(await rejection(sql.reserve())).toMatchObject({ code: 'ECONNREFUSED' })
    expect(await rejection(sql.listen('x', () => undefined))).toMatchObject({ code: 'ECONNREFUSED' })
  })

  test('nothing listens at any of several hosts: postgres.js tries for ever', async () => {
    const sql = make({ host: ['127.0.0.1', '127.0.0.1'] as never, port: [1, 2] as never })
    expect(await rejection(sql`select 1`)).toMatchObject({ code: 'ECONNREFUSED' })
  })

  test('the server’s own refusal', async () => {
    const error = await rejection(make({ password: 'wrong' })`select 1`)
    expect(error).toBeInstanceOf(plain.PostgresError)
    expect(error).toMatchObject({ name: 'PostgresError', code: '28P01', cause: { code: 'ERR_CONNECT' } })
  })

  test.each([
    ['SASL_SIGNATURE_MISMATCH', [offer, challenge, authentication(12, 'v=d3Jvbmc=')]],
    ['SASL_SIGNATURE_MISMATCH', [offer, authenticated]],
    ['AUTH_TYPE_NOT_IMPLEMENTED', [authentication(2)]],
    ['MESSAGE_NOT_SUPPORTED', [message('v', '\0\0\0\0\0\0\0\0')]],
  ])('%s', async (code, script) => {
    await using server = await scriptedServer(...script)
    const error = await rejection(make({ host: '127.0.0.1', port: server.port })`select 1`)
    expect(error).toMatchObject({ code, cause: { code: 'ERR_CONNECT' } })
    expect(server.sockets).toBe(1)
  })

  test('CONNECT_TIMEOUT', async () => {
    await using deaf = await tcpServer(() => undefined)
    const sql = make({ host: '127.0.0.1', port: deaf.port, connect_timeout: 0.05 })
    const error = await rejection(sql`select 1`)
    expect(error).toMatchObject({
      code: 'CONNECT_TIMEOUT',
      errno: 'CONNECT_TIMEOUT',
      address: '127.0.0.1',
      port: deaf.port,
    })
    expect(error.message).toBe(`write CONNECT_TIMEOUT 127.0.0.1:${deaf.port}`)
    expect(error.cause).toBeInstanceOf(ConnectError)
  })

  test('CONNECTION_CLOSED, for whoever ran there, and only for him', async () => {
    const sql = make({ max: 2 })
    const query = rejection(sql`select pg_sleep(31)`)
    await kill('pg_sleep(31)')
    const error = await query
    expect(error).toMatchObject({
      code: 'CONNECTION_CLOSED',
      cause: { code: 'ERR_CONNECTION_LOST', cause: { code: '57P01' } },
    })
    expect(error.message).toMatch(/^write CONNECTION_CLOSED /)
    const transaction = rejection(sql.begin((t) => t`select pg_sleep(32)`))
    await kill('pg_sleep(32)')
    expect(await transaction).toMatchObject({ code: 'CONNECTION_CLOSED' })
    const reserved = await sql.reserve()
    const held = rejection(reserved`select pg_sleep(33)`)
    await kill('pg_sleep(33)')
    expect(await held).toMatchObject({ code: 'CONNECTION_CLOSED' })
    expect(await rejection(reserved`select 1`)).toMatchObject({ code: 'CONNECTION_CLOSED' })
    expect(reserved.release()).toBeUndefined()
    expect([...(await sql`select 1 as one`)]).toEqual([{ one: 1 }])
  })

  test('CONNECTION_DESTROYED and CONNECTION_ENDED', async () => {
    const sql = make({ max: 1 })
    const running = rejection(sql`select pg_sleep(34)`)
    await runs('pg_sleep(34)')
    const waiting = rejection(sql`select 1`.execute())
    const begun = rejection(sql.begin((t) => t`select 1`))
    await sql.end({ timeout: 0.05 })
    for (const error of [await running, await waiting, await begun])
      expect(error).toMatchObject({ code: 'CONNECTION_DESTROYED' })
    expect(await rejection(sql`select 1`)).toMatchObject({ code: 'CONNECTION_ENDED' })
    const early = make({ max: 1 })
    const lost = early`select pg_sleep(35)`.catch((error: unknown) => error)
    await early.end({ timeout: 0 })
    expect(await lost).toMatchObject({ code: 'CONNECTION_DESTROYED' })
    const connecting = make({ max: 1 })
    setTimeout(() => void connecting.end({ timeout: 0 }), 0)
    expect(await rejection(connecting`select pg_sleep(35)`)).toMatchObject({ code: 'CONNECTION_DESTROYED' })
    expect(await rejection(sql.reserve())).toMatchObject({ code: 'CONNECTION_ENDED' })
    expect(await rejection(sql.listen('x', () => undefined))).toMatchObject({ code: 'CONNECTION_ENDED' })
  })

  test('COPY_IN_PROGRESS', async () => {
    const reserved = await make().reserve()
    await reserved`create temp table c (a int)`
    const copy = await reserved`copy c from stdin`.writable()
    expect(await rejection(reserved`select 1`)).toMatchObject({
      code: 'COPY_IN_PROGRESS',
      cause: { code: 'ERR_SESSION_BUSY' },
    })
    copy.end()
    reserved.release()
  })

  test('a server without room fails whoever waits, unless others will serve him', async () => {
    const role = await createRole(db, 1)
    const sql = dropIn(role.url, { max: 2 })
    onTestFinished(() => sql.end({ timeout: 0 }))
    const first = sql`select pg_sleep(0.5), 1 as one`.execute()
    // Of two that log in at once the server may refuse both.
    await until(async () => (await role.sessions()).some(({ state }) => state === 'active'))
    const second = await sql`select 2 as two`
    expect([(await first)[0]?.['one'], second[0]?.['two']]).toEqual([1, 2])
    const other = dropIn(role.url, { max: 1 })
    onTestFinished(() => other.end({ timeout: 0 }))
    expect(await rejection(other`select 1`)).toMatchObject({ name: 'PostgresError', code: '53300' })
  })
})

describe('end()', () => {
  test('what was run before it finishes, what waits for a connection included', async () => {
    const sql = make({ max: 1 })
    const queries = Array.from({ length: 5 }, (_, i) => sql`select ${i}::int as i, pg_sleep(0.01)`.execute())
    const begun = sql.begin(async (t) => [(await t`select 5 as i`)[0], (await t`select 6 as i`)[0]])
    await sql.end()
    expect((await Promise.all(queries)).map(([row]) => row?.['i'] as unknown)).toEqual([0, 1, 2, 3, 4])
    expect(await begun).toEqual([{ i: 5 }, { i: 6 }])
    expect((await db.sessions()).length).toBe(0)
  })

  test('a second call is the first one; one that was never used ends as well', async () => {
    const sql = make()
    const first = sql.end()
    await Promise.all([first, sql.end({ timeout: 1 })])
    await sql.end()
  })

  test('the connection of listeners ends with it', async () => {
    const sql = make({ max: 1 })
    await sql.listen('x', () => undefined)
    // As in postgres.js it is one beside the others.
    expect((await sql`select 1 as one`)[0]).toEqual({ one: 1 })
    expect((await db.sessions()).length).toBe(2)
    await sql.end()
    expect((await db.sessions()).length).toBe(0)
  })
})

describe('what differs on purpose', () => {
  test('a limit over all', async () => {
    const one = make({ max: 3, limit: { name: db.name, connections: 2 } })
    const two = make({ max: 3, limit: { name: db.name, connections: 2 } })
    const seen: number[] = []
    const query = async (sql: plain.Sql): Promise<void> => {
      await sql`select pg_sleep(0.01)`
      seen.push((await db.sessions()).length)
    }
    await Promise.all(Array.from({ length: 12 }, (_, i) => query(i % 2 ? one : two)))
    expect(Math.max(...seen)).toBe(2)
  })

  test('a session is cleaned between two who hold it, if there may be two', async () => {
    const sql = make({ max: 2 })
    const reserved = await sql.reserve()
    await reserved`set statement_timeout = '3s'`
    await reserved.unsafe('begin; create table left_open (a int)')
    reserved.release()
    await until(async () => (await db.sessions()).every(({ state }) => state === 'idle'))
    const [row] = await sql`select current_setting('statement_timeout') as t, to_regclass('left_open') as l`
    expect(row).toEqual({ t: '0', l: null })
    expect(await rejection(reserved`select 1`)).toMatchObject({ code: 'ERR_LEASE_RELEASED' })
  })

  test('subscribe() rejects', async () => {
    expect(await rejection(make().subscribe('*', () => undefined))).toMatchObject({ code: 'ERR_NOT_SUPPORTED' })
  })

  test('listeners hear of their return after a loss', async () => {
    const sql = make()
    let ready = 0
    const heard: string[] = []
    const { state } = await sql.listen(
      'news',
      (payload) => void heard.push(payload),
      () => void ready++,
    )
    await db.admin`select pg_terminate_backend(${state.pid})`
    await until(() => ready === 2)
    await sql.notify('news', 'after')
    await until(() => heard.length === 1)
  })

  test('options without a meaning are taken, those that would mislead are not', () => {
    const harmless = {
      backoff: false,
      max_pipeline: 1,
      keep_alive: 5,
      publications: 'x',
      no_subscribe: true,
    } as Options
    expect(() => make(harmless)).not.toThrow()
    for (const wrong of [
      { socket: () => undefined },
      { onnotify: () => undefined },
      { ambient: true },
      { wat: 1 },
      { max: 0 },
      { idle_timeout: 'x' },
    ]) {
      expect(() => make(wrong as Options)).toThrow(expect.objectContaining({ code: 'ERR_OPTION' }))
    }
  })
})

describe('dropInOptions()', () => {
  const defaults = {
    max: 10,
    ambient: false,
    acquireTimeoutMs: Infinity,
    connectTimeoutMs: 30_000,
    idleTimeoutMs: Infinity,
    maxLifetimeMs: 3_600_000,
    reset: 'auto',
  }
  const url = 'postgres://u:p@h:1/d'

  test.each<[name: string, a: unknown, b: unknown, env: Record<string, string>, expected: object]>([
    ['the defaults are postgres.js’s', url, undefined, {}, defaults],
    ['nothing at all is localhost', undefined, undefined, {}, { host: 'localhost' }],
    ['an empty url is localhost', '', {}, {}, { host: 'localhost' }],
    ['options alone', { host: 'x', username: 'u' }, undefined, {}, { host: 'x', user: 'u' }],
    [
      'no url, then options',
      undefined,
      { hostname: 'x', db: 'd', pass: 'p' },
      {},
      { host: 'x', database: 'd', password: 'p' },
    ],
    [
      'own names go first',
      undefined,
      { host: 'x', hostname: 'y', user: 'u', username: 'v' },
      {},
      { host: 'x', user: 'u' },
    ],
    [
      'seconds',
      url,
      { idle_timeout: 20, connect_timeout: 5, max_lifetime: 1_800 },
      {},
      { idleTimeoutMs: 20_000, connectTimeoutMs: 5_000, maxLifetimeMs: 1_800_000 },
    ],
    ['parts of seconds', url, { idle_timeout: 0.5 }, {}, { idleTimeoutMs: 500 }],
    ['seconds as text', url, { idle_timeout: '20' }, {}, { idleTimeoutMs: 20_000 }],
    [
      'none',
      url,
      { idle_timeout: 0, connect_timeout: 0, max_lifetime: null },
      {},
      { idleTimeoutMs: Infinity, connectTimeoutMs: 2_147_483_647, maxLifetimeMs: Infinity },
    ],
    ['a function of seconds', url, { max_lifetime: () => 60 }, {}, { maxLifetimeMs: 60_000 }],
    ['the old name', url, { timeout: 3 }, {}, { idleTimeoutMs: 3_000 }],
    [
      'the environment',
      url,
      {},
      { PGMAX: '4', PGIDLE_TIMEOUT: '7', PGCONNECT_TIMEOUT: '8', PGMAX_LIFETIME: '9' },
      { max: 4, idleTimeoutMs: 7_000, connectTimeoutMs: 8_000, maxLifetimeMs: 9_000 },
    ],
    ['options before the environment', url, { idle_timeout: 1 }, { PGIDLE_TIMEOUT: '7' }, { idleTimeoutMs: 1_000 }],
    [
      'the url',
      `${url}?max=3&idle_timeout=4&connect_timeout=5&max_lifetime=6&backoff=1&keep_alive=2`,
      {},
      {},
      { max: 3, idleTimeoutMs: 4_000, connectTimeoutMs: 5_000, maxLifetimeMs: 6_000 },
    ],
    ['options before the url', `${url}?max=3`, { max: 4 }, {}, { max: 4 }],
    ['max 1 is one session', url, { max: 1 }, {}, { reset: 'none' }],
    ['max 1 that is cleaned', url, { max: 1, reset: 'auto' }, {}, { reset: 'auto' }],
    ['ours', url, { limit: 20, acquireTimeoutMs: 5, name: 'n' }, {}, { limit: 20, acquireTimeoutMs: 5, name: 'n' }],
    ['its name', url, {}, {}, { connection: { application_name: 'postgres.js' } }],
    ['a name of the environment', url, {}, { PGAPPNAME: 'env' }, { connection: { application_name: 'env' } }],
    [
      'a name of its own',
      url,
      { connection: { application_name: 'own', TimeZone: 'UTC' } },
      {},
      { connection: { application_name: 'own', TimeZone: 'UTC' } },
    ],
    ['a name in the url', `${url}?application_name=there`, {}, {}, { connection: {} }],
  ])('%s', (_, a, b, env, expected) => {
    const { url: left, options } = dropInOptions(a, b, env)
    expect(options).toMatchObject(expected)
    if (typeof a === 'string' && a.startsWith(url))
      expect(left).toMatch(/^postgres:\/\/u:p@h:1\/d(\?application_name=there)?$/)
  })

  test('notices are printed, unless they are not wanted', () => {
    expect(dropInOptions(url, {}).options.onnotice).toBe(console.log)
    expect(dropInOptions(url, { onnotice: false }).options.onnotice).not.toBe(console.log)
  })

  test('a URL object is a URL, and a name in it is kept', () => {
    expect(dropInOptions(new URL('postgres://h/d?search_path=x&max=2'), {}).url).toBe('postgres://h/d?search_path=x')
  })

  test('onclose hears of each session', async () => {
    const closed: number[] = []
    const sql = make({ onclose: (pid) => void closed.push(pid) })
    const [row] = await sql<[{ pid: number }]>`select pg_backend_pid() as pid`
    await sql.end()
    expect(closed).toEqual([row.pid])
  })
})
