import { channel } from 'node:diagnostics_channel'
import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import plain from 'postgres'
import { afterAll, beforeAll, describe, expect, expectTypeOf, onTestFinished, test } from 'vitest'
import { systemClock } from '../../src/clock.ts'
import type { PostgresPool, PostgresPoolOptions } from '../../src/postgres/index.ts'
import { FakeClock } from '../../src/testing/index.ts'
import type { PoolEvent } from '../../src/watch.ts'
import { rejection } from '../support/connection.ts'
import { createDatabase, until } from '../support/database.ts'
import type { TestDatabase } from '../support/database.ts'
import { hear } from '../support/events.ts'
import { makePool } from '../support/pool.ts'

type QueryEvent = Extract<PoolEvent, { type: 'millpond:query' }>

let db: TestDatabase
beforeAll(async () => {
  db = await createDatabase()
})
afterAll(() => db.drop())

const make = (options?: PostgresPoolOptions): PostgresPool => makePool(db, options)

/** Runs what asks for the advisory lock 1, and has it wait for that until it is told to go on. */
async function behindLock(run: () => PromiseLike<unknown>): Promise<{ goOn(): Promise<void> }> {
  const holder = plain(db.url, { max: 1 })
  onTestFinished(() => holder.end())
  await holder`select pg_advisory_lock(1)`
  const done = (async () => await run())()
  await db.toRun('pg_advisory_xact_lock(1)')
  return {
    async goOn() {
      await holder`select pg_advisory_unlock(1)`
      await done
    },
  }
}

describe('millpond:query', () => {
  test('millpond:query tells of each query, once its answer is complete', async () => {
    const heard = hear('millpond:query')
    const clock = new FakeClock()
    const pool = make({ name: 'watched', clock })
    const opening = pool.sql`create table seen (a int)`.execute()
    await clock.advance(7)
    await opening
    await pool.sql`insert into seen select generate_series(1, 5)`
    const waiting = await behindLock(() => pool.sql`select pg_advisory_xact_lock(1), a from seen limit 3`)
    await clock.advance(55)
    await waiting.goOn()
    expect(heard.map(({ command, rows }) => [command, rows])).toEqual([
      ['CREATE TABLE', undefined],
      ['INSERT', 5],
      ['SELECT', 3],
    ])
    const [first, , last] = heard
    expect(first).toMatchObject({ type: 'millpond:query', pool: 'watched', connection: expect.stringMatching(/^mp/) })
    // Opening a connection took its time; afterwards there was one.
    expect(first).toMatchObject({ waitedMs: 7, durationMs: 7 })
    expect(last).toMatchObject({ waitedMs: 0, durationMs: 55 })
    expect(heard.every((event) => !('text' in event) && event.code === undefined)).toBe(true)
  })

  test('millpond:query tells the code of a failure, and where it was', async () => {
    const heard = hear('millpond:query')
    const pool = make({ max: 1 })
    await rejection(pool.sql`select 1/0`)
    await rejection(pool.sql`select ${undefined as never}`)
    await rejection(pool.sql`select ${new Date(Number.NaN)}`)
    const lease = await pool.acquire()
    await rejection(pool.with({ timeoutMs: 10 }).sql`select 1`)
    const waiting = pool.sql`select 1`
    const cancelled = rejection(waiting)
    await until(() => pool.stats().waiting === 1)
    waiting.cancel()
    await cancelled
    await lease.release()
    await rejection(lease.sql`select 1`)
    await rejection(pool.with({ signal: AbortSignal.abort() }).sql`select 1`)
    const codes = ['22012', 'UNDEFINED_VALUE', 'RangeError', 'ERR_QUERY_TIMEOUT', '57014', 'ERR_LEASE_RELEASED']
    expect(heard.map(({ code }) => code)).toEqual([...codes, 'AbortError'])
    expect(heard.map(({ connection }) => connection !== undefined)).toEqual([
      true,
      true,
      true,
      false,
      false,
      false,
      false,
    ])
    const late = heard[3]
    expect(late?.waitedMs).toBe(late?.durationMs)
    expect(late?.waitedMs).toBeGreaterThanOrEqual(9)
  })

  test('millpond:query tells of leases and transactions as well, not of what the pool itself sends', async () => {
    const heard = hear('millpond:query')
    const clock = new FakeClock()
    const pool = make({ max: 1, queryText: true, clock })
    await pool.use(async (sql) => {
      await sql`set statement_timeout = '1s'`
    })
    await pool.transaction(async (sql) => {
      const waiting = await behindLock(() =>
        Promise.all([sql`select pg_advisory_xact_lock(1)`.execute(), pool.sql`select 2`.execute()]),
      )
      await clock.advance(9)
      await waiting.goOn()
      await sql.savepoint((inner) => inner`select 3`)
    })
    const texts = heard.map(({ text }) => text)
    expect(texts).toEqual([`set statement_timeout = '1s'`, 'select pg_advisory_xact_lock(1)', 'select 2', 'select 3'])
    // Its turn came when the other one had the lock.
    expect(heard[2]).toMatchObject({ waitedMs: 9, durationMs: 9 })
  })

  test('millpond:query tells the text only where that is wanted, and never the parameters', async () => {
    const { sql } = make({ queryText: true })
    const heard = hear('millpond:query')
    await sql`select ${'secret'}::text as a, ${sql('b')} from (select 1 as b) as t`
    await sql.unsafe('select $1::text as a', ['secret'])
    await sql.unsafe('select 1 as a; select 2 as b')
    expect(heard.map(({ text }) => text)).toEqual([
      'select $1::text as a, "b" from (select 1 as b) as t',
      'select $1::text as a',
      'select 1 as a; select 2 as b',
    ])
    expect(JSON.stringify(heard)).not.toContain('secret')
    expect(heard[2]).toMatchObject({ command: 'SELECT; SELECT', rows: 2 })
    expect(() => make({ queryText: 'yes' as never })).toThrow(TypeError)
  })

  test('millpond:query waits for the end of a cursor and of a COPY', async () => {
    const heard = hear('millpond:query')
    const pool = make({ max: 1 })
    const portions = pool.sql`select g from generate_series(1, 5) g`.cursor(2)
    let seen = 0
    for await (const rows of portions) {
      seen += rows.length
      expect(heard).toEqual([])
    }
    await until(() => heard.length === 1)
    expect(heard[0]).toMatchObject({ rows: seen, code: undefined })
    for await (const _ of pool.sql`select g from generate_series(1, 5) g`.cursor(2)) break
    await until(() => heard.length === 2)
    expect(heard[1]).toMatchObject({ rows: 2, code: undefined })
    const stream = await pool.sql`copy (select repeat('x', 1000) from generate_series(1, 20000)) to stdout`.readable()
    let chunks = 0
    for await (const _ of stream) if (chunks++ === 0) expect(heard.length).toBe(2)
    await until(() => heard.length === 3)
    expect(heard[2]).toMatchObject({ command: 'COPY', rows: undefined })
    await pool.sql`select 1 as a`.describe()
    await until(() => heard.length === 4)
    const errors: unknown[] = []
    const cut = pool.sql`select pg_sleep(60)`
    void cut.catch((error: unknown) => errors.push(error))
    await until(async () => (await db.sessions()).some(({ query }) => query.includes('pg_sleep(60)')))
    await db.admin`select pg_terminate_backend(pid) from pg_stat_activity where datname = ${db.name}`
    await until(() => heard.length === 5)
    expect(heard[4]).toMatchObject({ code: 'ERR_CONNECTION_LOST', connection: expect.stringMatching(/^mp/) })
    expect(errors).toHaveLength(1)
  })

  test('millpond:query goes to the option log, too', async () => {
    const events: PoolEvent[] = []
    const pool = make({ log: (event) => events.push(event) })
    await pool.sql`select 1`
    const event = events.find(({ type }) => type === 'millpond:query')
    expect(event).toMatchObject({ pool: pool.name, rows: 1 })
    expectTypeOf<QueryEvent['durationMs']>().toEqualTypeOf<number>()
    expectTypeOf<QueryEvent['text']>().toEqualTypeOf<string | undefined>()
  })

  test('NODE_DEBUG=millpond prints a line for each query', async () => {
    const script = `
      import { createPool } from 'millpond/postgres'
      const pool = createPool(process.env.URL, { name: 'shop', queryText: true })
      await pool.sql\`select 1 as a\`
      await pool.close()`
    const { stderr } = await promisify(execFile)(process.execPath, ['--input-type=module', '-e', script], {
      cwd: fileURLToPath(new URL('../..', import.meta.url)),
      env: { ...process.env, URL: db.url, NODE_DEBUG: 'millpond' },
    })
    expect(stderr).toMatch(
      /shop: query mp[\w-]+ duration=[\d.]+ms waited=[\d.]+ms rows=1 command=SELECT text=select 1 as a\n/,
    )
  })

  test('millpond:query costs nothing while nobody listens: no clock is read, nothing is kept', async () => {
    expect(channel('millpond:query').hasSubscribers).toBe(false)
    let readings = 0
    const clock = {
      ...systemClock,
      now() {
        readings++
        return systemClock.now()
      },
    }
    const pool = make({ max: 1, clock })
    const run = async (): Promise<number> => {
      const lease = await pool.acquire()
      const before = readings
      for (let i = 0; i < 20; i++) await lease.sql`select 1`
      const after = readings
      await lease.release()
      return after - before
    }
    await run()
    expect(await run()).toBe(0)
    const query = pool.sql`select 1`
    await query
    expect(query).toHaveProperty('watch', undefined)
    expect(Object.hasOwn(query, 'resolve')).toBe(true)
    const heard = hear('millpond:query')
    // Run, sent, ended.
    expect(await run()).toBe(60)
    expect(heard).toHaveLength(20)
  })
})
