import { connect } from 'node:net'
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import type { ResetMode } from '../../src/driver.ts'
import { ConnectError } from '../../src/errors.ts'
import type { Connection } from '../../src/postgres/connection.ts'
import { applicationName } from '../../src/postgres/open.ts'
import type { PostgresPoolOptions } from '../../src/postgres/options.ts'
import type { PostgresSql } from '../../src/postgres/sql.ts'
import { DriverUnderTest, rejection, tcpServer } from '../support/connection.ts'
import { createDatabase, until } from '../support/database.ts'
import type { TestDatabase } from '../support/database.ts'

let db: TestDatabase
beforeAll(async () => {
  db = await createDatabase()
})
afterAll(() => db.drop())

interface Opened {
  under: DriverUnderTest
  connection: Connection
  sql: PostgresSql
}

async function open(options: PostgresPoolOptions = {}, url = db.url): Promise<Opened> {
  const under = new DriverUnderTest(url, options)
  const connection = await under.open()
  onTestFinished(async () => {
    await under.close(connection).catch(() => undefined)
  })
  return { under, connection, sql: under.sql(connection) }
}

async function openError(url: string, options: PostgresPoolOptions = {}, timeoutMs = 5_000): Promise<ConnectError> {
  const error = await rejection(new DriverUnderTest(url, options).open('failing', timeoutMs))
  if (!(error instanceof ConnectError)) throw error
  return error
}

function reset(under: DriverUnderTest, connection: Connection, mode: ResetMode = 'auto', ms = 5_000): Promise<void> {
  return under.driver.reset(connection, { mode, signal: AbortSignal.timeout(ms) })
}

function signal(): AbortSignal {
  return AbortSignal.timeout(10_000)
}

describe('PostgresDriver.open()', () => {
  test('PostgresDriver.open() names the session and asks the server to notice a dead client', async () => {
    const { sql, connection } = await open({ connection: { application_name: 'shop', lock_timeout: 4_000 } })
    const { tag, pid } = connection.identity
    const [row] = await sql`
      select current_setting('application_name') as name, pg_backend_pid() as pid,
        current_setting('client_connection_check_interval') as interval,
        current_setting('tcp_keepalives_idle') as idle, current_setting('lock_timeout') as lock`
    expect(row).toEqual({ name: `shop ${tag}`, pid, interval: '2s', idle: '10', lock: '4s' })
    expect(connection.identity.secret).toBeGreaterThan(0)
  })

  test('applicationName() keeps the tag whole within what the server keeps', () => {
    expect(applicationName('shop', 'tag-1')).toBe('shop tag-1')
    const long = applicationName('ü'.repeat(100), 'tag-1')
    expect(long).toBe(`${'?'.repeat(57)} tag-1`)
    expect(Buffer.byteLength(long)).toBe(63)
  })

  test('PostgresDriver.open() works over a unix socket', async () => {
    const { user, password, socketDirectory, port } = db.server
    const url = `postgres://${user}:${password}@/${db.name}?host=${socketDirectory}&port=${port}`
    const { sql, under, connection } = await open({}, url)
    expect([...(await sql`select inet_client_addr() as address`)]).toEqual([{ address: null }])
    const running = rejection(sql`select pg_sleep(60)`)
    await until(async () =>
      (await db.sessions()).some(({ state, query }) => state === 'active' && query.includes('60')),
    )
    connection.cancelAll()
    expect((await running).code).toBe('57014')
    await under.close(connection)
  })

  test('PostgresDriver.open() asks a function for the password, each time', async () => {
    let asked = 0
    const password = async (): Promise<string> => {
      asked++
      return db.server.password
    }
    const under = new DriverUnderTest(db.url, { password })
    for (const times of [1, 2]) {
      await under.close(await under.open())
      expect(asked).toBe(times)
    }
  })

  test('PostgresDriver.open() rejects for good with a wrong password and tells no password', async () => {
    const error = await openError(db.url, { password: 'hush-hush' })
    expect(error).toMatchObject({ retryable: false, doubtful: false, cause: { code: '28P01' } })
    const { host, port, user } = db.server
    expect(error.message).toContain(`${host}:${port} as "${user}" to database "${db.name}"`)
    expect(`${error.message} ${error.stack} ${JSON.stringify(error)}`).not.toMatch(/hush-hush|millpond-secret/)
    await db.sessionsToBe(0)
  })

  test('PostgresDriver.open() rejects for good where there is no such database', async () => {
    const error = await openError(db.url, { database: 'nowhere' })
    expect(error).toMatchObject({ retryable: false, doubtful: false, cause: { code: '3D000' } })
  })

  test('PostgresDriver.open() rejects for now where nothing listens, or the name is not known', async () => {
    let port = 0
    {
      await using server = await tcpServer(() => undefined)
      port = server.port
    }
    expect(await openError(db.url, { port })).toMatchObject({
      retryable: true,
      doubtful: false,
      cause: { code: 'ECONNREFUSED' },
    })
    expect(await openError(db.url, { host: '/nowhere' })).toMatchObject({ retryable: true, cause: { code: 'ENOENT' } })
  })

  test('PostgresDriver.open() rejects for now where a role has no connection left', async () => {
    await db.admin.unsafe(`create role narrow login password 'n' connection limit 0`)
    onTestFinished(async () => {
      await db.admin.unsafe('drop role narrow')
    })
    const error = await openError(db.url, { user: 'narrow', password: 'n' })
    expect(error).toMatchObject({ retryable: true, doubtful: false, cause: { code: '53300' } })
  })

  test('PostgresDriver.open() rejects once where a server accepts and closes', async () => {
    let sockets = 0
    await using server = await tcpServer((socket) => {
      sockets++
      socket.resume()
      socket.end()
    })
    const error = await openError(db.url, { port: server.port })
    expect(error).toMatchObject({ retryable: true, doubtful: false })
    expect(sockets).toBe(1)
  })

  test('PostgresDriver.open() rejects at once where the server asks for an unknown authentication', async () => {
    await using server = await tcpServer((socket) => {
      socket.once('data', () => socket.write(Buffer.from([0x52, 0, 0, 0, 8, 0, 0, 0, 7])))
      socket.on('end', () => socket.end())
    })
    const error = await openError(db.url, { port: server.port })
    expect(error.message).toContain('authentication (7) that is not supported')
    expect(error.doubtful).toBe(false)
  })

  test('PostgresDriver.open() leaves a deaf server at the deadline, in doubt', async () => {
    await using server = await tcpServer((socket) => socket.resume())
    const started = performance.now()
    const error = await openError(db.url, { port: server.port }, 100)
    expect(error).toMatchObject({ retryable: true, doubtful: true })
    expect(performance.now() - started).toBeLessThan(1_000)
  })

  test('PostgresDriver.open() leaves a password function that never settles at the deadline, not in doubt', async () => {
    const error = await openError(db.url, { password: () => new Promise<string>(() => undefined) }, 100)
    expect(error).toMatchObject({ retryable: true, doubtful: false })
    const throwing = await openError(db.url, { password: () => Promise.reject(new Error('no vault')) })
    expect(throwing.message).toContain('no vault')
  })

  test('PostgresDriver.open() goes without server checks where they are refused, and remembers it', async () => {
    let startups = 0
    await using pooler = await tcpServer((socket) => {
      socket.once('data', (startup) => {
        startups++
        if (startup.includes('tcp_keepalives_idle')) {
          const fields = 'SFATAL\0VFATAL\0C08P01\0Munsupported startup parameter\0\0'
          const head = Buffer.from([0x45, 0, 0, 0, fields.length + 4])
          socket.end(Buffer.concat([head, Buffer.from(fields)]))
          return
        }
        const upstream = connect(db.server.port, db.server.host)
        upstream.write(startup)
        upstream.pipe(socket)
        socket.pipe(upstream)
      })
    })
    const warnings: Error[] = []
    const note = (warning: Error): void => void warnings.push(warning)
    process.on('warning', note)
    const under = new DriverUnderTest(db.url, { port: pooler.port })
    await under.close(await under.open())
    expect(startups).toBe(2)
    await under.close(await under.open())
    expect(startups).toBe(3)
    await until(() => warnings.length > 0)
    process.off('warning', note)
    expect(warnings.map((warning) => warning.message)).toEqual([
      expect.stringContaining('will not notice dead clients'),
    ])
  })

  test('PostgresDriver.open() fails, and the process lives, where the array types cannot be read', async () => {
    const lock = await open()
    await lock.sql`begin`
    await lock.sql`lock table pg_catalog.pg_type in access exclusive mode`
    const error = await openError(db.url, { connection: { lock_timeout: 1 } }, 2_000)
    expect(error.retryable).toBe(true)
    expect(error.doubtful).toBe(false)
  })

  test('PostgresDriver.open() reads the array types once, for all connections', async () => {
    const first = await open()
    await first.sql`create type mood as enum ('sad', 'happy')`
    const under = new DriverUnderTest(db.url)
    const [one, two] = await Promise.all([under.open(), under.open()])
    expect(Math.max(one.roundTrips, two.roundTrips)).toBe(3)
    expect(Math.min(one.roundTrips, two.roundTrips)).toBe(2)
    for (const connection of [one, two]) {
      const sql = under.sql(connection)
      expect([...(await sql`select ${['sad', 'happy']}::mood[] as moods`)]).toEqual([{ moods: ['sad', 'happy'] }])
      await under.close(connection)
    }
    const without = await open({ fetch_types: false })
    expect([...(await without.sql`select '{sad}'::mood[] as moods`)]).toEqual([{ moods: '{sad}' }])
  })

  test('PostgresDriver.open() reads the array types whatever the user does to rows', async () => {
    const transform = { row: () => 'row', column: (name: string) => name.toUpperCase() }
    const { sql } = await open({ transform })
    expect(await sql`select ${['a']}::text[] as x`.values()).toEqual(['row'])
    expect([...(await sql`select 1 as x`)]).toEqual(['row'])
  })
})

describe('PostgresDriver.reset()', () => {
  test('PostgresDriver.needsReset() is false after plain queries: a clean release costs no round trip', async () => {
    const { under, connection, sql } = await open()
    await sql`create table plain (a int)`
    await sql`insert into plain ${sql([{ a: 1 }, { a: 2 }])}`
    await sql`select * from plain`
    await sql`begin`
    await sql`set local statement_timeout = 5000`
    await sql`commit`
    const sent = connection.roundTrips
    expect(under.driver.needsReset(connection, 'auto')).toBe(false)
    expect(under.driver.needsReset(connection, 'full')).toBe(true)
    expect(under.driver.needsReset(connection, 'none')).toBe(false)
    expect(connection.roundTrips).toBe(sent)
  })

  test.each(['T', 'E'])('PostgresDriver.reset() rolls back a transaction in status %s', async (status) => {
    const { under, connection, sql } = await open()
    const table = `rolled_${status}`.toLowerCase()
    await sql`create table ${sql(table)} (a int)`
    await sql`begin`
    await sql`insert into ${sql(table)} values (1)`
    if (status === 'E') await rejection(sql`select 1/0`)
    expect(connection.status).toBe(status)
    expect(under.driver.needsReset(connection, 'auto')).toBe(true)
    const sent = connection.roundTrips
    await reset(under, connection)
    expect(connection.roundTrips).toBe(sent + 1)
    expect(connection.status).toBe('I')
    expect([...(await sql`select * from ${sql(table)}`)]).toEqual([])
    expect(under.driver.needsReset(connection, 'auto')).toBe(false)
  })

  test('PostgresDriver.reset() undoes what a session can keep, and prepared statements go on working', async () => {
    const { under, connection, sql } = await open({ connection: { statement_timeout: 9_000 } })
    const read = (): PromiseLike<readonly unknown[]> => sql`
      select current_setting('statement_timeout') as timeout, current_user as user,
        (select count(*)::int from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()) as locks,
        (select count(*)::int from pg_listening_channels()) as channels,
        to_regclass('scratch') is null as no_table,
        current_setting('application_name') as name`
    const [before] = await read()
    await sql`begin`
    await sql`select set_config('statement_timeout', '1234', false)`
    await sql`set application_name = 'changed'`
    await sql`select pg_advisory_lock(7)`
    await sql`listen changes`
    await sql`create temp table scratch as select 1`
    await sql`set role pg_monitor`
    await sql`commit`
    expect((await read())[0]).not.toEqual(before)
    await sql`begin`
    const sent = connection.roundTrips
    await reset(under, connection)
    expect(connection.roundTrips).toBe(sent + 1)
    expect((await read())[0]).toEqual(before)
    expect(under.driver.needsReset(connection, 'auto')).toBe(false)
  })

  test('PostgresDriver.reset() in mode full cleans what nothing shows', async () => {
    const { under, connection, sql } = await open()
    await sql.unsafe(`create function hide() returns void language sql as $$ select set_config('a.b', 'c', false) $$`)
    await reset(under, connection, 'full')
    await sql`select hide()`
    expect(under.driver.needsReset(connection, 'auto')).toBe(false)
    await reset(under, connection, 'full')
    expect((await sql`select current_setting('a.b', true) as b`)[0]?.['b'] || null).toBe(null)
  })

  test.each(['prepare p as select 1', 'deallocate all', 'discard plans'])(
    'PostgresDriver.reset() rejects after %s: no reset undoes it',
    async (text) => {
      const { under, connection, sql } = await open()
      await sql.unsafe(text)
      expect(under.driver.needsReset(connection, 'auto')).toBe(true)
      await expect(reset(under, connection)).rejects.toThrow('what no reset undoes')
    },
  )

  test('PostgresDriver.reset() lets a query that still runs finish', async () => {
    const { under, connection, sql } = await open()
    const running = sql`select pg_sleep(0.05), 5 as n`.execute()
    await until(() => !connection.idle)
    await reset(under, connection)
    expect(connection.idle).toBe(true)
    expect((await running)[0]?.['n']).toBe(5)
  })

  test('PostgresDriver.reset() cancels a query that does not finish in time, and rejects', async () => {
    const { under, connection, sql } = await open()
    const running = rejection(sql`select pg_sleep(60)`)
    await until(() => !connection.idle)
    await rejection(reset(under, connection, 'auto', 50))
    expect((await running).code).toBe('57014')
  })

  test('PostgresDriver.reset() rejects at once where a COPY or a cursor was left unfinished', async () => {
    const copying = await open()
    await copying.sql`create table unfinished (a int)`
    const writable = await copying.sql`copy unfinished from stdin`.writable()
    writable.on('error', () => undefined)
    await expect(reset(copying.under, copying.connection)).rejects.toThrow('unfinished')
    await copying.under.close(copying.connection)

    const reading = await open()
    const cursor = reading.sql`select g from generate_series(1,5) g`.cursor(2)[Symbol.asyncIterator]()
    await cursor.next()
    await expect(reset(reading.under, reading.connection)).rejects.toThrow('unfinished')
    await reading.under.close(reading.connection)
  })

  test('PostgresDriver.reset() waits for the goodbye of a cursor that was just left', async () => {
    const { under, connection, sql } = await open()
    for await (const _ of sql`select g from generate_series(1,5) g`.cursor(2)) break
    await reset(under, connection)
    expect([...(await sql`select 1 as one`)]).toEqual([{ one: 1 }])
  })
})

describe('PostgresDriver.reap()', () => {
  test('PostgresDriver.reap() ends a session through a living connection', async () => {
    const { under, connection: via } = await open()
    const victim = await open()
    const running = rejection(victim.sql`select pg_sleep(60)`)
    expect(await under.driver.reap(victim.connection.identity, { via, signal: signal() })).toBe(true)
    expect((await db.sessions()).map(({ pid }) => pid)).toEqual([via.identity.pid])
    await running
  })

  test('PostgresDriver.reap() harms nobody who has the pid or a similar tag', async () => {
    const { under, connection: via } = await open()
    const bystander = await open()
    const { pid, secret, tag } = bystander.connection.identity
    expect(await under.driver.reap({ pid, secret, tag: 'gone' }, { via, signal: signal() })).toBe(true)
    expect(await under.driver.reap({ pid: 0, secret: 0, tag: tag.slice(1) }, { via, signal: signal() })).toBe(true)
    expect(await under.driver.reap({ pid: pid + 1, secret, tag }, { via, signal: signal() })).toBe(true)
    expect([...(await bystander.sql`select 1 as one`)]).toEqual([{ one: 1 }])
  })

  test('PostgresDriver.reap() does not take a session for gone that has changed its name', async () => {
    const under = new DriverUnderTest(db.url)
    const [via, victim] = [await under.open(), await under.open()]
    const { identity } = victim
    await victim.ask("set application_name = 'mine'")
    // It catches what cancels it, so it lives on for a while.
    const running = victim.ask(
      `do $$ begin perform pg_sleep(30); exception when query_canceled then perform pg_sleep(0.3); end $$`,
    )
    running.catch(() => undefined)
    await until(async () => (await db.sessions()).some(({ pid, state }) => pid === identity.pid && state === 'active'))
    expect(await rejection(under.driver.reap(identity, { via, signal: AbortSignal.timeout(100) }))).toBeDefined()
    expect((await db.sessions()).map(({ pid }) => pid)).toContain(identity.pid)
    await running
    const ending = under.close(victim)
    const next = await under.open()
    expect(await under.driver.reap(identity, { via: next, signal: signal() })).toBe(true)
    expect((await db.sessions()).map(({ pid }) => pid)).not.toContain(identity.pid)
    await ending
    await under.close(next)
    await under.close(via)
  })

  test('PostgresDriver.reap() finds a session by its tag alone', async () => {
    const { under, connection: via } = await open()
    const victim = await open()
    const { tag } = victim.connection.identity
    expect(await under.driver.reap({ pid: 0, secret: 0, tag }, { via, signal: signal() })).toBe(true)
    await until(() => victim.connection.isLost)
  })

  test('PostgresDriver.reap() without a living connection opens one of its own, and closes it', async () => {
    const victim = await open()
    const under = new DriverUnderTest(db.url)
    const running = rejection(victim.sql`select pg_sleep(60)`)
    await until(() => !victim.connection.idle)
    expect(await under.driver.reap(victim.connection.identity, { via: undefined, signal: signal() })).toBe(true)
    await running
    expect(await db.sessions()).toEqual([])
  })

  test('PostgresDriver.reap() rejects where the server cannot be asked', async () => {
    let port = 0
    {
      await using server = await tcpServer(() => undefined)
      port = server.port
    }
    const under = new DriverUnderTest(db.url, { port })
    const identity = { pid: 1, secret: 1, tag: 'gone' }
    expect(await rejection(under.driver.reap(identity, { via: undefined, signal: signal() }))).toBeInstanceOf(
      ConnectError,
    )
  })
})

describe('PostgresDriver.ping()', () => {
  test('PostgresDriver.ping() makes one round trip, and rejects at its deadline', async () => {
    const { under, connection, sql } = await open()
    const sent = connection.roundTrips
    await under.driver.ping(connection, AbortSignal.timeout(1_000))
    expect(connection.roundTrips).toBe(sent + 1)
    const running = sql`select pg_sleep(0.2)`.execute()
    await until(() => !connection.idle)
    await rejection(under.driver.ping(connection, AbortSignal.timeout(20)))
    await running
  })
})
