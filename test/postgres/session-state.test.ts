import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import postgres from 'postgres'
import type { PostgresPool, PostgresPoolOptions, PostgresSql } from '../../src/postgres/index.ts'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { rejection } from '../support/connection.ts'
import { createDatabase } from '../support/database.ts'
import type { TestDatabase } from '../support/database.ts'
import { poolFor } from '../support/given-back.ts'

const settings = `set mill.pond = 'left'`

let db: TestDatabase
let folder: string
beforeAll(async () => {
  db = await createDatabase()
  folder = await mkdtemp(join(tmpdir(), 'session-state-'))
  await writeFile(join(folder, 'set.sql'), settings)
  const there = postgres(db.url, { max: 1, onnotice: () => undefined })
  await there.unsafe(`
    create table counted (id serial, a int);
    create sequence numbers;
    create function hide() returns void language sql as $$ select set_config('mill.pond', 'left', false) $$;
    create function hide_lock() returns void language sql as $$ select pg_advisory_lock(11) $$;
    create procedure proceed() language sql as $$ select set_config('mill.pond', 'left', false) $$;
    create function on_insert() returns trigger language plpgsql as $$ begin perform hide(); return new; end $$;
    create table watched (a int);
    create trigger watch before insert on watched for each row execute function on_insert()`)
  await there.end()
})
afterAll(async () => {
  await rm(folder, { recursive: true })
  await db.drop()
})

interface Kind {
  readonly kind: string
  /** What a lease does. */
  readonly leave: (sql: PostgresSql) => unknown
  /** Whether the next one sees it. */
  readonly seen: (sql: PostgresSql) => Promise<boolean>
  /** The connection is not used again: nothing on the server would undo it. */
  readonly replaced?: boolean
}

/** A question to which the server answers yes or no. In one simple query, so that it begins with its transaction. */
const asks =
  (condition: string): Kind['seen'] =>
  async (sql) =>
    (await sql.unsafe<{ yes: boolean }[]>(`select ${condition} as yes`))[0]?.yes ?? false

const run =
  (...statements: readonly string[]): Kind['leave'] =>
  async (sql) => {
    for (const statement of statements) await sql.unsafe(statement).catch(() => undefined)
  }

const fails =
  (text: string): Kind['seen'] =>
  (sql) =>
    sql.unsafe(text).then(
      () => false,
      () => true,
    )

const works =
  (text: string): Kind['seen'] =>
  (sql) =>
    sql.unsafe(text).then(
      () => true,
      () => false,
    )

const setting = (name: string, value: string): Kind['seen'] => asks(`current_setting('${name}', true) = '${value}'`)
const pond = setting('mill.pond', 'left')
const temporary = asks(`exists (select from pg_class where relname = 'scratch' and relpersistence = 't')`)
const locked = asks(`exists (select from pg_locks where locktype = 'advisory' and pid = pg_backend_pid())`)

const kinds: readonly Kind[] = [
  { kind: 'a transaction that is open', leave: run('begin'), seen: asks('now() < statement_timestamp()') },
  { kind: 'a transaction that has failed', leave: run('begin', 'select 1 / 0'), seen: fails('select 1') },
  { kind: 'a savepoint', leave: run('begin', 'savepoint one'), seen: works('rollback to savepoint one') },
  { kind: 'SET', leave: run(`set work_mem = '7MB'`), seen: setting('work_mem', '7MB') },
  {
    kind: 'SET SESSION',
    leave: run(`set session search_path = pg_catalog`),
    seen: setting('search_path', 'pg_catalog'),
  },
  { kind: 'SET of a setting of one’s own', leave: run(`set mill.pond = 'left'`), seen: pond },
  { kind: 'SET TIME ZONE', leave: run(`set time zone 'Asia/Kathmandu'`), seen: setting('TimeZone', 'Asia/Kathmandu') },
  {
    kind: 'SET SESSION CHARACTERISTICS',
    leave: run('set session characteristics as transaction read only'),
    seen: setting('default_transaction_read_only', 'on'),
  },
  {
    kind: 'SET in a transaction that was committed',
    leave: run('begin', `set work_mem = '7MB'`, 'commit'),
    seen: setting('work_mem', '7MB'),
  },
  { kind: 'set_config()', leave: run(`select set_config('mill.pond', 'left', false)`), seen: pond },
  {
    kind: 'set_config() with parameters, prepared',
    leave: (sql) => sql`select set_config(${'mill.pond'}, ${'left'}, ${false})`,
    seen: pond,
  },
  {
    kind: 'pg_settings',
    leave: run(`update pg_settings set setting = '7MB' where name = 'work_mem'`),
    seen: setting('work_mem', '7MB'),
  },
  { kind: 'SET ROLE', leave: run('set role pg_monitor'), seen: asks(`current_user = 'pg_monitor'`) },
  {
    kind: 'SET SESSION AUTHORIZATION',
    leave: run('set session authorization pg_monitor'),
    seen: asks(`session_user = 'pg_monitor'`),
  },
  { kind: 'create temp table', leave: run('create temp table scratch (a int)'), seen: temporary },
  { kind: 'create temporary table', leave: run('create local temporary table scratch (a int)'), seen: temporary },
  { kind: 'create temp table as', leave: run('create temp table scratch as select 1 as a'), seen: temporary },
  { kind: 'create table pg_temp.x as', leave: run('create table pg_temp.scratch as select 1'), seen: temporary },
  { kind: 'select into temp', leave: run('select 1 as a into temp scratch'), seen: temporary },
  { kind: 'select into temporary', leave: run('select 1 as a into temporary table scratch'), seen: temporary },
  { kind: 'create table pg_temp.x', leave: run('create table pg_temp.scratch (a int)'), seen: temporary },
  { kind: 'create table "pg_temp"."x"', leave: run('create table "pg_temp"."scratch" (a int)'), seen: temporary },
  {
    kind: 'create table pg_temp_3.x, by its own name',
    leave: async (sql) => {
      await sql.unsafe('create table pg_temp.first ()')
      const [row] = await sql<[{ name: string }]>`select pg_my_temp_schema()::regnamespace::text as name`
      // As if it were the first that is seen of it.
      await sql.unsafe(`create table ${row.name}.scratch (a int)`)
    },
    seen: temporary,
  },
  {
    kind: 'create table in the search_path',
    leave: run('set search_path = pg_temp', 'create table scratch ()'),
    seen: temporary,
  },
  {
    kind: 'explain analyze create temp table',
    leave: run('explain analyze create temp table scratch as select 1'),
    seen: temporary,
  },
  { kind: 'create temp view', leave: run('create temp view scratch as select 1 as a'), seen: temporary },
  { kind: 'create temp sequence', leave: run('create temp sequence scratch'), seen: temporary },
  {
    kind: 'a function in pg_temp',
    leave: run('create function pg_temp.scratch() returns int language sql as $$ select 1 $$'),
    seen: works('select pg_temp.scratch()'),
  },
  {
    kind: 'PREPARE',
    leave: run('prepare own as select 1'),
    seen: asks('exists (select from pg_prepared_statements where from_sql)'),
    replaced: true,
  },
  {
    kind: 'DEALLOCATE ALL',
    leave: async (sql) => {
      await sql`select ${1}::int as a`
      await sql.unsafe('deallocate all')
    },
    // Inside a transaction, where it cannot be prepared again.
    seen: async (sql) => {
      await sql.unsafe('begin')
      const seen = await sql`select ${1}::int as a`.then(
        () => false,
        () => true,
      )
      await sql.unsafe('rollback')
      return seen
    },
    replaced: true,
  },
  {
    kind: 'a cursor WITH HOLD',
    leave: run('declare own cursor with hold for select 1'),
    seen: asks('exists (select from pg_cursors where is_holdable)'),
  },
  {
    kind: 'a cursor of a transaction',
    leave: run('begin', 'declare own cursor for select 1'),
    seen: works('fetch own'),
  },
  { kind: 'LISTEN', leave: run('listen news'), seen: asks('exists (select from pg_listening_channels())') },
  { kind: 'pg_advisory_lock()', leave: run('select pg_advisory_lock(1)'), seen: locked },
  { kind: 'pg_advisory_lock_shared()', leave: run('select pg_advisory_lock_shared(1, 2)'), seen: locked },
  { kind: 'pg_try_advisory_lock()', leave: run('select pg_try_advisory_lock(1)'), seen: locked },
  {
    kind: 'a lock whose statement fails',
    leave: run('select pg_advisory_lock(1), 1 / (oid::int8 - oid::int8) from pg_class'),
    seen: locked,
  },
  { kind: 'nextval()', leave: run(`select nextval('numbers')`), seen: works('select lastval()') },
  { kind: 'setval()', leave: run(`select setval('numbers', 7)`), seen: works(`select currval('numbers')`) },
  {
    kind: 'setseed()',
    leave: run('select setseed(0.5)'),
    seen: asks('abs(random() - 0.9851677175347999) < 1e-9'),
    replaced: true,
  },
  {
    kind: 'LOAD',
    leave: run(`load 'auto_explain'`),
    seen: asks(`current_setting('auto_explain.log_timing', true) is not null`),
    replaced: true,
  },
  { kind: 'DO', leave: run(`do $$ begin perform set_config('mill.pond', 'left', false); end $$`), seen: pond },
  { kind: 'DO that calls what nothing shows', leave: run('/* why */ do $$ begin perform hide(); end $$'), seen: pond },
  { kind: 'CALL', leave: run('call proceed()'), seen: pond },
  { kind: 'several statements in one text', leave: run(`select 1; set mill.pond = 'left'; select 2`), seen: pond },
]

/** What neither the text of a statement nor the protocol shows. */
const unseen: readonly Kind[] = [
  { kind: 'a function that sets something', leave: run('select hide()'), seen: pond },
  { kind: 'a function that takes a lock', leave: run('select hide_lock()'), seen: locked },
  { kind: 'a trigger that sets something', leave: run('insert into watched values (1)'), seen: pond },
  {
    kind: 'an insert that draws from a sequence',
    leave: run('insert into counted (a) values (1)'),
    seen: works('select lastval()'),
  },
  {
    kind: 'a statement that is the value of a parameter',
    leave: (sql) => sql`select query_to_xml(${`select set_config('mill.pond', 'left', false)`}, true, false, '')`,
    seen: pond,
  },
]

interface Left {
  readonly seen: boolean
  readonly sessions: number
}

/** One lease does something, the next one looks. */
async function leftBehind({ leave, seen }: Kind, options: PostgresPoolOptions): Promise<Left> {
  const pool = poolFor(db, { max: 1, pingAfterIdleMs: Infinity, ...options })
  await pool.use((sql) => leave(sql))
  const answer = await pool.use((sql) => seen(sql))
  // Without a reset, what is left stays: its connection is to be no trouble to whoever looks after the pool.
  if (options.reset === 'none') await pool.use(async (_, lease) => lease.destroy())
  return { seen: answer, sessions: pool.stats().opens }
}

describe.each(kinds)('$kind', (kind) => {
  test('is there for the next lease with reset: none', async () => {
    expect((await leftBehind(kind, { reset: 'none' })).seen).toBe(true)
  })

  test.each(['auto', 'full'] as const)('is not there for the next lease with reset: %s', async (reset) => {
    expect(await leftBehind(kind, { reset })).toEqual({ seen: false, sessions: kind.replaced ? 2 : 1 })
  })
})

describe.each(unseen)('$kind', (kind) => {
  test.each([
    ['none', true],
    ['auto', true],
    ['full', false],
  ] as const)('with reset: %s it is there for the next lease: %j', async (reset, seen) => {
    expect(await leftBehind(kind, { reset })).toEqual({ seen, sessions: 1 })
  })
})

describe('what is under way', () => {
  const underWay: readonly [string, (sql: PostgresSql) => Promise<unknown>][] = [
    ['a COPY from stdin', async (sql) => (await sql`copy counted from stdin`.writable()).on('error', () => undefined)],
    [
      'a COPY to stdout',
      async (sql) => {
        const stream = await sql`copy (select repeat('x', 1000) from generate_series(1, 100000)) to stdout`.readable()
        stream.on('error', () => undefined)
      },
    ],
    [
      'a cursor that is read',
      (sql) => sql`select g from generate_series(1, 9) g`.cursor(2)[Symbol.asyncIterator]().next(),
    ],
  ]

  test.each(underWay)('%s costs the connection, and the next lease has another one', async (_, begin) => {
    for (const reset of ['none', 'auto', 'full'] as const) {
      const pool = poolFor(db, { max: 1, reset })
      await pool.use((sql) => begin(sql))
      expect([...(await pool.sql`select 1 as one`)]).toEqual([{ one: 1 }])
      expect(pool.stats()).toMatchObject({ opens: 2, badReturns: 1 })
    }
  })
})

describe('whoever leaves it behind', () => {
  const others: readonly [string, (pool: PostgresPool) => PromiseLike<unknown>][] = [
    ['a query on the pool', (pool) => pool.sql.unsafe(settings)],
    ['a query of pg’s kind', (pool) => pool.query(settings)],
    ['a cursor', (pool) => pool.sql`select set_config('mill.pond', 'left', false)`.cursor(1, () => undefined)],
    ['a file', (pool) => pool.sql.file(join(folder, 'set.sql'))],
    ['a transaction', (pool) => pool.transaction((sql) => sql.unsafe(settings))],
    [
      'a reserved tag',
      async (pool) => {
        const reserved = await pool.sql.reserve()
        await reserved.unsafe(settings)
        reserved.release()
      },
    ],
    [
      'a session',
      async (pool) => {
        await using session = pool.session()
        await session.sql.unsafe(settings)
        await session.commit()
      },
    ],
    [
      'a query that was cancelled at its deadline',
      (pool) =>
        rejection(pool.with({ timeoutMs: 50 }).sql`select set_config('mill.pond', 'left', false), pg_sleep(60)`),
    ],
  ]

  test.each(others)('%s: the next one does not see it', async (_, leave) => {
    const pool = poolFor(db, { max: 1 })
    await leave(pool)
    expect(await pond(pool.sql)).toBe(false)
    expect(pool.stats().opens).toBe(1)
    // It would.
    const careless = poolFor(db, { max: 1, reset: 'none' })
    await careless.sql.unsafe(settings)
    expect(await pond(careless.sql)).toBe(true)
  })
})
