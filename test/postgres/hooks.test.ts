import { Readable } from 'node:stream'
import { isDeepStrictEqual } from 'node:util'
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { ConnectionLostError, ConnectError } from '../../src/errors.ts'
import { createPool } from '../../src/postgres/index.ts'
import type {
  PostgresHooks,
  PostgresLease,
  PostgresPool,
  PostgresPoolOptions,
  PostgresSql,
} from '../../src/postgres/index.ts'
import { createService } from '../../src/service/index.ts'
import { randomFrom } from '../pool/cases/support.ts'
import { DriverUnderTest, rejection } from '../support/connection.ts'
import { createDatabase, until } from '../support/database.ts'
import type { TestDatabase } from '../support/database.ts'

let db: TestDatabase
beforeAll(async () => {
  db = await createDatabase()
})
afterAll(() => db.drop())

interface Rig {
  readonly pool: PostgresPool
  /** Every `onOpen`: false for the first of a session, true for one after a reset. */
  readonly opens: boolean[]
  readonly events: string[]
  readonly count: (event: string) => number
}

/** A pool of one connection, unless said otherwise, whose `onOpen` sets a statement timeout of 7 s. */
function make({ onOpen = configure, ...options }: PostgresPoolOptions = {}): Rig {
  const opens: boolean[] = []
  const events: string[] = []
  const pool = createPool(db.url, {
    max: 1,
    log: ({ type }) => void events.push(type),
    ...options,
    onOpen: (sql, session) => {
      opens.push(session.again)
      return onOpen(sql, session)
    },
  })
  onTestFinished(async () => {
    await pool.close({ timeoutMs: 100 })
  })
  return { pool, opens, events, count: (event) => events.filter((one) => one === `millpond:${event}`).length }
}

async function configure(sql: PostgresSql): Promise<void> {
  await sql`set statement_timeout = '7s'`
}

const timeout = async (sql: PostgresSql): Promise<unknown> =>
  (await sql`select current_setting('statement_timeout') as value`)[0]?.['value']

const pidOf = async (sql: PostgresSql): Promise<unknown> => (await sql`select pg_backend_pid() as pid`)[0]?.['pid']

const never = (): Promise<never> => new Promise(() => {})

describe('onOpen', () => {
  test('onOpen configures a session once, for leases, transactions and one-shots, and costs no reset', async () => {
    const { pool, opens, count } = make()
    expect(await pool.use(timeout)).toBe('7s')
    expect(await timeout(pool.sql)).toBe('7s')
    expect(await pool.transaction(timeout)).toBe('7s')
    await pool.use(async (sql) => {
      await sql`select 1`
    })
    expect(opens).toEqual([false])
    expect(count('reset')).toBe(0)
    expect(pool.stats()).toMatchObject({ opens: 1, badReturns: 0 })
  })

  test('onOpen may return the query itself, and gets to know the session', async () => {
    let session: unknown
    const { pool } = make({
      onOpen: (sql, which) => {
        session = which
        return sql`set statement_timeout = '8s'`
      },
    })
    const lease = await pool.acquire()
    expect(await timeout(lease.sql)).toBe('8s')
    expect(session).toEqual({ pid: await pidOf(lease.sql), tag: expect.stringMatching(/^mp/), again: false })
    await lease.release()
  })

  test.each([
    ['a SET', "set statement_timeout = '1s'"],
    ['RESET ALL', 'reset all'],
    ['set_config', "select set_config('statement_timeout', '1s', false)"],
    ['a SET in a transaction that is left open', "begin; set statement_timeout = '1s'"],
    ['SET ROLE', 'set role pg_monitor'],
    ['a temporary table', 'create temp table mine (a int)'],
  ])('onOpen is called again after the reset that undoes %s of a lease', async (_, statement) => {
    const { pool, opens, count } = make()
    const pid = await pool.use(async (sql) => {
      await sql.unsafe(statement)
      return pidOf(sql)
    })
    expect(opens).toEqual([false, true])
    const lease = await pool.acquire()
    expect([await timeout(lease.sql), await pidOf(lease.sql)]).toEqual(['7s', pid])
    await lease.release()
    // Its own settings are no reason for another one.
    expect([opens.length, count('reset')]).toEqual([2, 1])
  })

  test.each(['discard temp', 'discard all', 'prepare own as select 1', 'deallocate all'])(
    'onOpen configures the session that takes the place of one that has seen %s',
    async (statement) => {
      const { pool, opens } = make()
      const pid = await pool.use(async (sql) => {
        await sql.unsafe(statement)
        return pidOf(sql)
      })
      const lease = await pool.acquire()
      expect(await timeout(lease.sql)).toBe('7s')
      expect(await pidOf(lease.sql)).not.toBe(pid)
      expect(opens).toEqual([false, false])
      await lease.release()
    },
  )

  test('onOpen is not called again after what a ROLLBACK alone undoes', async () => {
    const { pool, opens, count } = make()
    await pool.use(async (sql) => {
      await sql.unsafe('begin')
      await sql`set local statement_timeout = '1s'`
    })
    expect(await timeout(pool.sql)).toBe('7s')
    expect(count('reset')).toBe(1)
    expect(opens).toEqual([false])
  })

  test('onOpen has been called again before a waiter gets the connection', async () => {
    const { pool, opens } = make()
    const first = await pool.acquire()
    await first.sql`set statement_timeout = '1s'`
    const second = pool.acquire()
    const released = first.release()
    const lease = await second
    expect(opens).toEqual([false, true])
    expect(await timeout(lease.sql)).toBe('7s')
    await released
    await lease.release()
  })

  test('onOpen gives every lease its prepared statements, temporary tables, channels and role', async () => {
    const { pool, opens } = make({
      onOpen: async (sql, { again }) => {
        await sql.unsafe('create temp table scratch (a int); listen changes; set role pg_monitor')
        if (!again) await sql.unsafe('prepare answer as select 42 as answer')
      },
    })
    const look = (): Promise<unknown> =>
      pool.use(async (sql) => ({
        answer: (await sql.unsafe('execute answer'))[0]?.['answer'],
        session: (
          await sql`select current_user::text as role, to_regclass('scratch')::text as scratch,
            (select count(*)::int from pg_listening_channels()) as channels`
        )[0],
      }))
    const all = { answer: 42, session: { role: 'pg_monitor', scratch: 'scratch', channels: 1 } }
    expect(await look()).toEqual(all)
    await pool.use(async (sql) => {
      await sql`set statement_timeout = '1s'`
    })
    expect(await look()).toEqual(all)
    expect(opens).toEqual([false, true])
    expect(pool.stats().opens).toBe(1)
  })

  test("onOpen is called at each release with reset: 'full', and once with reset: 'none'", async () => {
    for (const [reset, expected] of [
      ['full', [false, true, true]],
      ['none', [false]],
    ] as const) {
      const { pool, opens } = make({ reset })
      await pool.use(timeout)
      await pool.use(timeout)
      expect(opens).toEqual(expected)
    }
  })

  test('onOpen waits for what it did not await', async () => {
    const { pool, count } = make({
      onOpen: (sql) => {
        void sql`select pg_sleep(0.05)`.execute()
        void sql`set statement_timeout = '7s'`.execute()
      },
    })
    expect(await pool.use(timeout)).toBe('7s')
    expect(count('reset')).toBe(0)
  })

  test('onOpen has a tag of the types of the pool', async () => {
    const seen: unknown[] = []
    const hooks: PostgresHooks = { onRelease: (sql) => sql`select 1` }
    const pool = createPool(db.url, {
      ...hooks,
      types: {
        pair: {
          to: 25,
          from: [],
          serialize: ([a, b]: [number, number]) => `${a}:${b}`,
          parse: (raw: string): [number, number] => [Number(raw.split(':')[0]), Number(raw.split(':')[1])],
        },
      },
      onOpen: async (sql) => {
        // @ts-expect-error -- a pair is two numbers
        sql.typed.pair('no')
        seen.push((await sql`select ${sql.typed.pair([1, 2])} as pair`)[0]?.['pair'])
      },
    })
    await pool.sql`select 1`
    await pool.close()
    expect(seen).toEqual(['1:2'])
  })
})

/** What an acquire says of an `onOpen` that fails each time; the server is left with no session. */
async function failure(onOpen: PostgresHooks['onOpen'], options: PostgresPoolOptions = {}): Promise<ConnectError> {
  const { pool, count } = make({ acquireTimeoutMs: 1_200, ...options, ...(onOpen ? { onOpen } : {}) })
  const error = await rejection(pool.acquire())
  expect(error).toMatchObject({ code: 'ERR_ACQUIRE_TIMEOUT', phase: 'connect' })
  expect(error.cause).toBeInstanceOf(ConnectError)
  await until(() => pool.stats().closing === 0 && pool.stats().opening === 0)
  await db.sessionsToBe(0)
  expect(pool.stats()).toMatchObject({ open: 0, doubtful: 0, opens: 0 })
  expect(count('connect-error')).toBeGreaterThan(0)
  return error.cause as ConnectError
}

describe('onOpen that fails', () => {
  test('onOpen that throws or rejects closes the connection, and counts as a failure to connect', async () => {
    const mine = new Error('no such tenant')
    const thrown = await failure(() => {
      throw mine
    })
    expect(thrown).toMatchObject({ retryable: true, cause: { cause: mine } })
    expect(thrown.message).toMatch(/^Cannot connect to .*: onOpen failed: no such tenant$/)
    const rejected = await failure((sql) => sql`set role nobody_at_all`)
    expect(rejected).toMatchObject({ cause: { cause: { code: '22023' } } })
  })

  test('onOpen must leave no transaction, no COPY, and the prepared statements of postgres.js alone', async () => {
    expect((await failure((sql) => sql.unsafe('begin'))).message).toContain('it left a transaction open')
    const copy = await failure(async (sql) => {
      await sql`create temp table half (a int)`
      const writable = await sql`copy half from stdin`.writable()
      writable.on('error', () => undefined)
      Readable.from(['1\n']).pipe(writable, { end: false })
    })
    expect(copy.message).toContain('it left a COPY or a cursor unfinished')
    const gone = await failure(async (sql) => {
      await sql`select ${1}::int`
      await sql.unsafe('deallocate all')
    })
    expect(gone.message).toContain('it used DEALLOCATE or DISCARD')
  })

  test('onOpen that takes too long ends with the deadline of the connect, and its tag with it', async () => {
    const sqls: PostgresSql[] = []
    const late = await failure(
      (sql) => {
        sqls.push(sql)
        return never()
      },
      { connectTimeoutMs: 400 },
    )
    expect(late.message).toContain('onOpen failed: It did not settle within 400 ms')
    const [sql] = sqls
    if (!sql) throw new Error('it was not called')
    const error = await rejection(sql`select 1`)
    expect(error).toMatchObject({ code: 'ERR_LEASE_RELEASED', message: expect.stringContaining('onOpen') })
  })

  test('onOpen that takes too long leaves time to close in an orderly way: the end is certain', async () => {
    const under = new DriverUnderTest(db.url, { onOpen: (sql) => sql`select pg_sleep(60)` })
    expect(await rejection(under.open('slow', 400))).toMatchObject({ code: 'ERR_CONNECT', doubtful: false })
    await db.sessionsToBe(0)
  })

  test('onOpen whose query takes too long has it ended on the server', async () => {
    await failure(
      async (sql) => {
        await sql`select pg_sleep(60)`
      },
      { connectTimeoutMs: 400 },
    )
  })

  test('onOpen whose session is ended under it fails', async () => {
    const lost = await failure(async (sql, { pid }) => {
      await db.admin`select pg_terminate_backend(${pid})`
      await rejection(sql`select pg_sleep(60)`)
    })
    expect(lost).toMatchObject({ cause: { cause: expect.any(ConnectionLostError) } })
  })

  test('onOpen that fails after a reset closes the connection; who waits gets another one', async () => {
    const causes: unknown[] = []
    const { pool, opens } = make({
      log: (event) => {
        if (event.type === 'millpond:reset-error') causes.push(event.cause)
      },
      onOpen: async (sql, { again }) => {
        if (again) throw new Error('not again')
        await configure(sql)
      },
    })
    const first = await pool.acquire()
    await first.sql`set statement_timeout = '1s'`
    const second = pool.acquire()
    await first.release()
    const lease = await second
    expect(await timeout(lease.sql)).toBe('7s')
    expect(opens).toEqual([false, true, false])
    expect(causes).toEqual([expect.objectContaining({ message: 'onOpen failed: not again' })])
    expect(pool.stats()).toMatchObject({ opens: 2, closes: { 'reset failed': 1 } })
    await lease.release()
  })

  test('onOpen that takes too long after a reset ends with the deadline of the release', async () => {
    const { pool } = make({
      resetTimeoutMs: 50,
      onOpen: async (sql, { again }) => {
        await sql`select pg_sleep(${again ? 60 : 0})`
      },
    })
    const lease = await pool.acquire()
    const pid = await pidOf(lease.sql)
    await lease.sql`set statement_timeout = '1s'`
    const startedAt = performance.now()
    await lease.release()
    expect(performance.now() - startedAt).toBeLessThan(3_000)
    await until(() => pool.stats().closing === 0)
    expect(pool.stats()).toMatchObject({ open: 0, closes: { 'reset failed': 1 } })
    expect((await db.sessions()).map((session) => session.pid)).not.toContain(pid)
  })
})

describe('onAcquire', () => {
  test.each([
    ['returns false', () => false],
    ['resolves with false', async () => false],
    [
      'throws',
      () => {
        throw new Error('no')
      },
    ],
    ['rejects', (sql: PostgresSql) => sql`select 1/0`],
  ])('onAcquire that %s closes that session; the next one is tried', async (_, refuse) => {
    const refused: number[] = []
    const { pool } = make({
      onAcquire: (sql, { pid }) => {
        if (refused.length > 0) return sql`select 1`
        refused.push(pid)
        return refuse(sql)
      },
    })
    const lease = await pool.acquire()
    expect(refused).not.toContain(await pidOf(lease.sql))
    await lease.release()
    await until(() => pool.stats().closing === 0)
    expect(pool.stats()).toMatchObject({ opens: 2, open: 1, closes: { refused: 1 } })
  })

  test('onAcquire is asked once for each lease, transaction and one-shot, and of one connection', async () => {
    let asked = 0
    const { pool } = make({
      max: 3,
      min: 3,
      onAcquire: async (sql) => {
        asked++
        await sql`select 1`
      },
    })
    await pool.open()
    await pool.sql`select 1`
    expect(asked).toBe(1)
    await pool.use(timeout)
    await pool.transaction(timeout)
    expect(asked).toBe(3)
    expect(await Promise.all([1, 2, 3, 4, 5].map(() => timeout(pool.sql)))).toEqual(Array(5).fill('7s'))
    expect(asked).toBe(8)
  })

  test('onAcquire that sets something for the lease has it undone with the lease', async () => {
    let tenant = 'a'
    const { pool, opens } = make({
      onAcquire: (sql) => sql`select set_config('app.tenant', ${tenant}, false)`,
      onRelease: async (sql) => {
        const [row] = await sql`select current_setting('app.tenant', true) as tenant`
        left.push(row?.['tenant'])
      },
    })
    const left: unknown[] = []
    for (tenant of ['a', 'b']) {
      expect((await pool.sql`select current_setting('app.tenant') as tenant`)[0]).toEqual({ tenant })
      await until(() => pool.stats().leased === 0 && pool.stats().idle === 1)
    }
    expect(left).toEqual(['', ''])
    expect(opens).toEqual([false, true, true])
  })

  test('onAcquire that takes too long meets the deadline of the acquire', async () => {
    const { pool } = make({ onAcquire: never })
    const error = await rejection(pool.acquire({ timeoutMs: 300 }))
    expect(error).toMatchObject({ code: 'ERR_ACQUIRE_TIMEOUT' })
    const query = rejection(pool.sql`select 1`)
    await pool.close({ timeoutMs: 0 })
    expect((await query).code).toBe('ERR_POOL_CLOSED')
    await db.sessionsToBe(0)
  })

  test('PostgresPool.tryAcquire() lends what onAcquire lets pass at once, and nothing that it takes its time over', async () => {
    let answer: unknown = true
    const { pool } = make({ onAcquire: () => answer })
    await pool.use(timeout)
    const lease = pool.tryAcquire()
    expect(lease).toBeDefined()
    await lease?.release()
    answer = Promise.resolve(true)
    expect(pool.tryAcquire()).toBeUndefined()
    await until(() => pool.stats().idle === 1)
  })
})

describe('onRelease', () => {
  test('onRelease sees a session that has been cleaned and configured, and refuses it with false', async () => {
    const seen: unknown[] = []
    const { pool } = make({
      onRelease: async (sql) => {
        seen.push(await timeout(sql))
        return seen.length < 2
      },
    })
    await pool.use(async (sql) => {
      await sql.unsafe("begin; set statement_timeout = '1s'")
    })
    expect(pool.stats().idle).toBe(1)
    await pool.use(timeout)
    await until(() => pool.stats().closing === 0)
    expect(seen).toEqual(['7s', '7s'])
    expect(pool.stats()).toMatchObject({ open: 0, closes: { 'reset failed': 1 } })
  })

  test('onRelease leaves nothing behind in the session', async () => {
    const { pool, opens } = make({
      onRelease: async (sql) => {
        await sql.unsafe('begin')
        await sql`set statement_timeout = '1s'`
        void sql`select pg_sleep(0.05)`.execute()
      },
    })
    await pool.use(timeout)
    expect(opens).toEqual([false, true])
    const lease = await pool.acquire()
    expect(await timeout(lease.sql)).toBe('7s')
    expect((await lease.sql`select pg_current_xact_id_if_assigned() as id`)[0]).toEqual({ id: null })
    await lease.release()
    expect(pool.stats().opens).toBe(1)
  })

  test('onRelease that takes too long ends with the deadline of the release', async () => {
    const { pool } = make({ resetTimeoutMs: 50, onRelease: never })
    await pool.use(timeout)
    await until(() => pool.stats().closing === 0)
    expect(pool.stats()).toMatchObject({ open: 0, closes: { 'reset failed': 1 } })
  })
})

describe('onClose', () => {
  test('onClose hears which session ended, and why, when the server does not count it any more', async () => {
    const ends: { pid: number; reason: string }[] = []
    const { pool, events } = make({
      onClose: ({ pid }, reason) => {
        ends.push({ pid, reason })
        throw new Error('mine')
      },
    })
    const lease = await pool.acquire()
    const pid = await pidOf(lease.sql)
    await lease.destroy()
    await until(() => ends.length === 1)
    expect(ends).toEqual([{ pid, reason: 'destroyed' }])
    expect(events).toContain('millpond:hook-error')
    expect(await db.sessions()).toEqual([])
  })
})

describe('hooks', () => {
  test('a hook that is no function is refused', () => {
    for (const option of ['onOpen', 'onAcquire', 'onRelease', 'onClose']) {
      expect(() => createPool(db.url, { [option]: 'configure' as never })).toThrow(
        expect.objectContaining({ code: 'ERR_OPTION', option }),
      )
    }
  })

  test('a hook in the options of a service is refused: functions do not cross threads', () => {
    // The compiler refuses it, too.
    const pool = { onOpen: configure } as {}
    expect(() => createService({ url: db.url, limit: 2, pool })).toThrow(
      expect.objectContaining({
        code: 'ERR_OPTION',
        option: 'pool.onOpen',
        message: expect.stringContaining('pool.onOpen cannot cross threads'),
      }),
    )
  })

  test('a session that onOpen gave another role can still end the session of a lost connection', async () => {
    const role = `reaped_${process.pid}`
    await db.admin.unsafe(
      `create role ${role} login password 'r'; create role ${role}_small; grant ${role}_small to ${role}`,
    )
    onTestFinished(async () => {
      await db.admin.unsafe(`drop role ${role}; drop role ${role}_small`)
    })
    const under = new DriverUnderTest(db.url, {
      user: role,
      password: 'r',
      onOpen: (sql) => sql.unsafe(`set role ${role}_small`),
    })
    const [lost, via] = [await under.open(), await under.open()]
    const signal = AbortSignal.timeout(5_000)
    expect(await under.driver.reap(lost.identity, { via, signal })).toBe(true)
    expect((await db.sessions()).map(({ pid }) => pid)).toEqual([via.identity.pid])
    // The release gives it back its role.
    expect(under.driver.needsReset(via, 'auto')).toBe(true)
    await under.driver.reset(via, { mode: 'auto', signal })
    const [row] = await under.sql(via)`select current_user::text as role`
    expect(row).toEqual({ role: `${role}_small` })
    await under.close(via)
  })
})

describe('whatever leases do', () => {
  const seed = Number(process.env['SEED'] ?? Math.trunc(Math.random() * 2 ** 31))

  /** Each leaves something behind, or ends the session. */
  const habits: readonly ((lease: PostgresLease) => unknown)[] = [
    ({ sql }) => sql`select 1`,
    ({ sql }) => sql`set statement_timeout = '1s'`,
    ({ sql }) => sql.unsafe("begin; set statement_timeout = '1s'"),
    ({ sql }) => rejection(sql.unsafe("begin; set statement_timeout = '1s'; select 1/0")),
    ({ sql }) => sql`select set_config('app.tenant', 'left', false)`,
    ({ sql }) => sql`create temp table mine (a int)`,
    ({ sql }) => sql`reset all`,
    ({ sql }) => sql.unsafe('discard all'),
    ({ sql }) => sql.unsafe('prepare mine as select 1'),
    ({ sql }) => void sql`select pg_sleep(0.01)`.execute(),
    ({ sql }) => void sql`set statement_timeout = '1s'`.execute(),
    ({ sql }) => rejection(sql`select pg_terminate_backend(pg_backend_pid())`),
    (lease) => {
      void rejection(lease.sql`select pg_sleep(60)`)
      lease.cancel()
    },
    (lease) => lease.destroy(),
  ]

  test(`every lease finds what onOpen has set, and nothing of others (SEED=${seed})`, { timeout: 60_000 }, async () => {
    const random = randomFrom(seed)
    const { pool, opens, count } = make({
      max: 3,
      onOpen: async (sql) => {
        if (random() < 0.1) throw new Error('as planned')
        await sql`set statement_timeout = '7s'`
        if (random() < 0.1) await sql`select pg_sleep(0.01)`
      },
      onAcquire: (sql) => (random() < 0.5 ? random() < 0.9 : sql`select 1`),
      onRelease: (sql) => (random() < 0.5 ? undefined : sql`select 1`),
    })
    const wrong: unknown[] = []
    const task = async (): Promise<void> => {
      for (let i = 0; i < 40; i++) {
        const lease = await pool.acquire()
        const [row] = await lease.sql`
          select current_setting('statement_timeout') as timeout, to_regclass('mine') as mine,
            coalesce(current_setting('app.tenant', true), '') as tenant,
            (select count(*)::int from pg_prepared_statements where name = 'mine') as prepared`
        const expected = { timeout: '7s', mine: null, tenant: '', prepared: 0 }
        if (!isDeepStrictEqual({ ...row }, expected)) wrong.push(row)
        await habits[Math.trunc(random() * habits.length)]?.(lease)
        await lease.release()
      }
    }
    await Promise.all([1, 2, 3, 4, 5, 6].map(task))
    expect(wrong).toEqual([])
    expect([opens.includes(true), count('reset-error') > 0, count('connect-error') > 0]).toEqual([true, true, true])
    await pool.close()
    await db.sessionsToBe(0)
  })
})
