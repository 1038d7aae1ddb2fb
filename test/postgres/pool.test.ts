import { Readable } from 'node:stream'
import { inspect } from 'node:util'
import { connect } from 'node:net'
import type { Socket } from 'node:net'
import postgres from 'postgres'
import { afterAll, beforeAll, describe, expect, onTestFinished, test, vi } from 'vitest'
import {
  AcquireTimeoutError,
  ConnectError,
  ConnectionLostError,
  LeaseReleasedError,
  PoolClosedError,
  TransactionOutcomeUnknownError,
} from '../../src/errors.ts'
import { createPool } from '../../src/postgres/index.ts'
import type { PostgresPool, PostgresPoolOptions } from '../../src/postgres/index.ts'
import { rejection, tcpServer } from '../support/connection.ts'
import { createDatabase, until } from '../support/database.ts'
import type { TestDatabase } from '../support/database.ts'
import { makePool } from '../support/pool.ts'

let db: TestDatabase
beforeAll(async () => {
  db = await createDatabase()
})
afterAll(() => db.drop())

const make = (options?: PostgresPoolOptions): PostgresPool => makePool(db, options)

const running = async (text: string): Promise<number | undefined> =>
  (await db.sessions()).find(({ state, query }) => state === 'active' && query.includes(text))?.pid

async function kill(pool: PostgresPool): Promise<void> {
  await db.admin`select pg_terminate_backend(pid) from pg_stat_activity where datname = ${db.name}`
  await until(() => pool.stats().idle === 0)
}

describe('createPool()', () => {
  test('createPool() makes a pool that tools recognise by its name', () => {
    expect(make().constructor.name).toContain('Pool')
  })

  test('createPool() does no I/O, and needs a server to be named', async () => {
    make({ min: 1 })
    expect(await db.sessions()).toEqual([])
    const { PGHOST } = process.env
    delete process.env['PGHOST']
    try {
      expect(() => createPool(undefined)).toThrow(expect.objectContaining({ code: 'ERR_OPTION' }))
    } finally {
      if (PGHOST !== undefined) process.env['PGHOST'] = PGHOST
    }
  })

  test('createPool() connects where the environment says', async () => {
    const { host, port, user, password } = db.server
    onTestFinished(() => void vi.unstubAllEnvs())
    const variables = { PGHOST: host, PGPORT: String(port), PGUSER: user, PGPASSWORD: password, PGDATABASE: db.name }
    for (const [name, value] of Object.entries(variables)) vi.stubEnv(name, value)
    vi.stubEnv('PGOPTIONS', '-c statement_timeout=7s')
    await using pool = createPool(undefined)
    const [row] = await pool.sql`
      select current_user as user, current_database() as database, current_setting('statement_timeout') as timeout`
    expect(row).toEqual({ user, database: db.name, timeout: '7s' })
  })

  test('createPool() checks the options of the pool as well', () => {
    expect(() => createPool(db.url, { max: 0 })).toThrow(RangeError)
  })
})

describe('PostgresPool.sql', () => {
  test('PostgresPool.sql acquires nothing before a query runs', async () => {
    const pool = make()
    const query = pool.sql`select 1 as one`
    await new Promise((resolve) => {
      setImmediate(resolve)
    })
    expect(pool.stats().acquires).toBe(0)
    expect([...(await query)]).toEqual([{ one: 1 }])
    expect(pool.stats().acquires).toBe(1)
  })

  test('PostgresPool.sql gives each query its own answer, on no more connections than max', async () => {
    const pool = make()
    const numbers = Array.from({ length: 200 }, (_, i) => i)
    const rows = await Promise.all(
      numbers.map(async (i) => {
        if (i % 10 === 3) return (await rejection(pool.sql`select 1/(g-2) from generate_series(1,3) g`)).code
        if (i % 10 === 7) return (await rejection(pool.sql`select ${undefined as never}`)).code
        return (await pool.sql`select ${i}::int as i`)[0]?.['i'] as unknown
      }),
    )
    expect(rows).toEqual(numbers.map((i) => (i % 10 === 3 ? '22012' : i % 10 === 7 ? 'UNDEFINED_VALUE' : i)))
    expect((await db.sessions()).length).toBeLessThanOrEqual(2)
    await until(() => pool.stats().leased === 0)
    expect(pool.stats()).toMatchObject({ open: 2, idle: 2, waiting: 0 })
  })

  test('PostgresPool.sql keeps the connection until the answer is complete, not until the promise settles', async () => {
    const pool = make({ max: 1 })
    const readable = await pool.sql`copy (select g from generate_series(1,3) g) to stdout`.readable()
    let text = ''
    for await (const chunk of readable) text += String(chunk)
    expect(text).toBe('1\n2\n3\n')
    expect((await pool.sql`select 1 as a`.describe()).columns.length).toBe(1)
    for await (const _ of pool.sql`select g from generate_series(1,5) g`.cursor(2)) break
    expect([...(await pool.sql`select 2 as two`)]).toEqual([{ two: 2 }])
    await until(() => pool.stats().leased === 0)
    expect(pool.stats().opens).toBe(1)
  })

  test('PostgresPool.sql cleans up after a one-shot that touched its session', async () => {
    const pool = make({ max: 1 })
    await pool.sql`set statement_timeout = '3s'`
    expect((await pool.sql`show statement_timeout`)[0]).toEqual({ statement_timeout: '0' })
    await pool.sql.unsafe('begin; create table left_open (a int)')
    expect((await pool.sql`select to_regclass('left_open') as t`)[0]).toEqual({ t: null })
    expect(pool.stats().opens).toBe(1)
  })

  test('PostgresPool.sql can be cancelled while it waits for a connection, and while it runs', async () => {
    const pool = make({ max: 1 })
    const first = pool.sql`select pg_sleep(60)`
    const second = pool.sql`select 2`
    const errors = [rejection(first), rejection(second)]
    await until(() => pool.stats().waiting === 1)
    second.cancel()
    expect((await errors[1])?.code).toBe('57014')
    await until(() => pool.stats().waiting === 0)
    await db.toRun('pg_sleep(60)')
    first.cancel()
    expect((await errors[0])?.code).toBe('57014')
    expect([...(await pool.sql`select 3 as three`)]).toEqual([{ three: 3 }])
    expect(pool.stats().opens).toBe(1)
  })

  test('PostgresPool.sql goes on after the server has ended all sessions', async () => {
    const pool = make()
    const lost = rejection(pool.sql`select pg_sleep(60)`)
    await db.toRun('pg_sleep(60)')
    await kill(pool)
    expect(await lost).toMatchObject({ code: 'ERR_CONNECTION_LOST', cause: { code: '57P01' } })
    expect([...(await pool.sql`select 1 as one`)]).toEqual([{ one: 1 }])
  })

  test('PostgresPool.sql fails at once with what retrying cannot cure, and tells no password', async () => {
    const pool = make({ password: 'hush-hush' })
    const wrong = await rejection(pool.sql`select 1`)
    expect(wrong).toBeInstanceOf(ConnectError)
    expect(wrong).toMatchObject({ retryable: false })
    expect(`${wrong.message} ${wrong.stack} ${inspect(wrong)}`).not.toMatch(/hush-hush|millpond-secret/)
  })

  test('PostgresPool.sql fails at its deadline where nobody listens, and tells no password', async () => {
    const closed = createPool(db.url.replace(String(db.server.port), '1'), { acquireTimeoutMs: 200 })
    const error = await rejection(closed.sql`select 1`)
    expect(error).toBeInstanceOf(AcquireTimeoutError)
    expect(error.message).toContain('ECONNREFUSED')
    expect(`${error.message} ${error.stack} ${inspect(error)}`).not.toContain('millpond-secret')
    await closed.close()
  })

  test('PostgresPool.sql.notify() reaches who listens', async () => {
    const client = postgres(db.url, { max: 1, fetch_types: false })
    onTestFinished(() => client.end())
    const heard: string[] = []
    await client.listen('channel', (text) => heard.push(text))
    await make().sql.notify('channel', 'text')
    await until(() => heard.length === 1)
    expect(heard).toEqual(['text'])
  })
})

describe('PostgresLease', () => {
  test('PostgresLease.sql stays on one connection, and is cleaned when the lease ends', async () => {
    const pool = make()
    let pid: unknown
    await pool.use(async (sql, lease) => {
      expect(lease.connection).toBe(sql)
      await sql`set statement_timeout = '2s'`
      await sql`create temp table mine as select 1 as a`
      const rows = await Promise.all([
        sql`select pg_backend_pid() as pid`,
        sql`select pg_backend_pid() as pid from mine`,
      ])
      pid = rows[0][0]?.['pid']
      expect(rows[1][0]?.['pid']).toBe(pid)
    })
    const lease = await pool.acquire()
    const [row] = await lease.sql`
      select pg_backend_pid() as pid, current_setting('statement_timeout') as timeout, to_regclass('mine') as mine`
    expect(row).toEqual({ pid, timeout: '0', mine: null })
    await lease.release()
  })

  test('PostgresLease.release() makes no round trip after plain queries', async () => {
    let syncs = 0
    await using proxy = await tcpServer((socket) => {
      const upstream = connect(db.server.port, db.server.host)
      upstream.pipe(socket)
      socket.on('data', () => syncs++)
      socket.pipe(upstream)
    })
    const pool = make({ port: proxy.port, max: 1 })
    const lease = await pool.acquire()
    await lease.sql`select 1`
    const before = syncs
    await lease.release()
    const again = await pool.acquire()
    expect(syncs).toBe(before)
    await again.release()
    await pool.close()
  })

  test('PostgresLease.sql rejects after the release', async () => {
    const pool = make()
    const lease = await pool.acquire()
    const { sql } = lease
    const made = sql`select 1`
    await lease.release()
    expect(await rejection(made)).toBeInstanceOf(LeaseReleasedError)
    expect(await rejection(sql`select 1`)).toBeInstanceOf(LeaseReleasedError)
    expect(() => lease.cancel()).toThrow(LeaseReleasedError)
    expect(lease.released).toBe(true)
  })

  test('PostgresLease.release() lets a query finish that was not awaited', async () => {
    const pool = make({ max: 1 })
    await pool.sql`create table late (a int)`
    const lease = await pool.acquire()
    await using lock = make({ max: 1 }).session()
    await lock.sql`lock table late`
    const insert = lease.sql`insert into late values (1)`.execute()
    await db.toRun('insert into late')
    const released = lease.release()
    await lock.rollback()
    await Promise.all([released, insert])
    expect((await pool.sql`select count(*)::int as n from late`)[0]).toEqual({ n: 1 })
    expect(pool.stats().opens).toBe(1)
  })

  test('PostgresLease.release() closes a connection whose COPY was left unfinished', async () => {
    const pool = make({ max: 1 })
    await pool.sql`create table half (a int)`
    const lease = await pool.acquire()
    const writable = await lease.sql`copy half from stdin`.writable()
    writable.on('error', () => undefined)
    Readable.from(['1\n']).pipe(writable, { end: false })
    await lease.release()
    expect((await pool.sql`select count(*)::int as n from half`)[0]).toEqual({ n: 0 })
    expect(pool.stats()).toMatchObject({ opens: 2, closes: { 'reset failed': 1 } })
  })

  test('PostgresLease.cancel() ends what runs; the lease goes on', async () => {
    const pool = make()
    const lease = await pool.acquire()
    const error = rejection(lease.sql`select pg_sleep(60)`)
    await db.toRun('pg_sleep(60)')
    lease.cancel()
    expect((await error).code).toBe('57014')
    expect([...(await lease.sql`select 1 as one`)]).toEqual([{ one: 1 }])
    await lease.release()
    expect(pool.stats().opens).toBe(1)
  })

  test('PostgresPool.tryAcquire() lends what is idle, or nothing', async () => {
    const pool = make()
    expect(pool.tryAcquire()).toBeUndefined()
    await pool.sql`select 1`
    await until(() => pool.stats().idle === 1)
    const lease = pool.tryAcquire()
    if (!lease) throw new Error('nothing was lent')
    expect([...(await lease.sql`select 1 as one`)]).toEqual([{ one: 1 }])
    await lease.destroy('for the test')
    await until(() => pool.stats().closing === 0)
    expect(pool.stats().open).toBe(0)
    expect(await db.sessions()).toEqual([])
  })
})

const table = async (pool: PostgresPool, name: string): Promise<() => Promise<unknown[]>> => {
  await pool.sql`create table ${pool.sql(name)} (a int primary key)`
  return async () => (await pool.sql`select a from ${pool.sql(name)} order by a`).map((row) => row['a'] as unknown)
}

describe('PostgresPool.transaction()', () => {
  test('PostgresPool.transaction() commits, and rolls back when the callback throws', async () => {
    const pool = make({ max: 1 })
    const read = await table(pool, 'tx_commit')
    expect(await pool.transaction((sql) => sql`insert into tx_commit values (1) returning a`)).toEqual([{ a: 1 }])
    const broken = new Error('no')
    const attempt = pool.transaction(async (sql) => {
      await sql`insert into tx_commit values (2)`
      throw broken
    })
    expect(await rejection(attempt)).toBe(broken)
    expect(await read()).toEqual([1])
    expect(pool.stats().opens).toBe(1)
  })

  test('PostgresPool.transaction() begins as it is told to', async () => {
    const pool = make()
    const options = { isolation: 'serializable', readOnly: true, deferrable: true } as const
    const [row] = await pool.transaction(
      (sql) => sql`
        select current_setting('transaction_isolation') as isolation, current_setting('transaction_read_only') as ro,
          current_setting('transaction_deferrable') as deferrable`,
      options,
    )
    expect(row).toEqual({ isolation: 'serializable', ro: 'on', deferrable: 'on' })
    for (const isolation of ['read uncommitted', 'read committed', 'repeatable read', 'serializable'] as const) {
      const shown = await pool.transaction(() => pool.sql`show transaction_isolation`, { isolation })
      expect([...shown]).toEqual([{ transaction_isolation: isolation }])
    }
    const strict = make({ connection: { default_transaction_read_only: true, default_transaction_deferrable: true } })
    const loose = { readOnly: false, deferrable: false }
    expect(
      await strict.transaction(
        async (sql) => [await sql`show transaction_read_only`, await sql`show transaction_deferrable`],
        loose,
      ),
    ).toEqual([[{ transaction_read_only: 'off' }], [{ transaction_deferrable: 'off' }]])
    const wrong = pool.transaction(() => undefined, { isolation: 'loose' as never })
    expect((await rejection(wrong)).code).toBe('ERR_OPTION')
  })

  test('PostgresPool.transaction() throws the first error of a statement, even if the callback caught it', async () => {
    const pool = make()
    const read = await table(pool, 'tx_first')
    const attempt = pool.transaction(async (sql) => {
      await sql`insert into tx_first values (1)`
      await rejection(sql`select 1/0`)
      await rejection(sql`select 2`)
      return 'fine'
    })
    expect((await rejection(attempt)).code).toBe('22012')
    expect(await read()).toEqual([])
    const further = pool.transaction(async (sql) => {
      await rejection(sql`select 1/0`)
      await sql.savepoint(() => undefined)
    })
    expect((await rejection(further)).code).toBe('22012')
  })

  test('PostgresPool.transaction() does not wait for ever for a query that its callback left behind', async () => {
    const pool = make({ max: 1, resetTimeoutMs: 100 })
    const broken = new Error('no')
    let left: ReturnType<typeof rejection> | undefined
    const attempt = pool.transaction(async (sql) => {
      left = rejection(sql`select pg_sleep(60)`)
      await db.toRun('pg_sleep(60)')
      throw broken
    })
    expect(await rejection(attempt)).toBe(broken)
    expect((await left)?.code).toMatch(/57014|ERR_CONNECTION_LOST/)
    expect([...(await pool.sql`select 1 as one`)]).toEqual([{ one: 1 }])
  })

  test('PostgresPool.transaction() includes what the callback did not await', async () => {
    const pool = make()
    const read = await table(pool, 'tx_unawaited')
    await pool.transaction((sql) => {
      void sql`insert into tx_unawaited values (1)`.execute()
      return Promise.resolve()
    })
    expect(await read()).toEqual([1])
  })

  test('PostgresPool.transaction() rolls a savepoint back alone, and nested ones', async () => {
    const pool = make()
    const read = await table(pool, 'tx_savepoint')
    await pool.transaction(async (sql) => {
      await sql`insert into tx_savepoint values (1)`
      const inner = sql.savepoint(async (first) => {
        await first`insert into tx_savepoint values (2)`
        await first.savepoint((second) => second`insert into tx_savepoint values (3)`)
        await first`insert into tx_savepoint values (1)`
      })
      expect((await rejection(inner)).code).toBe('23505')
      const swallowed = sql.savepoint(async (first) => {
        await rejection(first`select 1/0`)
      })
      expect((await rejection(swallowed)).code).toBe('22012')
      await sql.savepoint((first) => first`insert into tx_savepoint values (4)`)
    })
    expect(await read()).toEqual([1, 4])
  })

  test('PostgresPool.transaction() gives a tag that is dead after the end', async () => {
    const pool = make()
    const leaked = await pool.transaction((sql) => ({ sql }))
    expect(await rejection(leaked.sql`select 1`)).toBeInstanceOf(LeaseReleasedError)
    expect(await rejection(leaked.sql.savepoint(() => undefined))).toBeInstanceOf(LeaseReleasedError)
  })

  test('PostgresPool.transaction() rejects when COMMIT itself fails', async () => {
    const pool = make({ max: 1 })
    await pool.sql`create table tx_deferred (a int unique deferrable initially deferred)`
    const attempt = pool.transaction((sql) => sql`insert into tx_deferred values (1), (1)`)
    expect((await rejection(attempt)).code).toBe('23505')
    expect(pool.stats().opens).toBe(1)
  })

  test('PostgresPool.transaction() rejects with the loss where the connection is lost before COMMIT', async () => {
    const pool = make()
    const attempt = pool.transaction(async (sql) => {
      await sql`select 1`
      await kill(pool)
      await rejection(sql`select 2`)
    })
    const error = await rejection(attempt)
    expect(error).toBeInstanceOf(ConnectionLostError)
  })

  test('PostgresPool.transaction() does not know the outcome where the connection is lost after COMMIT was sent', async () => {
    // The proxy cuts both sides when it sees COMMIT; whether the server does is not known to the client.
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
    const error = await rejection(pool.transaction((sql) => sql`select 1`))
    expect(error).toBeInstanceOf(TransactionOutcomeUnknownError)
    expect(error.cause).toBeInstanceOf(ConnectionLostError)
  })
})

describe('PostgresPool and a session whose end was not seen', () => {
  test('PostgresPool counts it until another connection has ended it on the server', async () => {
    const sockets: Socket[] = []
    await using proxy = await tcpServer((socket) => {
      sockets.push(socket)
      const upstream = connect(db.server.port, db.server.host)
      upstream.on('error', () => undefined)
      upstream.pipe(socket)
      socket.on('data', (chunk) => upstream.write(chunk))
      socket.on('end', () => upstream.end())
      // Reset on this side only: the server goes on with the session.
    })
    const pool = make({ port: proxy.port })
    const first = await pool.acquire()
    const second = await pool.acquire()
    const lost = rejection(first.sql`select pg_sleep(60), 'orphan'`)
    await db.toRun('orphan')
    await second.release()
    sockets[0]?.resetAndDestroy()
    expect(await lost).toBeInstanceOf(ConnectionLostError)
    await first.release()
    await until(async () => (await running('orphan')) === undefined, 'the orphan to be ended')
    await until(() => pool.stats().doubtful === 0 && pool.stats().closing === 0)
    expect(await db.sessions()).toHaveLength(1)
    await pool.close()
  })
})

describe('PostgresPool.close()', () => {
  test('PostgresPool.close() resolves when the server counts no session of it any more', async () => {
    const pool = make({ max: 2 })
    for (const lease of [await pool.acquire(), await pool.acquire()]) await lease.release()
    expect(await db.sessions()).toHaveLength(2)
    await pool.close()
    expect(await db.sessions()).toEqual([])
    expect(await rejection(pool.sql`select 1`)).toBeInstanceOf(PoolClosedError)
    expect(await rejection(pool.transaction(() => undefined))).toBeInstanceOf(PoolClosedError)
  })

  test('PostgresPool.close() revokes a lease at the deadline: its query ends on the server', async () => {
    const pool = make()
    const lease = await pool.acquire()
    const error = rejection(lease.sql`select pg_sleep(60)`)
    await db.toRun('pg_sleep(60)')
    expect(await pool.close({ timeoutMs: 50 })).toEqual({ revoked: 1 })
    expect(await error).toBeInstanceOf(ConnectionLostError)
    expect(await db.sessions()).toEqual([])
    expect((await rejection(lease.sql`select 1`)).code).toBe('ERR_LEASE_REVOKED')
  })
})

describe('hold and wait', () => {
  test('PostgresPool.acquire() that times out inside a transaction names the lease that its caller holds', async () => {
    await using pool = createPool(db.url, { max: 1 })
    const error = await pool
      .transaction(async () => {
        await pool.acquire({ timeoutMs: 30 })
      })
      .catch((thrown: unknown) => thrown)
    expect(error).toMatchObject({ code: 'ERR_ACQUIRE_TIMEOUT', holds: { connection: expect.stringMatching(/^mp/) } })
  })
})

describe('PostgresPool.evict(), resize() and releaseIdle()', () => {
  test('PostgresPool replaces, bounds and gives up its sessions, as the server sees them', async () => {
    await using pool = createPool(db.url, { max: 3 })
    const pid = async (): Promise<unknown> => (await pool.sql`select pg_backend_pid() as pid`)[0]?.['pid']
    const first = await pid()
    expect(await pid()).toBe(first)
    pool.evict()
    expect(await pid()).not.toBe(first)
    pool.resize({ min: 2 })
    await until(() => pool.stats().idle === 2)
    pool.resize({ min: 0 })
    await pool.releaseIdle()
    expect(pool.stats()).toMatchObject({ open: 0, closing: 0 })
    await db.sessionsToBe(0)
  })
})
