import { PassThrough, Readable, Writable } from 'node:stream'
import { finished, pipeline } from 'node:stream/promises'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { ConnectionLostError, QueryCancelledError, QueryTimeoutError, SessionBusyError } from '../../src/errors.ts'
import type { PostgresPool } from '../../src/postgres/index.ts'
import { FakeClock } from '../../src/testing/index.ts'
import { rejection } from '../support/connection.ts'
import { createDatabase, until } from '../support/database.ts'
import type { TestDatabase } from '../support/database.ts'
import { givenBack, kill, poolFor } from '../support/given-back.ts'

let db: TestDatabase
beforeAll(async () => {
  db = await createDatabase()
})
afterAll(() => db.drop())

/** More than fits into all buffers on the way. */
const lots = "select repeat('x', 1000) from generate_series(1, 30000)"

async function table(pool: PostgresPool, name: string): Promise<void> {
  await pool.sql`create table if not exists ${pool.sql(name)} (a int primary key)`
}

async function text(stream: Readable): Promise<string> {
  let all = ''
  for await (const chunk of stream) all += String(chunk)
  return all
}

/** Still right, on the one connection that it began with. */
async function expectSound(pool: PostgresPool, opens = 1): Promise<void> {
  await givenBack(db, pool)
  for (const i of [1, 2]) expect([...(await pool.sql`select ${i}::int as i`)]).toEqual([{ i }])
  expect(pool.stats().opens).toBe(opens)
}

const count = async (pool: PostgresPool, name: string): Promise<number> =>
  Number((await pool.sql`select count(*) from ${pool.sql(name)}`)[0]?.['count'])

const forever = new Promise<never>(() => undefined)

describe('readable()', () => {
  test('readable() holds its connection as long as its stream lives, and no longer', async () => {
    const pool = poolFor(db, { max: 1 })
    const stream = await pool.sql`copy (select g from generate_series(1, 3) g) to stdout`.readable()
    expect(await text(stream)).toBe('1\n2\n3\n')
    await expectSound(pool)
    const slow = await pool.sql.unsafe(`copy (${lots}) to stdout`).readable()
    await until(() => slow.readableLength > 0)
    expect(pool.stats().leased).toBe(1)
    expect((await text(slow)).length).toBe(30_000 * 1_001)
    await expectSound(pool)
  })

  test('readable() that its reader has left gives its connection back, whatever still comes', async () => {
    const pool = poolFor(db, { max: 1 })
    const copy = (): Promise<Readable> => pool.sql.unsafe(`copy (${lots}) to stdout`).readable()
    for await (const _ of await copy()) break
    await expectSound(pool)
    const unread = await copy()
    await until(() => unread.readableLength > 0)
    unread.destroy()
    await expectSound(pool)
    const failed = await copy()
    failed.destroy(new Error('of its user'))
    await expectSound(pool)
    const full = new Writable({ write: (_, __, done) => done(new Error('disk full')) })
    expect((await rejection(pipeline(await copy(), full))).message).toBe('disk full')
    await expectSound(pool)
  })

  test('readable() rejects, or its stream fails, with the server’s error', async () => {
    const pool = poolFor(db, { max: 1 })
    expect((await rejection(pool.sql`copy nowhere to stdout`.readable())).code).toBe('42P01')
    const failing = await pool.sql`copy (select 1/(3-g) from generate_series(1, 9) g) to stdout`.readable()
    expect((await rejection(text(failing))).code).toBe('22012')
    await expectSound(pool)
  })

  test('readable() of what is no COPY resolves to its rows', async () => {
    const pool = poolFor(db, { max: 1 })
    expect(await pool.sql`select 1 as one`.readable()).toEqual([{ one: 1 }])
    await expectSound(pool)
  })

  test('readable() fails when its connection dies', async () => {
    const pool = poolFor(db, { max: 1 })
    const stream = await pool.sql.unsafe(`copy (${lots}) to stdout`).readable()
    await kill(db)
    expect(await rejection(text(stream))).toBeInstanceOf(ConnectionLostError)
    await expectSound(pool, 2)
  })

  test('readable() that nobody reads ends at its deadline, or with its signal', async () => {
    const clock = new FakeClock()
    const pool = poolFor(db, { max: 1, clock })
    const stream = await pool.with({ timeoutMs: 50 }).sql.unsafe(`copy (${lots}) to stdout`).readable()
    await clock.advance(50)
    await expectSound(pool)
    expect(stream.errored).toBeInstanceOf(QueryTimeoutError)
    expect(await rejection(text(stream))).toMatchObject({ code: 'ERR_QUERY_TIMEOUT', phase: 'run' })
    const controller = new AbortController()
    const other = await pool.with({ signal: controller.signal }).sql.unsafe(`copy (${lots}) to stdout`).readable()
    const reason = new Error('the client has left')
    const reading = rejection(text(other))
    controller.abort(reason)
    expect(await reading).toBe(reason)
    await expectSound(pool)
  })

  test('readable() that is cancelled fails its stream', async () => {
    const pool = poolFor(db, { max: 1 })
    const query = pool.sql.unsafe(`copy (${lots}) to stdout`)
    const stream = await query.readable()
    const reading = rejection(text(stream))
    query.cancel()
    expect(await reading).toBeInstanceOf(QueryCancelledError)
    await expectSound(pool)
  })
})

describe('writable()', () => {
  test('writable() holds its connection until the server has what was written', async () => {
    const pool = poolFor(db, { max: 1 })
    await table(pool, 'written')
    const stream = await pool.sql`copy written from stdin`.writable()
    expect(pool.stats().leased).toBe(1)
    stream.write('1\n2\n')
    stream.end('3\n')
    await finished(stream)
    expect(await count(pool, 'written')).toBe(3)
    await expectSound(pool)
  })

  test('writable() that its writer destroys writes nothing, and gives its connection back', async () => {
    const pool = poolFor(db, { max: 1 })
    await table(pool, 'destroyed')
    const stream = await pool.sql`copy destroyed from stdin`.writable()
    stream.write('1\n')
    stream.destroy()
    await expectSound(pool)
    const source = new PassThrough()
    const piped = pipeline(source, await pool.sql`copy destroyed from stdin`.writable())
    source.write('1\n')
    source.destroy(new Error('unplugged'))
    expect((await rejection(piped)).message).toBe('unplugged')
    await expectSound(pool)
    expect(await count(pool, 'destroyed')).toBe(0)
  })

  test('writable() fails with the server’s error, in the middle as at the end', async () => {
    const pool = poolFor(db, { max: 1 })
    await table(pool, 'refused')
    expect((await rejection(pool.sql`copy nowhere from stdin`.writable())).code).toBe('42P01')
    const write = async (rows: string[]): Promise<void> =>
      pipeline(Readable.from(rows), await pool.sql`copy refused from stdin`.writable())
    expect((await rejection(write(['1\n', 'nonsense\n', '3\n']))).code).toBe('22P02')
    await expectSound(pool)
    // Seen by the server when all has been written.
    expect((await rejection(write(['1\n', '1\n']))).code).toBe('23505')
    await expectSound(pool)
    expect(await count(pool, 'refused')).toBe(0)
    await write(['1\n', '2\n'])
    expect(await count(pool, 'refused')).toBe(2)
    await expectSound(pool)
  })

  test('writable() fails when its connection dies', async () => {
    const pool = poolFor(db, { max: 1 })
    await table(pool, 'lost')
    const stream = await pool.sql`copy lost from stdin`.writable()
    const failed = rejection(finished(stream))
    stream.write('1\n')
    await kill(db)
    expect(await failed).toBeInstanceOf(ConnectionLostError)
    await expectSound(pool, 2)
    expect(await count(pool, 'lost')).toBe(0)
  })

  test('writable() that is left open ends at its deadline, or with its signal', async () => {
    const clock = new FakeClock()
    const pool = poolFor(db, { max: 1, clock })
    await table(pool, 'open')
    const stream = await pool.with({ timeoutMs: 50 }).sql`copy open from stdin`.writable()
    stream.write('1\n')
    await clock.advance(50)
    await expectSound(pool)
    expect(stream.errored).toBeInstanceOf(QueryTimeoutError)
    const controller = new AbortController()
    const reason = new Error('the client has left')
    const other = await pool.with({ signal: controller.signal }).sql`copy open from stdin`.writable()
    const failed = rejection(finished(other))
    controller.abort(reason)
    expect(await failed).toBe(reason)
    await expectSound(pool)
    expect(await count(pool, 'open')).toBe(0)
  })

  test('writable() whose deadline comes after its last byte, behind a lock, is cancelled', async () => {
    const clock = new FakeClock()
    const pool = poolFor(db, { clock })
    await table(pool, 'locked')
    const lease = await pool.acquire()
    await lease.sql`begin`
    await lease.sql`insert into locked values (1)`
    const stream = await pool.with({ timeoutMs: 150 }).sql`copy locked from stdin`.writable()
    const failed = rejection(pipeline(Readable.from(['1\n']), stream))
    await until(async () => (await db.sessions()).some(({ wait }) => wait === 'transactionid'), 'the COPY to wait')
    await clock.advance(150)
    expect(await failed).toBeInstanceOf(QueryTimeoutError)
    await lease.sql`rollback`
    await lease.release()
    await expectSound(pool, 2)
  })

  test('writable() that is cancelled fails its stream', async () => {
    const pool = poolFor(db, { max: 1 })
    await table(pool, 'cancelled')
    const query = pool.sql`copy cancelled from stdin`
    const stream = await query.writable()
    const failed = rejection(finished(stream))
    query.cancel()
    expect(await failed).toBeInstanceOf(QueryCancelledError)
    await expectSound(pool)
  })
})

describe('a COPY on a lease and in a transaction', () => {
  test('a query behind the open COPY of its own lease is refused at once', async () => {
    const pool = poolFor(db, { max: 1 })
    await table(pool, 'busy')
    const lease = await pool.acquire()
    const stream = await lease.sql`copy busy from stdin`.writable()
    const error = await rejection(lease.sql`select 1`)
    expect(error).toBeInstanceOf(SessionBusyError)
    expect(error).toMatchObject({ code: 'ERR_SESSION_BUSY', open: 'copy' })
    const done = finished(stream)
    stream.end('1\n')
    // Its data are all there: what comes now waits for the server.
    const after = lease.sql`select count(*)::int from busy`
    await done
    expect((await after)[0]).toEqual({ count: 1 })
    const readable = await lease.sql.unsafe(`copy (${lots}) to stdout`).readable()
    expect(await rejection(lease.sql`select 1`)).toBeInstanceOf(SessionBusyError)
    readable.destroy()
    await Promise.race([finished(readable).catch(() => undefined), forever])
    expect([...(await lease.sql`select 2 as two`)]).toEqual([{ two: 2 }])
    expect(await text(await lease.sql`copy busy to stdout`.readable())).toBe('1\n')
    expect([...(await lease.sql`select 3 as three`)]).toEqual([{ three: 3 }])
    await lease.release()
    await expectSound(pool)
  })

  test('a lease that is released with a COPY open is cleaned or replaced, in time', async () => {
    const pool = poolFor(db, { max: 1, resetTimeoutMs: 200 })
    await table(pool, 'abandoned')
    const writing = await pool.acquire()
    await writing.sql`copy abandoned from stdin`.writable()
    const reading = writing.release().then(() => pool.acquire())
    await (await reading).sql.unsafe(`copy (${lots}) to stdout`).readable()
    await (await reading).release()
    await givenBack(db, pool)
    expect([...(await pool.sql`select 1 as one`)]).toEqual([{ one: 1 }])
  })

  test('a transaction can write a COPY, and fails with one that was left', async () => {
    const pool = poolFor(db, { max: 1 })
    await table(pool, 'in_transaction')
    await pool.transaction(async (sql) => {
      await pipeline(Readable.from(['1\n', '2\n']), await sql`copy in_transaction from stdin`.writable())
      expect((await sql`select count(*)::int from in_transaction`)[0]).toEqual({ count: 2 })
      const stream = await sql`copy in_transaction from stdin`.writable()
      expect(await rejection(pool.sql`select 1`)).toBeInstanceOf(SessionBusyError)
      expect(await rejection(sql.savepoint(() => 1))).toBeInstanceOf(SessionBusyError)
      await pipeline(Readable.from([]), stream)
    })
    const left = pool.transaction(async (sql) => {
      await sql`insert into in_transaction values (3)`
      for await (const _ of await sql.unsafe(`copy (${lots}) to stdout`).readable()) break
    })
    expect((await rejection(left)).code).toBe('57014')
    expect(await count(pool, 'in_transaction')).toBe(2)
    await expectSound(pool)
  })
})
