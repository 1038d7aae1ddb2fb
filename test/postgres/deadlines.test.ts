import { getEventListeners } from 'node:events'
import { connect } from 'node:net'
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { AcquireTimeoutError, LeaseReleasedError, PoolError, QueryTimeoutError } from '../../src/errors.ts'
import { createPool } from '../../src/postgres/index.ts'
import type { PostgresPool } from '../../src/postgres/index.ts'
import { FakeClock } from '../../src/testing/index.ts'
import { rejection, tcpServer } from '../support/connection.ts'
import { createDatabase, until } from '../support/database.ts'
import type { TestDatabase } from '../support/database.ts'
import { givenBack, poolFor, running, runs } from '../support/given-back.ts'

let db: TestDatabase
beforeAll(async () => {
  db = await createDatabase()
})
afterAll(() => db.drop())

const reason = new Error('the client has left')

async function expectSound(pool: PostgresPool, opens = 1): Promise<void> {
  await givenBack(db, pool)
  expect([...(await pool.sql`select 1 as one`)]).toEqual([{ one: 1 }])
  expect(pool.stats().opens).toBe(opens)
}

/** A session that goes on when it is asked to cancel. */
const stubborn = `do $$ begin
  for i in 1..200 loop
    begin perform pg_sleep(0.05); exception when query_canceled then null; end;
  end loop;
end $$`

describe('PostgresPool.with()', () => {
  test('with() ends a query in the queue of the pool, and says what it waited for', async () => {
    const clock = new FakeClock()
    const pool = poolFor(db, { max: 1, clock, name: 'api' })
    const lease = await pool.acquire()
    const queued = rejection(pool.with({ timeoutMs: 300 }).sql`select 1`)
    await until(() => pool.stats().waiting === 1)
    await clock.advance(300)
    const error = await queued
    expect(error).toBeInstanceOf(QueryTimeoutError)
    expect(error).toBeInstanceOf(PoolError)
    expect(error).toMatchObject({ phase: 'queue', timeoutMs: 300, waitedMs: 300, stats: { leased: 1, waiting: 1 } })
    expect(error.message).toContain('Cannot finish a query on "api" within 300 ms (phase: queue): 1 of 1 leased')
    expect(error.stack).toContain('deadlines.test.ts')
    expect(pool.stats().waiting).toBe(0)
    await lease.release()
    await expectSound(pool)
  })

  test('with() says why there was no connection: the last failure to connect, or what its caller holds', async () => {
    const clock = new FakeClock()
    const lonely = createPool('postgres://ann@127.0.0.1:1/shop', { clock, queryTimeoutMs: 1_000 })
    const refused = rejection(lonely.sql`select 1`)
    await until(() => lonely.stats().openFailures > 0)
    await clock.advance(1_000)
    expect(await refused).toMatchObject({ code: 'ERR_QUERY_TIMEOUT', phase: 'queue', timeoutMs: 1_000 })
    expect((await refused).message).toMatch(/the last attempt to connect failed: .*ECONNREFUSED/)
    expect((await refused).cause).toMatchObject({
      code: 'ERR_ACQUIRE_TIMEOUT',
      phase: 'connect',
      waitedMs: 1_000,
      cause: { code: 'ERR_CONNECT' },
    })
    await lonely.close()

    const pool = poolFor(db, { max: 1 })
    const asks = (): Promise<Error> => rejection(pool.outside(() => pool.with({ timeoutMs: 30 }).sql`select 1`))
    const held = await Promise.resolve(pool.transaction(asks))
    expect(held.message).toContain('its caller already holds a lease')
    expect(held.cause).toMatchObject({ phase: 'queue', timeoutMs: 30, holds: { connection: expect.any(String) } })
    expect((await pool.use(asks)).message).toContain('its caller already holds a lease')
  })

  test('with() ends a query in the queue of its connection, and not the one that runs', async () => {
    const clock = new FakeClock()
    const pool = poolFor(db, { max: 1, clock })
    const lease = await pool.acquire()
    const first = lease.sql`select pg_sleep(0.1), 'first' as name`.execute()
    const second = pool.within({ timeoutMs: 30 }, () => lease.sql`select 2`)
    const third = lease.sql`select 'third' as name`.execute()
    const late = rejection(second)
    await clock.advance(30)
    expect(await late).toMatchObject({ code: 'ERR_QUERY_TIMEOUT', phase: 'queue' })
    expect((await first)[0]?.['name']).toBe('first')
    expect((await third)[0]?.['name']).toBe('third')
    await lease.release()
    await expectSound(pool)
  })

  test('with() cancels what runs, and its connection serves again only when it is quiet', async () => {
    const clock = new FakeClock()
    const pool = poolFor(db, { max: 1, clock })
    const late = rejection(pool.with({ timeoutMs: 300 }).sql`select pg_sleep(60)`)
    await runs(db, 'pg_sleep(60)')
    await clock.advance(299)
    expect(await running(db, 'pg_sleep(60)')).toBeDefined()
    await clock.advance(1)
    expect(await late).toMatchObject({
      phase: 'run',
      timeoutMs: 300,
      message: expect.stringContaining('it was cancelled'),
    })
    const next = pool.sql`select 2 as two`
    expect([...(await next)]).toEqual([{ two: 2 }])
    expect(await running(db, 'pg_sleep(60)')).toBeUndefined()
    await expectSound(pool)
  })

  test('with() rejects at once where the server does not cancel, and replaces the connection in time', async () => {
    const pool = poolFor(db, { max: 1, resetTimeoutMs: 200 })
    await pool.sql`select 1`
    const { sql } = pool.with({ timeoutMs: 50 })
    expect(await rejection(sql.unsafe(stubborn))).toBeInstanceOf(QueryTimeoutError)
    expect([...(await pool.sql`select 1 as one`)]).toEqual([{ one: 1 }])
    const query = pool.sql.unsafe(stubborn)
    const cancelled = rejection(query)
    await runs(db, 'query_canceled')
    query.cancel()
    await cancelled
    await expectSound(pool, 3)
  })

  test('with() rejects with the signal’s reason: before, in the queue, and while it runs', async () => {
    const pool = poolFor(db, { max: 1 })
    expect(await rejection(pool.with({ signal: AbortSignal.abort(reason) }).sql`select 1`)).toBe(reason)
    expect(pool.stats().acquires).toBe(0)
    const lease = await pool.acquire()
    const controller = new AbortController()
    const { sql } = pool.with({ signal: controller.signal })
    const queued = rejection(sql`select 1`)
    await until(() => pool.stats().waiting === 1)
    controller.abort(reason)
    expect(await queued).toBe(reason)
    expect(pool.stats().waiting).toBe(0)
    await lease.release()
    await expectSound(pool)
  })

  test('with() leaves nothing behind on the signal and the clock when the answer is there', async () => {
    const clock = new FakeClock()
    const pool = poolFor(db, { max: 1, clock })
    await pool.sql`select 1`
    const { all } = clock.timers
    const { signal } = new AbortController()
    const { sql } = pool.with({ signal, timeoutMs: 1_000 })
    const asked = sql`select pg_sleep(0.02)`.execute()
    await until(() => clock.timers.all === all + 1)
    expect(getEventListeners(signal, 'abort')).toHaveLength(1)
    await asked
    await rejection(sql`select 1/0`)
    await rejection(sql`select ${undefined as never}`)
    await rejection(sql.file('/does/not/exist.sql'))
    await sql`select 1`.describe()
    const cancelled = sql`select pg_sleep(60)`
    setTimeout(() => cancelled.cancel(), 5)
    await rejection(cancelled)
    await givenBack(db, pool)
    expect(clock.timers.all).toBe(all)
    expect(getEventListeners(signal, 'abort')).toEqual([])
  })

  test('with() and all else takes one signal for many, as a request has one, without a warning', async () => {
    const warnings: string[] = []
    const note = ({ name, message }: Error): void => void warnings.push(`${name}: ${message}`)
    process.on('warning', note)
    onTestFinished(() => void process.off('warning', note))
    const pool = poolFor(db, { max: 2 })
    const controller = new AbortController()
    const { signal } = controller
    const { sql } = pool.with({ signal })
    const many = Array.from({ length: 20 }, (_, i) => i)
    const listeners = await Promise.all(many.map((i) => pool.listen(`channel ${i}`, () => undefined, { signal })))
    await Promise.all(many.map((i) => sql`select ${i}::int`))
    await Promise.all(many.map(() => pool.use(() => 'x', { signal })))
    await Promise.all(many.map((i) => pool.transaction((t) => t`select ${i}::int`, { signal })))
    await pool.within({ signal }, () => Promise.all(many.map((i) => pool.sql`select ${i}::int`)))
    await Promise.all(listeners.map((listener) => listener.unlisten()))
    await new Promise((resolve) => {
      setImmediate(resolve)
    })
    expect(warnings).toEqual([])
    expect(getEventListeners(signal, 'abort')).toEqual([])
  })

  test('with() counts from when a query is run, each query for itself', async () => {
    const clock = new FakeClock()
    const pool = poolFor(db, { max: 1, clock })
    const { sql } = pool.with({ timeoutMs: 100 })
    const query = sql`select 1 as one`
    await clock.advance(1_000)
    expect([...(await query)]).toEqual([{ one: 1 }])
    await clock.advance(1_000)
    expect([...(await sql`select 2 as two`)]).toEqual([{ two: 2 }])
  })

  test('with() takes an answer that waits behind a blocked event loop', async () => {
    const pool = poolFor(db, { max: 1 })
    await pool.sql`select 1`
    const asked = pool.with({ timeoutMs: 200 }).sql`select 1 as one, pg_sleep(0.1)`.execute()
    await new Promise<void>((resolve) => {
      const block = (): void => {
        const end = performance.now() + 1_000
        while (performance.now() < end);
        resolve()
      }
      // By then it has been written, and not been answered; after an immediate, timers come before sockets.
      setTimeout(() => setImmediate(block), 10)
    })
    expect((await asked)[0]).toMatchObject({ one: 1 })
  })

  test('with() gives no rows to forEach() after its deadline', async () => {
    const pool = poolFor(db, { max: 1 })
    const controller = new AbortController()
    let seen = 0
    const { sql } = pool.with({ signal: controller.signal })
    const read = sql`select g from generate_series(1, 100000) g`.forEach(() => {
      if (++seen === 10) controller.abort(reason)
    })
    expect(await rejection(read)).toBe(reason)
    await givenBack(db, pool)
    expect(seen).toBe(10)
    await expectSound(pool)
  })

  test('with() closes a cursor whose request to cancel came too late for the portion', async () => {
    await using proxy = await tcpServer((socket) => {
      socket.once('data', (first) => {
        // Requests to cancel get lost.
        if (first.length === 16 && first.readUInt32BE(4) === 80877102) {
          socket.end()
          return
        }
        const upstream = connect(db.server.port, db.server.host)
        upstream.on('error', () => undefined)
        upstream.write(first)
        upstream.pipe(socket)
        socket.pipe(upstream)
      })
    })
    const pool = createPool(db.url, { max: 1, port: proxy.port })
    const controller = new AbortController()
    const { sql } = pool.with({ signal: controller.signal })
    const portions = sql`select pg_sleep(0.1) from generate_series(1, 9)`.cursor(1)
    const iterator = portions[Symbol.asyncIterator]()
    const portion = rejection(iterator.next())
    await runs(db, 'pg_sleep(0.1)')
    controller.abort(reason)
    expect(await portion).toBe(reason)
    await givenBack(db, pool)
    expect([...(await pool.sql`select 1 as one`)]).toEqual([{ one: 1 }])
    expect(pool.stats().opens).toBe(1)
    await pool.close()
  })

  test('with() of a query whose plan has changed ends in time, and so does the next one', async () => {
    const pool = poolFor(db, { max: 1 })
    await pool.sql`create table if not exists replanned (a int)`
    await pool.sql`insert into replanned values (1)`
    const { sql } = pool.with({ timeoutMs: 5_000 })
    const read = async (): Promise<unknown[]> => [...(await sql`select * from replanned where a > ${0}`)]
    expect(await read()).toEqual([{ a: 1 }])
    await pool.sql`alter table replanned add column b int default 2`
    expect(await read()).toEqual([{ a: 1, b: 2 }])
    await expectSound(pool)
  })

  test('with() and within() refuse what they do not know', async () => {
    const pool = poolFor(db)
    const option = expect.objectContaining({ code: 'ERR_OPTION' })
    for (const wrong of [{ timeoutMs: 0 }, { timeoutMs: -1 }, { timeoutMs: '1' }, { signal: {} }, { timeout: 1 }]) {
      expect(() => pool.with(wrong as never)).toThrow(option)
      await expect(pool.within(wrong as never, () => undefined)).rejects.toEqual(option)
    }
    for (const queryTimeoutMs of [0, -1, Number.NaN, '1']) {
      expect(() => createPool(db.url, { queryTimeoutMs: queryTimeoutMs as number })).toThrow(option)
    }
  })
})

describe('queryTimeoutMs', () => {
  test('queryTimeoutMs holds on every tag, and the tighter deadline wins', async () => {
    const clock = new FakeClock()
    const pool = poolFor(db, { max: 2, clock, queryTimeoutMs: 1_000 })
    const lease = await pool.acquire()
    const late = [
      rejection(pool.sql`select pg_sleep(60)`),
      rejection(lease.sql`select pg_sleep(60)`),
      rejection(pool.with({ timeoutMs: 5_000 }).sql`select pg_sleep(60)`),
    ]
    await until(async () => (await db.sessions()).filter(({ state }) => state === 'active').length === 2)
    const tight = rejection(pool.with({ timeoutMs: 10 }).sql`select 1`)
    await clock.advance(10)
    expect(await tight).toMatchObject({ timeoutMs: 10, phase: 'queue' })
    await clock.advance(990)
    const phases = (await Promise.all(late)).map((error) => (error as QueryTimeoutError).phase)
    expect(phases).toEqual(['run', 'run', 'queue'])
    await lease.release()
    expect((await rejection(pool.transaction((sql) => advancing(sql`select pg_sleep(60)`)))).code).toBe(
      'ERR_QUERY_TIMEOUT',
    )
    await expectSound(pool, 2)

    async function advancing(query: PromiseLike<unknown>): Promise<void> {
      const asleep = rejection(query)
      await runs(db, 'pg_sleep(60)')
      await clock.advance(1_000)
      throw await asleep
    }
  })
})

describe('PostgresPool.within()', () => {
  test('within() is one deadline for all queries inside, however they are made', async () => {
    const clock = new FakeClock()
    const pool = poolFor(db, { max: 2, clock })
    const seen: unknown[] = []
    const result = await pool.within({ timeoutMs: 100 }, async () => {
      seen.push([...(await pool.sql`select 1 as one`)])
      await clock.advance(60)
      seen.push([...(await pool.query('select 2 as two'))])
      const late = Promise.all([
        rejection(pool.sql.unsafe('select pg_sleep(60)')),
        rejection(pool.query('select pg_sleep(60)')),
      ])
      await until(async () => (await db.sessions()).filter(({ state }) => state === 'active').length === 2)
      await clock.advance(40)
      seen.push(...(await late))
      seen.push(
        await rejection(pool.sql`select 3`),
        await rejection(pool.acquire()),
        await rejection(pool.use(() => 1)),
      )
      return 'its result'
    })
    expect(result).toBe('its result')
    expect(seen.slice(0, 2)).toEqual([[{ one: 1 }], [{ two: 2 }]])
    expect(seen.slice(2).map((error) => (error as QueryTimeoutError).code)).toEqual([
      'ERR_QUERY_TIMEOUT',
      'ERR_QUERY_TIMEOUT',
      'ERR_QUERY_TIMEOUT',
      'ERR_ACQUIRE_TIMEOUT',
      'ERR_ACQUIRE_TIMEOUT',
    ])
    expect(seen.slice(2).map((error) => (error as QueryTimeoutError).phase)).toEqual([
      'run',
      'run',
      'queue',
      'queue',
      'queue',
    ])
    await expectSound(pool, 2)
  })

  test('within() holds an acquire to its deadline, and one that it makes to its signal', async () => {
    const clock = new FakeClock()
    const pool = poolFor(db, { max: 1, clock })
    const lease = await pool.acquire()
    const late = pool.within({ timeoutMs: 100 }, () => rejection(pool.acquire()))
    await clock.advance(100)
    expect(await late).toBeInstanceOf(AcquireTimeoutError)
    const controller = new AbortController()
    const own = new AbortController()
    const inside = { signal: controller.signal }
    const aborted = pool.within(inside, () => Promise.all([rejection(pool.acquire()), rejection(pool.acquire(own))]))
    await until(() => pool.stats().waiting === 2)
    controller.abort(reason)
    expect(await aborted).toEqual([reason, reason])
    await lease.release()
    await expectSound(pool)
  })

  test('within() names the query that waits for the connection with which its transaction would begin', async () => {
    const clock = new FakeClock()
    const pool = poolFor(db, { max: 1, clock })
    const lease = await pool.acquire()
    const late = [
      () => pool.transaction((sql) => sql`select 1`, { lazy: true }),
      () => pool.transaction(() => pool.sql`select 1`, { lazy: true }),
      () => pool.session().sql`select 1`,
      // Its acquire meets the deadline first.
      () => pool.transaction((sql) => sql`select 1`, { lazy: true, timeoutMs: 99.5 }),
    ]
    for (const wait of late) {
      const error = rejection(pool.within({ timeoutMs: 100 }, wait))
      await until(() => pool.stats().waiting === 1)
      await clock.advance(100)
      expect(await error).toBeInstanceOf(QueryTimeoutError)
      expect(await error).toMatchObject({ phase: 'queue', timeoutMs: 100 })
      await until(() => pool.stats().waiting === 0)
    }
    // One that was there before is bound by its own limits only.
    const session = pool.session()
    const bound = rejection(pool.within({ timeoutMs: 100 }, async () => await session.sql`select 1`))
    await until(() => pool.stats().waiting === 1)
    await clock.advance(100)
    expect(await bound).toBeInstanceOf(QueryTimeoutError)
    // Whoever asks for the connection itself hears of that.
    const eager = rejection(pool.within({ timeoutMs: 100 }, () => pool.transaction((sql) => sql`select 1`)))
    await until(() => pool.stats().waiting === 2)
    await clock.advance(100)
    expect(await eager).toBeInstanceOf(AcquireTimeoutError)
    await lease.release()
    expect([...(await session.sql`select 2 as two`)]).toEqual([{ two: 2 }])
    await session.commit()
    await expectSound(pool)
  })

  test('within() rolls back the transaction that meets it, and waits for none that commits', async () => {
    const clock = new FakeClock()
    const pool = poolFor(db, { max: 1, clock })
    await pool.sql`create table if not exists counted (a int)`
    const late = pool.within({ timeoutMs: 100 }, () =>
      pool.transaction(async (sql) => {
        await sql`insert into counted values (1)`
        const asleep = rejection(pool.sql`select pg_sleep(60)`)
        await runs(db, 'pg_sleep(60)')
        await clock.advance(100)
        throw await asleep
      }),
    )
    expect(await rejection(late)).toMatchObject({ code: 'ERR_QUERY_TIMEOUT', phase: 'run' })
    await pool.within({ timeoutMs: 100 }, () =>
      pool.transaction(async (sql) => {
        await sql`insert into counted values (2)`
        await clock.advance(100)
      }),
    )
    expect([...(await pool.sql`select a from counted`)]).toEqual([{ a: 2 }])
    await expectSound(pool)
  })

  test('within() around another one: the tighter holds, and either signal', async () => {
    const clock = new FakeClock()
    const pool = poolFor(db, { max: 1, clock })
    const outer = new AbortController()
    const timeouts = await pool.within({ timeoutMs: 100, signal: outer.signal }, () =>
      pool.within({ timeoutMs: 1_000, signal: new AbortController().signal }, async () => {
        const wide = rejection(pool.sql`select pg_sleep(60)`)
        await runs(db, 'pg_sleep(60)')
        await clock.advance(100)
        return (await wide) as QueryTimeoutError
      }),
    )
    expect(timeouts.timeoutMs).toBe(100)
    const aborted = pool.within({ signal: outer.signal }, () =>
      pool.within({ timeoutMs: 1_000 }, async () => {
        const asked = rejection(pool.sql`select pg_sleep(60)`)
        await runs(db, 'pg_sleep(60)')
        outer.abort(reason)
        return await asked
      }),
    )
    expect(await aborted).toBe(reason)
    await expectSound(pool)
  })

  test('within() is for its own pool, and for what is made in it', async () => {
    const clock = new FakeClock()
    const [pool, other] = [poolFor(db, { max: 1, clock }), poolFor(db, { max: 1, clock })]
    const before = pool.sql`select 1 as one`
    await pool.within({ timeoutMs: 10 }, async () => {
      await clock.advance(10)
      expect([...(await before)]).toEqual([{ one: 1 }])
      expect([...(await other.sql`select 2 as two`)]).toEqual([{ two: 2 }])
      await rejection(pool.sql`select 3`)
    })
  })

  test('within() binds neither what was left behind, nor what a connection that it opened says later', async () => {
    const clock = new FakeClock()
    const answers: Promise<unknown>[] = []
    const pool = poolFor(db, {
      max: 1,
      clock,
      onnotice: () => void answers.push(Promise.resolve(pool.sql`select 'noticed' as name`)),
    })
    let later!: () => Promise<unknown>
    await pool.within({ timeoutMs: 10 }, async () => {
      await pool.sql`select 1`
      let go!: () => void
      const gone = new Promise<void>((resolve) => {
        go = resolve
      })
      const left = gone.then(async () => [...(await pool.sql`select 2 as two`)])
      later = () => (go(), left)
    })
    await clock.advance(1_000)
    expect(await later()).toEqual([{ two: 2 }])
    await pool.sql.unsafe(`do $$ begin raise notice 'hello'; end $$`)
    await until(() => answers.length > 0)
    expect(await Promise.all(answers)).toEqual([[{ name: 'noticed' }]])
  })

  test('within() passes on what its callback throws or returns', async () => {
    const pool = poolFor(db)
    expect(await pool.within({ timeoutMs: 1_000 }, () => 7)).toBe(7)
    await expect(
      pool.within({}, () => {
        throw reason
      }),
    ).rejects.toBe(reason)
    expect(await pool.within({}, () => pool.sql`select 1 as one`)).toEqual([{ one: 1 }])
  })
})

describe('PostgresLease.cancel()', () => {
  test('cancel() ends what runs and what waits, and the lease goes on', async () => {
    const pool = poolFor(db, { max: 1 })
    const lease = await pool.acquire()
    const ended = [rejection(lease.sql`select pg_sleep(60)`), rejection(lease.sql`select 1`)]
    await runs(db, 'pg_sleep(60)')
    lease.cancel()
    expect((await Promise.all(ended)).map(({ code, name }) => [name, code])).toEqual([
      ['PostgresError', '57014'],
      ['QueryCancelledError', '57014'],
    ])
    expect([...(await lease.sql`select 1 as one`)]).toEqual([{ one: 1 }])
    lease.cancel()
    expect([...(await lease.sql`select 2 as two`)]).toEqual([{ two: 2 }])
    await lease.release()
    expect(() => lease.cancel()).toThrow(LeaseReleasedError)
    await expectSound(pool)
  })
})
