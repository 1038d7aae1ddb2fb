import { connect } from 'node:net'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { ConnectionLostError, TransactionOutcomeUnknownError } from '../../src/errors.ts'
import type { PostgresPool, PostgresPoolOptions } from '../../src/postgres/index.ts'
import { rejection, tcpServer } from '../support/connection.ts'
import { createDatabase, until } from '../support/database.ts'
import type { TestDatabase } from '../support/database.ts'
import { insert, makePool } from '../support/pool.ts'

let db: TestDatabase
beforeAll(async () => {
  db = await createDatabase()
})
afterAll(() => db.drop())

/** A way to the server on which the answer to a statement can be held back. */
interface Gate extends AsyncDisposable {
  readonly port: number
  /** Holds what the server sends after a client has sent this. */
  hold(statement: string): void
  /** Whether something is held back now. */
  readonly holds: boolean
  open(): void
  /** Throws away what is held back; what comes through is the end of the session. */
  drop(): void
}

async function gate(): Promise<Gate> {
  let statement: string | undefined
  let holds = false
  const flows: { go: () => void; drop: () => void }[] = []
  const proxy = await tcpServer((socket) => {
    const upstream = connect(db.server.port, db.server.host)
    upstream.on('error', () => undefined)
    upstream.pipe(socket)
    socket.on('data', (chunk: Buffer) => {
      if (statement !== undefined && chunk.includes(statement)) {
        holds = true
        upstream.unpipe(socket)
        flows.push({
          go: () => upstream.pipe(socket),
          drop: () => upstream.on('end', () => socket.end()).resume(),
        })
      }
      upstream.write(chunk)
    })
    socket.on('close', () => upstream.end())
    socket.on('end', () => upstream.end())
  })
  return {
    port: proxy.port,
    hold: (text) => void (statement = text),
    get holds() {
      return holds
    },
    open() {
      statement = undefined
      for (const { go } of flows.splice(0)) go()
      holds = false
    },
    drop() {
      statement = undefined
      for (const { drop } of flows.splice(0)) drop()
      holds = false
    },
    [Symbol.asyncDispose]: () => proxy[Symbol.asyncDispose](),
  }
}

const make = (options?: PostgresPoolOptions): PostgresPool => makePool(db, options)

let tables = 0

/** A table, and what is in it, through a pool of its own. */
async function table(): Promise<{ name: string; read: () => Promise<unknown[]> }> {
  const name = `lost${++tables}`
  const other = make({ max: 1 })
  await other.sql.unsafe(`create table ${name} (a int)`)
  return {
    name,
    read: async () => (await other.sql.unsafe(`select a from ${name} order by a`)).map((row) => row['a'] as unknown),
  }
}

/** Ends the session that is in a transaction, or runs this text. */
async function terminate(text: string): Promise<void> {
  const [row] = await db.admin<{ n: number }[]>`
    select count(pg_terminate_backend(pid))::int as n from pg_stat_activity
    where datname = ${db.name} and query ilike ${`%${text}%`}`
  expect(row?.n).toBe(1)
}

const seenToRun = (text: string, state?: string): Promise<void> =>
  until(
    async () => (await db.sessions()).some((one) => one.query.includes(text) && (state ?? one.state) === one.state),
    text,
  )

describe('transaction() whose session is ended', () => {
  test('transaction() runs none of its queries elsewhere when the session ends before BEGIN is answered', async () => {
    await using gated = await gate()
    const { name, read } = await table()
    const pool = make({ port: gated.port })
    await pool.sql`select 'warm'`
    gated.hold('BEGIN ISOLATION')
    let inside: Error[] | undefined
    const attempt = rejection(
      pool.transaction(
        async (sql) => {
          inside = await Promise.all([
            rejection(insert(sql, name, 1)),
            rejection(insert(pool.sql, name, 2)),
            rejection(sql.savepoint((inner) => insert(inner, name, 3))),
            rejection(pool.transaction(() => insert(pool.sql, name, 4))),
          ])
          inside.push(await rejection(insert(sql, name, 5)))
        },
        { isolation: 'serializable', lazy: true },
      ),
    )
    await until(() => gated.holds)
    await seenToRun('BEGIN ISOLATION', 'idle in transaction')
    await terminate('BEGIN ISOLATION')
    gated.drop()
    expect(await attempt).toBeInstanceOf(ConnectionLostError)
    expect(inside).toHaveLength(5)
    for (const error of inside!) expect(error).toBeInstanceOf(ConnectionLostError)
    expect(await read()).toEqual([])
  })

  test('transaction({ signal }) that is aborted before BEGIN is answered leaves its connection as it was', async () => {
    await using gated = await gate()
    const pool = make({ port: gated.port, max: 1 })
    await pool.sql`select 'warm'`
    for (const text of ['select 1; select 2', 'select 1']) {
      gated.hold('BEGIN READ ONLY')
      const aborting = new AbortController()
      const reason = new Error('enough')
      const { signal } = aborting
      const attempt = rejection(
        pool.transaction((sql) => sql.unsafe(text, [], { prepare: true }), { signal, readOnly: true }),
      )
      await until(() => gated.holds)
      aborting.abort(reason)
      gated.open()
      expect(await attempt).toBe(reason)
      const [row] = await pool.sql`select 3 as a, current_setting('transaction_read_only') as b`
      expect(row).toEqual({ a: 3, b: 'off' })
    }
    expect(pool.stats().opens).toBe(1)
  })

  test('transaction() runs nothing on another connection after its own was lost', async () => {
    const { name, read } = await table()
    const pool = make({ max: 4 })
    const attempt = pool.transaction(async (sql) => {
      await insert(sql, name, 1)
      const running = rejection(sql`select pg_sleep(60), 'middle'`)
      const queued = rejection(insert(sql, name, 2))
      await seenToRun('middle')
      await terminate(`'middle'`)
      const errors = [
        await running,
        await queued,
        await rejection(insert(sql, name, 3)),
        await rejection(insert(pool.sql, name, 4)),
        await rejection(sql.savepoint((inner) => insert(inner, name, 5))),
        await rejection(pool.transaction(() => insert(pool.sql, name, 6))),
      ]
      for (const error of errors) expect(error).toBeInstanceOf(ConnectionLostError)
    })
    expect(await rejection(attempt)).toBeInstanceOf(ConnectionLostError)
    expect(await read()).toEqual([])
    await until(() => pool.stats().leased === 0)
    expect([...(await pool.sql`select 1 as one`)]).toEqual([{ one: 1 }])
  })

  test('transaction() is lost with a savepoint, at its beginning and at its end', async () => {
    for (const statement of ['SAVEPOINT millpond', 'RELEASE SAVEPOINT', 'ROLLBACK TO SAVEPOINT']) {
      await using gated = await gate()
      const { name, read } = await table()
      const pool = make({ port: gated.port })
      const attempt = rejection(
        pool.transaction(async (sql) => {
          await insert(sql, name, 1)
          gated.hold(statement)
          await rejection(
            pool.transaction(async () => {
              await insert(pool.sql, name, 2)
              if (statement.startsWith('ROLLBACK')) throw new Error('no')
            }),
          )
          await insert(sql, name, 3)
        }),
      )
      await until(() => gated.holds)
      await seenToRun(statement, 'idle in transaction')
      await terminate(statement)
      gated.drop()
      expect(await attempt).toBeInstanceOf(ConnectionLostError)
      expect(await read()).toEqual([])
      await pool.close()
    }
  })

  test('transaction() keeps the error of its callback when ROLLBACK cannot be answered', async () => {
    await using gated = await gate()
    const { name, read } = await table()
    const pool = make({ port: gated.port })
    const mine = new Error('mine')
    const attempt = pool.transaction(async (sql) => {
      await insert(sql, name, 1)
      gated.hold('ROLLBACK')
      throw mine
    })
    const thrown = rejection(attempt)
    await until(() => gated.holds)
    await seenToRun('ROLLBACK', 'idle')
    await terminate('ROLLBACK')
    gated.drop()
    expect(await thrown).toBe(mine)
    expect(await read()).toEqual([])
  })
})

describe('transaction() whose BEGIN fails', () => {
  test('transaction() sends nothing when the server refuses BEGIN and the session lives on', async () => {
    await using proxy = await tcpServer((socket) => {
      const upstream = connect(db.server.port, db.server.host)
      upstream.on('error', () => undefined)
      upstream.pipe(socket)
      socket.on('data', (chunk: Buffer) => {
        const at = chunk.indexOf('BEGIN ISOLATION')
        // Of the same length, and no SQL.
        if (at >= 0) chunk.write('BEGUN', at)
        upstream.write(chunk)
      })
      socket.on('end', () => upstream.end())
    })
    const { name, read } = await table()
    const pool = make({ port: proxy.port, max: 1 })
    let errors: (Error & { code?: string })[] = []
    const attempt = pool.transaction(
      async (sql) => {
        errors = await Promise.all([
          rejection(insert(sql, name, 1)),
          rejection(insert(pool.sql, name, 2)),
          rejection(pool.transaction(() => insert(pool.sql, name, 3))),
        ])
        errors.push(await rejection(insert(sql, name, 4)))
      },
      { lazy: true, isolation: 'serializable' },
    )
    expect((await rejection(attempt)).code).toBe('42601')
    expect(errors.map(({ code }) => code)).toEqual(['42601', '42601', '42601', '42601'])
    const eager = pool.transaction(() => insert(pool.sql, name, 5), { isolation: 'serializable' })
    expect((await rejection(eager)).code).toBe('42601')
    expect(await read()).toEqual([])
    expect(pool.stats().opens).toBe(1)
  })
})

describe('transaction() whose COMMIT is not answered', () => {
  test('transaction() does not know the outcome, and does not try again, where it took effect', async () => {
    await using gated = await gate()
    const { name, read } = await table()
    const pool = make({ port: gated.port })
    let calls = 0
    const attempt = rejection(
      pool.transaction(
        async (sql) => {
          calls++
          await insert(sql, name, 1)
          gated.hold('COMMIT')
        },
        { retries: 5 },
      ),
    )
    await until(() => gated.holds)
    await seenToRun('COMMIT', 'idle')
    await terminate('COMMIT')
    gated.drop()
    expect(await attempt).toBeInstanceOf(TransactionOutcomeUnknownError)
    expect(await read()).toEqual([1])
    expect(calls).toBe(1)
  })

  test('transaction() does not know the outcome where the session ends inside of COMMIT', async () => {
    const { name, read } = await table()
    const pool = make()
    await pool.sql.unsafe(`
      create function slow_${name}() returns trigger language plpgsql as $$
        begin perform pg_sleep(60); return null; end $$;
      create constraint trigger slow after insert on ${name} deferrable initially deferred
        for each row execute function slow_${name}()`)
    let calls = 0
    const attempt = rejection(
      pool.transaction(
        async (sql) => {
          calls++
          await insert(sql, name, 1)
        },
        { retries: 5 },
      ),
    )
    await seenToRun('COMMIT', 'active')
    await terminate('COMMIT')
    const error = await attempt
    expect(error).toBeInstanceOf(TransactionOutcomeUnknownError)
    expect(error.cause).toMatchObject({ code: 'ERR_CONNECTION_LOST', cause: { code: '57P01' } })
    expect(calls).toBe(1)
    expect(await read()).toEqual([])
    expect([...(await pool.sql`select 1 as one`)]).toEqual([{ one: 1 }])
  })

  test('transaction({ signal }) that is aborted while COMMIT is under way takes the answer that comes', async () => {
    await using gated = await gate()
    const { name, read } = await table()
    const pool = make({ port: gated.port })
    const controller = new AbortController()
    const attempt = pool.transaction(
      async (sql) => {
        await insert(sql, name, 1)
        gated.hold('COMMIT')
        return 'done'
      },
      { signal: controller.signal },
    )
    await until(() => gated.holds)
    controller.abort()
    gated.open()
    expect(await attempt).toBe('done')
    expect(await read()).toEqual([1])
  })

  test('transaction({ timeoutMs }) gives an unanswered COMMIT no longer than a release may take', async () => {
    await using gated = await gate()
    const { name, read } = await table()
    const pool = make({ port: gated.port, resetTimeoutMs: 100, max: 1 })
    let calls = 0
    const attempt = pool.transaction(
      async (sql) => {
        calls++
        await insert(sql, name, 1)
        gated.hold('COMMIT')
      },
      { timeoutMs: 300, retries: 5 },
    )
    const error = await rejection(attempt)
    expect(error).toBeInstanceOf(TransactionOutcomeUnknownError)
    expect(error.cause).toMatchObject({ code: 'ERR_TRANSACTION_TIMEOUT' })
    expect(calls).toBe(1)
    expect(await read()).toEqual([1])
    gated.open()
    expect([...(await pool.sql`select 1 as one`)]).toEqual([{ one: 1 }])
  })
})

describe('transaction() and close()', () => {
  test('close() that revokes a transaction ends it, and what it runs afterwards goes nowhere', async () => {
    const { name, read } = await table()
    const pool = make()
    let inside: Promise<Error[]> | undefined
    const attempt = rejection(
      pool.transaction((sql) => {
        inside = (async () => {
          await insert(sql, name, 1)
          const errors = [await rejection(sql`select pg_sleep(60), 'revoked'`)]
          errors.push(await rejection(insert(sql, name, 2)), await rejection(insert(pool.sql, name, 3)))
          return errors
        })()
        return inside
      }),
    )
    await seenToRun('revoked')
    expect(await pool.close({ timeoutMs: 50 })).toEqual({ revoked: 1 })
    expect((await inside)?.map((error) => error.name)).toEqual([
      'ConnectionLostError',
      'LeaseRevokedError',
      'LeaseRevokedError',
    ])
    expect((await attempt).name).toBe('LeaseRevokedError')
    expect(await read()).toEqual([])
  })
})
