import { setTimeout as sleep } from 'node:timers/promises'
import { connect } from 'node:net'
import type { Socket } from 'node:net'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { ConnectionLostError } from '../../src/errors.ts'
import type { Connection } from '../../src/postgres/connection.ts'
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

function failToParse(): never {
  throw new Error('no such number')
}

const kill = (connection: Connection): PromiseLike<unknown> =>
  db.admin`select pg_terminate_backend(${connection.identity.pid})`

/** Still right: the connection answers with what was asked. */
async function expectSound(sql: PostgresSql): Promise<void> {
  for (const i of [1, 2, 3]) {
    const rows = await sql`select ${i}::int as i`
    expect([...rows]).toEqual([{ i }])
    expect(rows.count).toBe(1)
  }
}

describe('Connection, one unanswered query at a time', () => {
  test('Connection.run() gives each of many queries its own rows', async () => {
    const { sql } = await open()
    const numbers = Array.from({ length: 100 }, (_, i) => i)
    const rows = await Promise.all(numbers.map((i) => sql`select ${i}::int as i`))
    expect(rows.map(([row]) => row?.['i'])).toEqual(numbers)
  })

  test('Connection.run() sends nothing before the answer to the query before', async () => {
    const { sql, connection } = await open()
    const before = connection.roundTrips
    const first = sql`select pg_sleep(0.1)`.execute()
    const second = sql`select 2 as two`.execute()
    await until(async () => (await db.sessions()).some(({ query }) => query.includes('pg_sleep')))
    expect(connection.roundTrips).toBe(before + 1)
    await first
    expect((await second)[0]).toEqual({ two: 2 })
    expect(connection.roundTrips).toBe(before + 2)
  })

  test('Connection.run() lets a query that cannot be built reject alone', async () => {
    const { sql } = await open()
    const running = sql`select pg_sleep(0.05), 'running' as name`.execute()
    const bad = rejection(sql`select ${undefined as never}`)
    const invalid = rejection(sql`select ${new Date(Number.NaN)}`)
    const after = sql`select 'after' as name`.execute()
    expect((await bad).code).toBe('UNDEFINED_VALUE')
    expect(await invalid).toBeInstanceOf(RangeError)
    expect((await running)[0]).toMatchObject({ name: 'running' })
    expect((await after)[0]).toEqual({ name: 'after' })
    await expectSound(sql)
  })

  test('Connection.run() survives a query that cannot be built as the first one, and two in a row', async () => {
    const { sql } = await open()
    const [one, two] = await Promise.all([
      rejection(sql`select ${undefined as never}`),
      rejection(sql`select ${undefined as never}`),
    ])
    expect([one.code, two.code]).toEqual(['UNDEFINED_VALUE', 'UNDEFINED_VALUE'])
    await expectSound(sql)
  })

  test('Connection.run() keeps an error after rows out of the next answer', async () => {
    const { sql } = await open()
    const failing = (): PromiseLike<unknown> => sql`select 1/(g-4) as x from generate_series(1,5) g`
    expect((await rejection(failing())).code).toBe('22012')
    await expectSound(sql)
    const simple = sql.unsafe('select 1/(g-4) as x from generate_series(1,5) g').simple()
    expect((await rejection(simple)).code).toBe('22012')
    await expectSound(sql)
    const cursor = sql`select 1/(g-4) as x from generate_series(1,5) g`.cursor(2, () => undefined)
    expect((await rejection(cursor)).code).toBe('22012')
    await expectSound(sql)
  })

  test('Connection.run() keeps errors in the middle of a script to the script', async () => {
    const { sql } = await open()
    expect((await rejection(sql.unsafe('select 1; select 2; select 1/0; select 3'))).code).toBe('22012')
    await expectSound(sql)
  })

  test('Connection.run() is not done with a query before a plan that has changed was sent again', async () => {
    const { sql } = await open()
    await sql`create table replan (a int)`
    await sql`insert into replan values (1)`
    const read = (): PromiseLike<readonly unknown[]> => sql`select * from replan`
    expect([...(await read())]).toEqual([{ a: 1 }])
    await sql`alter table replan add column b int default 2`
    const [again, next] = await Promise.all([read(), sql`select 'next' as name`])
    expect([...again]).toEqual([{ a: 1, b: 2 }])
    expect(next[0]).toEqual({ name: 'next' })
    await expectSound(sql)
    // Handed over too early, a query that cannot be built would reject in place of the one that is sent again.
    await sql`alter table replan add column c int default 3`
    const third = sql`select * from replan`.execute()
    const bad = [rejection(sql`select ${undefined as never}`), rejection(sql`select ${undefined as never}`)]
    await Promise.all(bad)
    expect([...(await third)]).toEqual([{ a: 1, b: 2, c: 3 }])
    await expectSound(sql)
  })

  test('Connection.run() does not take what the server says by itself for the end of an answer', async () => {
    const { sql } = await open()
    const other = await open()
    await sql`listen noise`
    let noisy = true
    const noise = (async () => {
      while (noisy) await other.sql`notify noise`
    })()
    for (let i = 0; i < 200; i++) {
      const [bad, worse, good] = await Promise.all([
        rejection(sql`select ${undefined as never}`),
        rejection(sql`select ${undefined as never}`),
        sql`select ${i}::int as i`,
      ])
      expect([bad.code, worse.code, good[0]?.['i']]).toEqual(['UNDEFINED_VALUE', 'UNDEFINED_VALUE', i])
    }
    noisy = false
    await noise
  })

  test('Connection.run() survives a parser that throws', async () => {
    const types = { bad: { to: 600, from: [600], serialize: String, parse: failToParse } }
    const { sql } = await open({ types })
    expect((await rejection(sql`select point(1,2) from generate_series(1,3)`)).message).toBe('no such number')
    await expectSound(sql)
  })

  test('Connection.run() gives up a session on which a cursor’s portion could not be read', async () => {
    const types = { bad: { to: 600, from: [600], serialize: String, parse: failToParse } }
    const { sql, connection } = await open({ types })
    const cursor = rejection(sql`select point(1,2) from generate_series(1,9)`.cursor(2, () => undefined))
    const after = rejection(sql`select 1`)
    expect((await cursor).message).toBe('no such number')
    // Its answers can no longer be told apart.
    expect(await after).toBeInstanceOf(ConnectionLostError)
    expect(connection.isLost).toBe(true)
  })

  test('Connection.run() refuses modifiers after a query has been sent', async () => {
    const { sql } = await open()
    const query = sql`select 1 as one`
    const rows = await query
    expect(() => query.values()).toThrow('Cannot change a query that has been sent')
    expect([...rows]).toEqual([{ one: 1 }])
    await expectSound(sql)
  })
})

describe('Connection, every kind of query', () => {
  test('sql takes all modifiers of postgres.js', async () => {
    const { sql } = await open()
    expect([...(await sql`select 1 as a, 'x' as b`.values())]).toEqual([[1, 'x']])
    expect(String((await sql`select 'raw' as a`.raw())[0]?.[0])).toBe('raw')
    expect((await sql`select 1 as a`.describe()).columns.map((column) => column.name)).toEqual(['a'])
    await expectSound(sql)
    expect(await sql.unsafe('select 1 as a; select 2 as b').simple()).toEqual([[{ a: 1 }], [{ b: 2 }]])
    const seen: unknown[] = []
    await sql`select g from generate_series(1,3) g`.forEach((row) => seen.push(row['g']))
    expect(seen).toEqual([1, 2, 3])
    await expectSound(sql)
  })

  test('sql takes helpers, fragments, json, arrays and types', async () => {
    const { sql } = await open({ types: { point: { to: 600, from: [600], serialize: String, parse: String } } })
    await sql`create table helpers (id int, tags text[], data jsonb)`
    const row = { id: 1, tags: ['a "quoted" one', 'b\\', ''], data: sql.json({ deep: [1, null] }) }
    await sql`insert into helpers ${sql(row)}`
    const where = sql`where id in ${sql([1, 2])}`
    expect([...(await sql`select ${sql('tags', 'data')} from helpers ${where}`)]).toEqual([
      { tags: row.tags, data: { deep: [1, null] } },
    ])
    expect([...(await sql`select ${sql.array([1, 2])}::int[] as a, '[0:1]={5,NULL}'::int[] as b`)]).toEqual([
      { a: [1, 2], b: [5, null] },
    ])
    expect([...(await sql`select ${[[1], [2]]}::int[] as nested`)]).toEqual([{ nested: [[1], [2]] }])
    expect([...(await sql`select point(1,2) as p`)]).toEqual([{ p: '(1,2)' }])
    await expectSound(sql)
  })

  test('sql.file() reads the text when the query runs', async () => {
    const { sql } = await open()
    expect((await rejection(sql.file('/does/not/exist.sql'))).code).toBe('ENOENT')
    await expectSound(sql)
  })

  test('sql cursors can be read to the end, and left', async () => {
    const { sql, connection } = await open()
    const portions: number[] = []
    for await (const rows of sql`select g from generate_series(1,5) g`.cursor(2)) portions.push(rows.length)
    expect(portions).toEqual([2, 2, 1])
    await expectSound(sql)
    for await (const rows of sql`select g from generate_series(1,5) g`.cursor(2)) {
      expect(rows.length).toBe(2)
      break
    }
    await until(() => connection.idle, 'the cursor to be closed')
    await expectSound(sql)
  })

  test('sql can COPY in both directions', async () => {
    const { sql } = await open()
    await sql`create table copied (a int)`
    await pipeline(Readable.from(['1\n', '2\n']), await sql`copy copied from stdin`.writable())
    await expectSound(sql)
    let text = ''
    for await (const chunk of await sql`copy copied to stdout`.readable()) text += String(chunk)
    expect(text).toBe('1\n2\n')
    await expectSound(sql)
  })
})

describe('Connection, its death', () => {
  test('Connection fails what runs and what waits with the server’s own reason', async () => {
    const { sql, connection } = await open()
    let lost: unknown
    connection.onLost((cause) => {
      lost = cause
    })
    const running = rejection(sql`select pg_sleep(60)`)
    const waiting = rejection(sql`select 1`)
    await until(() => connection.roundTrips > 3)
    await kill(connection)
    for (const error of await Promise.all([running, waiting])) {
      expect(error).toBeInstanceOf(ConnectionLostError)
      expect(error.cause).toMatchObject({ code: '57P01', severity: 'FATAL' })
    }
    expect(lost).toMatchObject({ code: '57P01' })
    expect(await rejection(sql`select 1`)).toBeInstanceOf(ConnectionLostError)
    await db.sessionsToBe(0)
  })

  test('Connection notices its death while idle', async () => {
    const { connection, under } = await open()
    await kill(connection)
    await until(() => connection.isLost)
    expect(under.driver.isBroken(connection)).toBe(true)
    await under.close(connection)
  })

  test('Connection tells a reader of a cursor that rows are missing', async () => {
    const { sql, connection } = await open()
    const read = async (): Promise<void> => {
      for await (const _ of sql`select g from generate_series(1,5) g`.cursor(2)) {
        await kill(connection)
        await until(() => connection.isLost)
      }
    }
    expect(await rejection(read())).toBeInstanceOf(ConnectionLostError)
    await sleep(20) // for what postgres.js might still write: nothing of it may throw
  })

  test('Connection ends a COPY whose data are sent and that waits for the server', async () => {
    const { sql, connection } = await open()
    const other = await open()
    await sql`create table blocked (a int primary key)`
    await other.sql`begin`
    await other.sql`insert into blocked values (1)`
    const failed = rejection(pipeline(Readable.from(['1\n']), await sql`copy blocked from stdin`.writable()))
    await until(async () => (await db.sessions()).some(({ wait }) => wait === 'transactionid'), 'the COPY to wait')
    await kill(connection)
    expect(await failed).toBeInstanceOf(ConnectionLostError)
  })

  test('Connection tells the reader of a COPY, also one who gets it only after the loss', async () => {
    const { sql, connection } = await open()
    const many = sql`copy (select repeat('x', 1000) from generate_series(1,20000)) to stdout`
    const readable = await many.readable()
    await kill(connection)
    // The stream is full and its socket paused: the loss is seen as soon as somebody reads.
    const read = async (): Promise<void> => {
      for await (const _ of readable) await Promise.resolve()
    }
    expect(await rejection(read())).toBeInstanceOf(ConnectionLostError)

    const fields = 'SFATAL\0VFATAL\0C57P01\0Mgoing down\0\0'
    const error = Buffer.concat([Buffer.from([0x45, 0, 0, 0, fields.length + 4]), Buffer.from(fields)])
    const opened = Buffer.from([0x48, 0, 0, 0, 7, 0, 0, 0])
    await using proxy = await tcpServer((socket) => {
      const upstream = connect(db.server.port, db.server.host)
      upstream.pipe(socket)
      socket.on('data', (chunk) => {
        if (!chunk.includes('copy')) return upstream.write(chunk)
        upstream.destroy()
        // Both at once: the stream fails before anybody could have got hold of it.
        return socket.end(Buffer.concat([opened, error]))
      })
    })
    const other = await open({ port: proxy.port })
    const stream = await other.sql`copy (select 1) to stdout`.readable()
    const late = async (): Promise<void> => {
      for await (const _ of stream) await Promise.resolve()
    }
    expect(await rejection(late())).toMatchObject({ code: 'ERR_CONNECTION_LOST', cause: { code: '57P01' } })
  })

  test('Connection.run() rejects on a connection that is lost, without waiting', async () => {
    const { sql, connection, under } = await open()
    await under.close(connection)
    expect(await rejection(sql`select 1`)).toBeInstanceOf(ConnectionLostError)
  })
})

describe('Connection.end()', () => {
  test('Connection.end() resolves when the server has let it go, not before', async () => {
    const { connection, under } = await open()
    await under.close(connection)
    // The server's own list is the judge; it is asked at once.
    expect(await db.sessions()).toEqual([])
    await under.close(connection) // known already
  })

  test('Connection.end() cancels what runs', async () => {
    const { sql, connection, under } = await open()
    const running = rejection(sql`select pg_sleep(60)`)
    await until(() => connection.roundTrips > 2)
    await db.sessionsToBe(1)
    await until(async () => (await db.sessions())[0]?.state === 'active')
    await under.close(connection)
    expect(await running).toBeInstanceOf(ConnectionLostError)
    expect(await db.sessions()).toEqual([])
  })

  test('Connection.end() reads the end of a socket that an unread COPY has paused', async () => {
    const { sql, connection, under } = await open()
    const readable = await sql`copy (select repeat('x', 1000) from generate_series(1,20000)) to stdout`.readable()
    readable.on('error', () => undefined)
    await until(() => readable.readableLength > 0)
    await under.close(connection)
    expect(await db.sessions()).toEqual([])
  })

  test('Connection.end() rejects where the server’s end is not seen in time', async () => {
    await using proxy = await tcpServer((socket) => {
      const upstream = connect(db.server.port, db.server.host)
      upstream.on('error', () => undefined)
      upstream.pipe(socket, { end: false })
      socket.on('data', (chunk) => {
        if (chunk[0] !== 0x58) upstream.write(chunk) // Terminate gets lost
      })
      socket.on('close', () => upstream.destroy())
    })
    const { connection, under } = await open({ port: proxy.port })
    expect(await rejection(under.close(connection, 200))).toBeInstanceOf(Error)
    expect(connection.isLost).toBe(true)
  })

  test('Connection.end() rejects where the connection was reset', async () => {
    let seen: Socket | undefined
    await using proxy = await tcpServer((socket) => {
      const upstream = connect(db.server.port, db.server.host)
      upstream.on('error', () => undefined)
      upstream.pipe(socket)
      socket.pipe(upstream)
      seen = socket
    })
    const { connection, under } = await open({ port: proxy.port })
    seen?.resetAndDestroy()
    await until(() => connection.isLost)
    expect(await rejection(under.close(connection))).toMatchObject({ code: 'ECONNRESET' })
  })
})

describe('cancel', () => {
  test('sql.cancel() before a query runs sends nothing', async () => {
    const { sql, connection } = await open()
    const sent = connection.roundTrips
    const query = sql`select 1`
    query.cancel()
    expect((await rejection(query)).code).toBe('57014')
    expect(connection.roundTrips).toBe(sent)
    await expectSound(sql)
  })

  test('sql.cancel() of a query that waits does not touch the others', async () => {
    const { sql } = await open()
    const first = sql`select pg_sleep(0.05), 1 as n`.execute()
    const second = sql`select 2 as n`.execute()
    const third = sql`select 3 as n`.execute()
    const cancelled = rejection(second)
    await Promise.resolve()
    second.cancel()
    expect((await cancelled).code).toBe('57014')
    expect((await first)[0]?.['n']).toBe(1)
    expect((await third)[0]?.['n']).toBe(3)
  })

  test('sql.cancel() of a query that runs ends it, and hits none that comes after', async () => {
    const { sql } = await open()
    for (let i = 0; i < 10; i++) {
      const query = sql`select pg_sleep(60)`
      const cancelled = rejection(query)
      const after = sql`select pg_sleep(0.005), ${i}::int as i`.execute()
      await sleep(i % 3)
      query.cancel()
      expect((await cancelled).code).toBe('57014')
      expect((await after)[0]?.['i']).toBe(i)
    }
  })

  test('sql.cancel() at the end of a query hits none that comes after', async () => {
    const { sql } = await open()
    for (let i = 0; i < 50; i++) {
      const query = sql`select pg_sleep(${i / 20_000})`
      const ended = query.then(
        () => 'done',
        (error: { code?: string }) => error.code,
      )
      const after = sql`select pg_sleep(0.001), ${i}::int as i`.execute()
      await sleep(1)
      query.cancel()
      expect(['done', '57014']).toContain(await ended)
      expect((await after)[0]?.['i']).toBe(i)
    }
  })

  test('Connection.cancelAll() cancels what runs and what waits', async () => {
    const { sql, connection } = await open()
    const all = [rejection(sql`select pg_sleep(60)`), rejection(sql`select 1`), rejection(sql`select 2`)]
    await until(() => !connection.idle)
    connection.cancelAll()
    for (const error of await Promise.all(all)) expect(error.code).toBe('57014')
    await expectSound(sql)
  })

  test('Connection.cancel() asks again where the session has not taken notice', async () => {
    // Something in between loses the first request; a session that has not begun with its statement does the same.
    const target = new URL(db.url)
    const realPort = Number(target.port)
    let lost = 0
    const proxy = await tcpServer((client) => {
      const server = connect({ host: target.hostname, port: realPort })
      for (const socket of [client, server]) socket.on('error', () => undefined)
      client.on('close', () => void server.destroy())
      server.on('close', () => void client.destroy())
      client.once('data', (first: Buffer) => {
        const isCancel = first.length === 16 && first.readUInt32BE(4) === 80_877_102
        if (isCancel && lost++ === 0) {
          client.destroy()
          return
        }
        server.write(first)
        client.pipe(server)
        server.pipe(client)
      })
    })
    onTestFinished(() => proxy[Symbol.asyncDispose]())
    target.port = String(proxy.port)
    const { sql, connection } = await open({}, target.href)
    const query = sql`select pg_sleep(60)`.execute()
    await until(() => !connection.idle)
    query.cancel()
    expect((await rejection(query)).code).toBe('57014')
    expect(lost).toBeGreaterThan(1)
    await expectSound(sql)
  })
})
