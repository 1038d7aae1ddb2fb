import { randomBytes } from 'node:crypto'
import { Readable, Writable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { ConnectionLostError, QueryTimeoutError } from '../../src/errors.ts'
import type { PostgresPool } from '../../src/postgres/index.ts'
import { FakeClock } from '../../src/testing/index.ts'
import { rejection } from '../support/connection.ts'
import { createDatabase } from '../support/database.ts'
import type { TestDatabase } from '../support/database.ts'
import { givenBack, kill, poolFor } from '../support/given-back.ts'

let db: TestDatabase
beforeAll(async () => {
  db = await createDatabase()
})
afterAll(() => db.drop())

const data = randomBytes(100_000)

async function expectSound(pool: PostgresPool, opens = 1): Promise<void> {
  await givenBack(db, pool)
  expect([...(await pool.sql`select 1 as one`)]).toEqual([{ one: 1 }])
  expect(pool.stats().opens).toBe(opens)
}

/** Makes one, with the data in it. */
async function made(pool: PostgresPool): Promise<number> {
  await using object = await pool.sql.largeObject()
  await pipeline(Readable.from([data]), await object.writable())
  return object.oid
}

async function all(stream: Readable): Promise<Buffer> {
  const chunks: Buffer[] = []
  for await (const chunk of stream) chunks.push(chunk as Buffer)
  return Buffer.concat(chunks)
}

const exists = async (pool: PostgresPool, oid: number): Promise<boolean> =>
  (await pool.sql`select 1 from pg_largeobject_metadata where oid = ${oid}`).length > 0

describe('largeObject()', () => {
  test('largeObject() can be written and read, and holds its connection until it is closed', async () => {
    const pool = poolFor(db, { max: 1 })
    const object = await pool.sql.largeObject()
    expect(pool.stats().leased).toBe(1)
    await object.write(Buffer.from('hello, world'))
    await object.seek(7)
    expect(String((await object.read(5))[0].data)).toBe('world')
    expect([...(await object.tell())]).toEqual([{ lo_tell64: '12' }])
    await object.seek(-12, 2)
    expect([...(await object.size())]).toEqual([{ position: '0', size: '12' }])
    await object.truncate(5)
    expect(String((await object.read(100))[0].data)).toBe('hello')
    expect(pool.stats().leased).toBe(1)
    await object.close()
    await object.close()
    await expectSound(pool)
    expect(await exists(pool, object.oid)).toBe(true)
  })

  test('largeObject() streams both ways, all of it and parts of it', async () => {
    const pool = poolFor(db, { max: 1 })
    const oid = await made(pool)
    await expectSound(pool)
    await using object = await pool.sql.largeObject(oid)
    expect((await all(await object.readable())).equals(data)).toBe(true)
    expect((await all(await object.readable({ start: 0 }))).equals(data)).toBe(true)
    const part = await all(await object.readable({ start: 1_000, end: 50_000 }))
    expect(part.equals(data.subarray(1_000, 50_000))).toBe(true)
    const small = await all(await object.readable({ start: 7, end: 10, highWaterMark: 2 }))
    expect(small.equals(data.subarray(7, 10))).toBe(true)
    await pipeline(Readable.from([Buffer.from('patched')]), await object.writable({ start: 10 }))
    expect(String(await all(await object.readable({ start: 10, end: 17 })))).toBe('patched')
  })

  test('largeObject() gives its connection back where it cannot be opened', async () => {
    const pool = poolFor(db, { max: 1 })
    expect((await rejection(pool.sql.largeObject(4_000_000_000))).code).toBe('42704')
    await expectSound(pool)
  })

  test('largeObject() rolls back and gives its connection back when an operation fails', async () => {
    const pool = poolFor(db, { max: 1 })
    const object = await pool.sql.largeObject(undefined, 0x4_0000)
    const error = await rejection(object.write(Buffer.from('x')))
    expect(error.code).toBe('55000')
    await expectSound(pool)
    expect(await exists(pool, object.oid)).toBe(false)
    expect(await rejection(object.close())).toBe(error)
    await object[Symbol.asyncDispose]()
    expect((await rejection(object.tell())).name).toBe('LeaseReleasedError')
  })

  test('largeObject() whose stream was left goes on, and closes', async () => {
    const pool = poolFor(db, { max: 1 })
    const oid = await made(pool)
    const object = await pool.sql.largeObject(oid)
    for await (const _ of await object.readable()) break
    const full = new Writable({ write: (_, __, done) => done(new Error('disk full')) })
    expect((await rejection(pipeline(await object.readable(), full))).message).toBe('disk full')
    await object.close()
    await expectSound(pool)
  })

  test('largeObject() ends with its connection, at a deadline, and with a signal', async () => {
    const clock = new FakeClock()
    const pool = poolFor(db, { max: 1, clock })
    const oid = await made(pool)
    const lost = await pool.sql.largeObject(oid)
    await kill(db)
    expect(await rejection(lost.tell())).toBeInstanceOf(ConnectionLostError)
    const late = await pool.sql.largeObject(oid)
    const stream = await late.readable()
    const read = pool.within({ timeoutMs: 10 }, async () => {
      await clock.advance(10)
      return await all(stream)
    })
    expect(await rejection(read)).toBeInstanceOf(QueryTimeoutError)
    await expectSound(pool, 2)
    const reason = new Error('the client has left')
    const controller = new AbortController()
    const aborted = pool.within({ signal: controller.signal }, async () => {
      const object = await pool.sql.largeObject(oid)
      controller.abort(reason)
      await object.tell()
    })
    expect(await rejection(aborted)).toBe(reason)
    await expectSound(pool, 2)
  })

  test('largeObject() inside a transaction is part of it', async () => {
    const pool = poolFor(db, { max: 1 })
    let oid = 0
    const undone = pool.transaction(async (sql) => {
      const object = await pool.sql.largeObject()
      ;({ oid } = object)
      await object.write(Buffer.from('x'))
      await object.close()
      expect((await sql`select 1 from pg_largeobject_metadata where oid = ${oid}`).length).toBe(1)
      throw new Error('undo')
    })
    expect((await rejection(undone)).message).toBe('undo')
    expect(await exists(pool, oid)).toBe(false)
    await pool.transaction(async () => {
      await using object = await pool.sql.largeObject()
      ;({ oid } = object)
    })
    expect(await exists(pool, oid)).toBe(true)
    await expectSound(pool)
  })
})
