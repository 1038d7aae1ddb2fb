import type postgres from 'postgres'
import { expect, expectTypeOf, test } from 'vitest'
import { createPool } from '../../src/postgres/index.ts'
import type { PostgresPool, PostgresPoolOptions, TransactionSql } from '../../src/postgres/index.ts'

// The compiler is the judge: none of these is ever called.
const url = 'postgres://h/d'

type Given = Required<PostgresPoolOptions>
type Theirs = Required<postgres.Options<{}>>

function options(): void {
  // postgres.js's own types, for what goes to it as it is.
  expectTypeOf<Given['transform']>().toEqualTypeOf<Theirs['transform']>()
  expectTypeOf<Given['debug']>().toEqualTypeOf<Theirs['debug']>()
  expectTypeOf<Given['onnotice']>().toEqualTypeOf<Theirs['onnotice']>()
  expectTypeOf<Given['onparameter']>().toEqualTypeOf<Theirs['onparameter']>()
  expectTypeOf<Given['connection']>().toEqualTypeOf<Theirs['connection']>()
  expectTypeOf<Given['prepare']>().toEqualTypeOf<Theirs['prepare']>()
  expectTypeOf<Given['fetch_types']>().toEqualTypeOf<Theirs['fetch_types']>()
  expectTypeOf<Exclude<Theirs['ssl'], object>>().toExtend<Given['ssl']>()
  expectTypeOf<NonNullable<Theirs['target_session_attrs']>>().toExtend<Given['target_session_attrs']>()
  expectTypeOf<NonNullable<Theirs['password']>>().toExtend<Given['password']>()
  expectTypeOf<NonNullable<Theirs['host']>>().toExtend<Given['host']>()

  createPool(url, { debug: (connection, query, parameters, types) => void [connection, query, parameters, types] })
  createPool(url, { onnotice: ({ message }) => void message, password: async () => 'x', ssl: { ca: 'x' } })
  createPool(new URL(url), {
    host: ['a', 'b:5433'],
    port: [1, 2],
    target_session_attrs: 'any',
    sslnegotiation: 'direct',
  })
  createPool(url, {
    connection: { search_path: 'app', statement_timeout: 5_000 },
    limit: { name: 'n', connections: 5 },
  })

  // @ts-expect-error -- milliseconds, and another name
  createPool(url, { idle_timeout: 20 })
  // @ts-expect-error -- milliseconds, and another name
  createPool(url, { max_lifetime: 60 })
  // @ts-expect-error -- milliseconds, and another name
  createPool(url, { connect_timeout: 5 })
  // @ts-expect-error -- the pool dials by itself
  createPool(url, { socket: () => undefined })
  // @ts-expect-error -- the pool backs off by itself
  createPool(url, { backoff: false })
  // @ts-expect-error -- one query at a time
  createPool(url, { max_pipeline: 1 })
  // @ts-expect-error -- it is called user
  createPool(url, { username: 'ann' })
  // @ts-expect-error -- no such option
  createPool(url, { maxx: 5 })
  // @ts-expect-error -- a number
  createPool(url, { max: '5' })
  // @ts-expect-error -- no such value
  createPool(url, { ssl: 'no-verify' })
  // @ts-expect-error -- no such value
  createPool(url, { reset: 'always' })
  // @ts-expect-error -- a function is called with a tag
  createPool(url, { onOpen: 'set search_path = app' })
  // @ts-expect-error -- a boolean
  createPool(url, { connection: { default_transaction_read_only: 'yes' } })
  // @ts-expect-error -- it has to be named, or undefined
  createPool()
}

async function queries(pool: PostgresPool): Promise<void> {
  // @ts-expect-error -- a row may not be there
  void (await pool.sql<{ id: number }[]>`select 1`)[0].id
  // @ts-expect-error -- no such column
  void (await pool.sql<{ id: number }[]>`select 1`)[0]?.name
  // @ts-expect-error -- not a value
  void pool.sql`select ${Symbol('x')}`
  // @ts-expect-error -- a lease has no end of its own
  await pool.use((sql) => sql.end())
  // @ts-expect-error -- nor does it listen
  await pool.use((sql) => sql.listen('x', () => undefined))
  // @ts-expect-error -- nor does it begin
  await pool.use((sql) => sql.begin(() => undefined))
  // @ts-expect-error -- a savepoint is a transaction's
  await pool.use((sql) => sql.savepoint(() => undefined))
  // @ts-expect-error -- a deadline is a number
  pool.with({ timeoutMs: '5' })
  // @ts-expect-error -- no such option
  await pool.query('select 1', [], { timeout: 5 })
  // @ts-expect-error -- no such level
  await pool.transaction(() => 1, { isolation: 'snapshot' })
  expectTypeOf(await pool.transaction(async (sql) => await sql.savepoint(() => 7))).toEqualTypeOf<number>()
  await pool.transaction((sql) => expectTypeOf(sql).toEqualTypeOf<TransactionSql>())
  expectTypeOf(await pool.use(() => 'x')).toEqualTypeOf<string>()
  expectTypeOf(pool.outside(() => 'x')).toEqualTypeOf<string>()
  expectTypeOf(await pool.within({ timeoutMs: 1 }, () => 'x')).toEqualTypeOf<string>()
}

async function disposed(): Promise<void> {
  await using pool = createPool(url)
  await using lease = await pool.acquire()
  await using session = pool.session()
  await using listener = await pool.listen('x', () => undefined)
  await using object = await pool.sql.largeObject()
  void [lease, session, listener, object]
  // @ts-expect-error -- its end has to be waited for
  using other = createPool(url)
  void other
}

test('options, queries and what ends with a block are typed', () => {
  for (const typed of [options, queries, disposed]) expect(typed).toBeTypeOf('function')
})
