import { readFileSync } from 'node:fs'
import { connect } from 'node:net'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { startServer } from '../../bench/support/embedded.ts'
import type { EmbeddedServer } from '../../bench/support/embedded.ts'
import { ConnectionLostError } from '../../src/errors.ts'
import { createPool } from '../../src/postgres/index.ts'
import type { PostgresPool, PostgresPoolOptions, PostgresSql } from '../../src/postgres/index.ts'
import { ServerClosedError } from '../../src/postgres/wire.ts'
import { rejection, tcpServer } from '../support/connection.ts'
import { createDatabase, until } from '../support/database.ts'
import type { TestDatabase } from '../support/database.ts'

let db: TestDatabase
beforeAll(async () => {
  db = await createDatabase()
})
afterAll(() => db.drop())

function make(options: PostgresPoolOptions = {}, url = db.url): PostgresPool {
  const pool = createPool(url, { max: 1, ...options })
  onTestFinished(async () => {
    await pool.close({ timeoutMs: 100 })
  })
  return pool
}

const kill = async (): Promise<void> =>
  void (await db.admin`select pg_terminate_backend(pid) from pg_stat_activity where datname = ${db.name}`)

const seen = (text: string): Promise<void> =>
  until(async () => (await db.sessions()).some(({ query }) => query.includes(text)), text)

const lost = (code: string): object => ({ name: 'ConnectionLostError', code: 'ERR_CONNECTION_LOST', cause: { code } })
const ended = lost('57P01')

/** The pool lends a new connection, and counts none but that. */
async function expectReplaced(pool: PostgresPool, opens = 2): Promise<void> {
  expect([...(await pool.sql`select 1 as one`)]).toEqual([{ one: 1 }])
  await until(() => pool.stats().idle === 1)
  expect(pool.stats()).toMatchObject({ open: 1, opens, doubtful: 0, waiting: 0 })
  await until(() => pool.stats().closing === 0)
  expect(await db.sessions()).toHaveLength(1)
}

/** Nothing hangs and nothing is sent: the lease is dead. */
async function expectDead(sql: PostgresSql): Promise<void> {
  const startedAt = performance.now()
  for (let i = 0; i < 3; i++) expect(await rejection(sql`select ${i}::int`)).toMatchObject(ended)
  expect(performance.now() - startedAt).toBeLessThan(500)
}

/** Rows of a COPY, whose session is ended after the first one. */
async function* lines(): AsyncGenerator<string> {
  yield 'a\n'
  await seen('copy copied')
  await kill()
  for (;;) {
    await new Promise((resolve) => {
      setImmediate(resolve)
    })
    yield 'b\n'
  }
}

/** Passes bytes until `deaf()`; connections that are made afterwards pass. */
async function swamp(): Promise<{ port: number; deaf: () => void } & AsyncDisposable> {
  let before = { deaf: false }
  const proxy = await tcpServer((socket) => {
    const mine = before
    const upstream = connect(db.server.port, db.server.host)
    upstream.on('error', () => undefined)
    upstream.on('data', (chunk) => void (mine.deaf || socket.write(chunk)))
    upstream.on('end', () => void (mine.deaf || socket.end()))
    socket.on('data', (chunk) => void (mine.deaf || upstream.write(chunk)))
    socket.on('end', () => void (mine.deaf || upstream.end()))
  })
  return {
    port: proxy.port,
    deaf() {
      before.deaf = true
      before = { deaf: false }
    },
    [Symbol.asyncDispose]: () => proxy[Symbol.asyncDispose](),
  }
}

describe('a session that the server ends', () => {
  test('a session that ends idle in the pool is replaced, and nobody hears of it', async () => {
    const pool = make()
    await pool.sql`select 1`
    await kill()
    await until(() => pool.stats().open === 0)
    expect(pool.stats().closes.broken).toBe(1)
    await expectReplaced(pool)
  })

  test('a session that ends idle in a lease leaves a lease that is dead at once', async () => {
    const pool = make()
    const lease = await pool.acquire()
    await lease.sql`select 1`
    await kill()
    await until(() => pool.stats().leased === 0)
    await expectDead(lease.sql)
    await lease.release()
    await expectReplaced(pool)
  })

  test('a session that ends while it runs fails what runs and what waits behind it', async () => {
    const pool = make()
    const lease = await pool.acquire()
    const queries = [
      lease.sql`select pg_sleep(60)`,
      lease.sql`select 2`,
      lease.sql.unsafe('select 3; select 4').simple(),
    ]
    const failed = queries.map(rejection)
    const waits = pool.sql`select 1 as one`.execute()
    await seen('pg_sleep(60)')
    await kill()
    for (const error of await Promise.all(failed)) expect(error).toMatchObject(ended)
    // Who waits for a connection gets the next one, though nothing has been released.
    expect([...(await waits)]).toEqual([{ one: 1 }])
    await expectDead(lease.sql)
    await lease.release()
    await expectReplaced(pool)
  })

  test('a session that ends in a transaction ends the transaction: nothing of it is sent again', async () => {
    const pool = make()
    await pool.sql`create table once (a int)`
    for (const how of ['idle', 'running'] as const) {
      const errors: unknown[] = []
      const attempt = pool.transaction(async (sql) => {
        await sql`insert into once values (1)`
        if (how === 'idle') await kill()
        const running = how === 'running' ? rejection(sql`select pg_sleep(60)`) : undefined
        if (running) {
          await seen('pg_sleep(60)')
          await kill()
          errors.push(await running)
        }
        await until(() => pool.stats().leased === 0)
        errors.push(await rejection(sql`insert into once values (2)`))
        errors.push(await rejection(pool.sql`insert into once values (3)`))
        errors.push(await rejection(sql.savepoint((inner) => inner`insert into once values (4)`)))
      })
      expect(await rejection(attempt)).toBeInstanceOf(ConnectionLostError)
      for (const error of errors) expect(error).toMatchObject(ended)
      expect(errors.length).toBe(how === 'idle' ? 3 : 4)
    }
    expect([...(await pool.sql`select * from once`)]).toEqual([])
    await expectReplaced(pool, 3)
    await pool.sql`drop table once`
  })

  test('a session that ends in a COPY fails its stream, in both directions', async () => {
    const pool = make()
    await pool.sql`create table copied (a text)`
    const out = await pool.sql`copy (select repeat('x', 1000) from generate_series(1, 200000)) to stdout`.readable()
    const read = async (): Promise<void> => {
      for await (const _ of out) await kill()
    }
    expect(await rejection(read())).toMatchObject({ code: 'ERR_CONNECTION_LOST' })
    const into = await pool.sql`copy copied from stdin`.writable()
    expect(await rejection(pipeline(Readable.from(lines()), into))).toMatchObject({ code: 'ERR_CONNECTION_LOST' })
    expect((await pool.sql`select count(*)::int as n from copied`)[0]).toEqual({ n: 0 })
    await expectReplaced(pool, 3)
  })

  test('a session that ends in a cursor fails its reader, who is not told that it was the end', async () => {
    const pool = make()
    let portions = 0
    const read = async (): Promise<void> => {
      for await (const _ of pool.sql`select g from generate_series(1, 9) g`.cursor(2)) {
        portions++
        await kill()
        await until(() => pool.stats().leased === 0)
      }
    }
    expect(await rejection(read())).toMatchObject(ended)
    expect(portions).toBe(1)
    const given = rejection(
      // oxlint-disable-next-line no-misused-promises -- postgres.js waits for it
      pool.sql`select g from generate_series(1, 9) g`.cursor(2, () =>
        kill().then(() => until(() => pool.stats().leased === 0)),
      ),
    )
    expect(await given).toMatchObject(ended)
    await expectReplaced(pool, 3)
  })

  test('a session that ends while it is reset is closed, and the release resolves', async () => {
    let resetting = false
    await using proxy = await tcpServer((socket) => {
      const upstream = connect(db.server.port, db.server.host)
      upstream.on('error', () => undefined)
      upstream.on('end', () => socket.end())
      upstream.on('data', (chunk) => socket.write(chunk))
      socket.on('data', (chunk) => {
        if (!chunk.includes('DISCARD TEMP')) return upstream.write(chunk)
        resetting = true
        return false
      })
      socket.on('close', () => upstream.destroy())
    })
    const pool = make({ port: proxy.port })
    const lease = await pool.acquire()
    await lease.sql`set statement_timeout = '2s'`
    const released = lease.release()
    await until(() => resetting)
    await kill()
    await released
    await expectReplaced(pool)
    expect(pool.stats().closes.broken + pool.stats().closes['reset failed']).toBe(1)
  })
})

describe('a session that meets a timeout of the server', () => {
  test('idle_in_transaction_session_timeout ends the transaction with 25P03', async () => {
    const pool = make({ connection: { idle_in_transaction_session_timeout: 30 } })
    const attempt = pool.transaction(async (sql) => {
      await sql`select 1`
      await until(() => pool.stats().leased === 0)
      await sql`select 2`
    })
    expect(await rejection(attempt)).toMatchObject(lost('25P03'))
    await expectReplaced(pool)
  })

  test('idle_session_timeout is a loss with 57P05 in a lease, and none at all in the pool', async () => {
    const pool = make({ connection: { idle_session_timeout: 30 } })
    const lease = await pool.acquire()
    await until(() => pool.stats().leased === 0)
    expect(await rejection(lease.sql`select 1`)).toMatchObject(lost('57P05'))
    await lease.release()
    for (let i = 0; i < 3; i++) {
      expect([...(await pool.sql`select 1 as one`)]).toEqual([{ one: 1 }])
      await until(() => pool.stats().open === 0)
    }
    expect(pool.stats()).toMatchObject({ opens: 4, closes: { broken: 4 } })
  })
})

describe('a server that restarts', () => {
  let server: EmbeddedServer
  beforeAll(async () => {
    server = await startServer()
  })
  afterAll(() => server.stop())

  const ways: Readonly<Record<string, { code: string; how: (pid: number) => Promise<void> }>> = {
    'a fast shutdown': { code: '57P01', how: () => server.restart() },
    'an immediate shutdown': {
      code: '57P01',
      how() {
        const [postmaster] = readFileSync(join(server.socketDirectory, 'data', 'postmaster.pid'), 'utf8').split('\n')
        process.kill(Number(postmaster), 'SIGQUIT')
        return server.restart()
      },
    },
    'a crash of another session': {
      code: '57P02',
      how: (pid) => Promise.resolve(void process.kill(pid, 'SIGKILL')),
    },
  }

  for (const [name, { code, how }] of Object.entries(ways)) {
    test(`${name} is a loss with ${code} to all that run, and the pool goes on afterwards`, async () => {
      const pool = make({ max: 4 }, server.url)
      const victim = make({}, server.url)
      const [row] = await victim.sql<{ pid: number }[]>`select pg_backend_pid() as pid`
      const held = await pool.acquire()
      await held.sql`select 1`
      const failed = ['pg_sleep(60)', 'pg_sleep(61)'].map((text) => rejection(pool.sql.unsafe(`select ${text}`)))
      await until(() => pool.stats().leased === 3)
      await held.sql`select 1`
      await until(async () => {
        const [active] = await held.sql`select count(*)::int as n from pg_stat_activity where query ~ '^select pg_sl'`
        return active?.['n'] === 2
      })
      await how(row?.pid ?? 0)
      for (const error of await Promise.all(failed)) expect(error).toMatchObject(lost(code))
      // It may hear of it a moment later.
      await until(() => pool.stats().leased === 0)
      const dead = await rejection(held.sql`select 1`)
      expect(dead).toBeInstanceOf(ConnectionLostError)
      // Of those that idle, a server in a hurry leaves some without a word.
      if (!(dead.cause instanceof ServerClosedError)) expect(dead).toMatchObject(lost(code))
      await held.release()
      expect([...(await pool.sql`select 1 as one`)]).toEqual([{ one: 1 }])
      await until(() => pool.stats().closing === 0)
      expect(pool.stats()).toMatchObject({ leased: 0, doubtful: 0, waiting: 0 })
    })
  }
})

describe('a way to the server that swallows everything', () => {
  test('a query ends at its own deadline, the connection with the release', async () => {
    await using way = await swamp()
    const pool = make({ port: way.port, resetTimeoutMs: 100 })
    await pool.sql`select 1`
    way.deaf()
    const startedAt = performance.now()
    expect((await rejection(pool.with({ timeoutMs: 100 }).sql`select 1`)).code).toBe('ERR_QUERY_TIMEOUT')
    expect(performance.now() - startedAt).toBeLessThan(1_000)
    // The one of `max` is out of service until the server is known to have let it go.
    expect([...(await pool.sql`select 1 as one`)]).toEqual([{ one: 1 }])
    expect(pool.stats()).toMatchObject({ opens: 2, doubtful: 0 })
    expect(await db.sessions()).toHaveLength(1)
  })

  /** What a transaction is at when the way goes deaf. */
  const steps: Record<string, (pool: PostgresPool, deaf: () => void) => PromiseLike<unknown>> = {
    'at its beginning': (pool, deaf) => (deaf(), pool.sql`select 1`),
    'in the middle': (pool, deaf) => pool.sql`select 1`.then(() => (deaf(), pool.sql`select 2`)),
    'in a savepoint': (pool, deaf) => pool.transaction(() => steps['in the middle']?.(pool, deaf)),
    'at a savepoint': (pool, deaf) =>
      pool.sql`select 1`.then(() => (deaf(), pool.transaction(() => pool.sql`select 2`))),
    'at the end of a savepoint': (pool, deaf) => pool.transaction(() => pool.sql`select 1`.then(deaf)),
    'when it has thrown': (pool, deaf) => pool.sql`select 1`.then(() => (deaf(), Promise.reject(mine))),
    'when a savepoint has thrown': (pool, deaf) => pool.transaction(() => steps['when it has thrown']?.(pool, deaf)),
  }
  const mine = Object.assign(new Error('mine'), { code: 'MINE' })

  test.each([
    ['at its beginning', 'ERR_TRANSACTION_TIMEOUT', 'ERR_QUERY_TIMEOUT'],
    ['in the middle', 'ERR_TRANSACTION_TIMEOUT', 'ERR_QUERY_TIMEOUT'],
    ['in a savepoint', 'ERR_TRANSACTION_TIMEOUT', 'ERR_QUERY_TIMEOUT'],
    ['at a savepoint', 'ERR_TRANSACTION_TIMEOUT', 'ERR_QUERY_TIMEOUT'],
    ['at the end of a savepoint', 'ERR_TRANSACTION_TIMEOUT', 'ERR_QUERY_TIMEOUT'],
    ['when it has thrown', 'MINE', 'MINE'],
    ['when a savepoint has thrown', 'MINE', 'MINE'],
  ])(
    'a transaction ends at its deadline, or that of its queries, and its connection with it: %s',
    async (at, ...codes) => {
      // What ends with the release does not need the transaction's own.
      const timeoutMs = codes[0] === 'MINE' ? 10_000 : 200
      for (const [i, options] of [{ timeoutMs }, {}].entries()) {
        await using way = await swamp()
        const pool = make({ port: way.port, resetTimeoutMs: 100, ...(i === 1 ? { queryTimeoutMs: 200 } : {}) })
        await pool.use(() => undefined)
        const startedAt = performance.now()
        const late = rejection(pool.transaction(() => steps[at]?.(pool, way.deaf), options))
        expect((await late).code).toBe(codes[i])
        expect(performance.now() - startedAt).toBeLessThan(3_000)
        await until(() => pool.stats().leased === 0 && pool.stats().idle === 0)
      }
    },
  )

  test('an acquire finds out by its ping', async () => {
    await using way = await swamp()
    const pool = make({ port: way.port, max: 2, pingAfterIdleMs: 0 })
    await pool.sql`select 1`
    way.deaf()
    const startedAt = performance.now()
    expect([...(await pool.sql`select 1 as one`)]).toEqual([{ one: 1 }])
    const tookMs = performance.now() - startedAt
    expect(tookMs).toBeGreaterThan(1_900)
    expect(tookMs).toBeLessThan(4_000)
  })

  test('a connection that is closed while it runs says goodbye after its request to cancel has been passed on', async () => {
    const order: string[] = []
    await using proxy = await tcpServer((socket) => {
      const upstream = connect(db.server.port, db.server.host)
      upstream.on('error', () => undefined)
      upstream.on('data', (chunk) => socket.write(chunk))
      let isCancel = false
      upstream.on('end', () => {
        // As if it took its time.
        setTimeout(() => {
          if (isCancel) order.push('cancelled')
          socket.end()
        }, 50)
      })
      socket.on('data', (chunk) => {
        isCancel ||= chunk.length === 16 && chunk.readInt32BE(4) === 80_877_102
        if (chunk[0] === 'X'.charCodeAt(0)) order.push('goodbye')
        upstream.write(chunk)
      })
      socket.on('end', () => upstream.end())
    })
    const pool = createPool(db.url, { port: proxy.port, max: 1 })
    const lease = await pool.acquire()
    const failed = rejection(lease.sql`select pg_sleep(60)`)
    await seen('pg_sleep(60)')
    await lease.destroy()
    expect((await failed).code).toBe('ERR_CONNECTION_LOST')
    await pool.close()
    expect(order).toEqual(['cancelled', 'goodbye'])
    expect((await db.sessions()).filter(({ query }) => query.includes('pg_sleep(60)'))).toEqual([])
  })

  test('a query without any deadline ends with the deadline of close()', async () => {
    await using way = await swamp()
    const pool = createPool(db.url, { port: way.port, max: 1 })
    const lease = await pool.acquire()
    way.deaf()
    const waiting = rejection(lease.sql`select 1`)
    const closing = pool.close({ timeoutMs: 50 })
    expect((await waiting).code).toBe('ERR_CONNECTION_LOST')
    expect(await closing).toEqual({ revoked: 1 })
    await kill()
  })
})
