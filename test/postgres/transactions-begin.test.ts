import { connect } from 'node:net'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { rejection, tcpServer } from '../support/connection.ts'
import { createDatabase } from '../support/database.ts'
import type { TestDatabase } from '../support/database.ts'
import { makePool } from '../support/pool.ts'

let db: TestDatabase
beforeAll(async () => {
  db = await createDatabase()
})
afterAll(() => db.drop())

/** A way to the server that keeps what it is sent, piece by piece. */
async function road(): Promise<{ port: number; sent: string[] } & AsyncDisposable> {
  const sent: string[] = []
  const proxy = await tcpServer((socket) => {
    const upstream = connect(db.server.port, db.server.host)
    upstream.on('error', () => undefined)
    upstream.pipe(socket)
    socket.on('data', (chunk: Buffer) => {
      sent.push(chunk.toString('latin1'))
      upstream.write(chunk)
    })
    socket.on('end', () => upstream.end())
  })
  return { port: proxy.port, sent, [Symbol.asyncDispose]: () => proxy[Symbol.asyncDispose]() }
}

const steps = /^P....\0BEGIN READ ONLY\0\0\0B.{12}E.{9}/s

test('transaction() sends BEGIN with its first query, in one piece', async () => {
  await using way = await road()
  const pool = makePool(db, { port: way.port, max: 1 })
  await pool.sql`select ${1}::int as a`
  way.sent.length = 0
  const rows = await pool.transaction(async (sql) => [...(await sql`select ${2}::int as a`)], { readOnly: true })
  expect(rows).toEqual([{ a: 2 }])
  expect(way.sent).toHaveLength(2)
  expect(way.sent[0]).toMatch(steps)
  expect(way.sent[1]).toContain('COMMIT')
})

test('transaction() sends BEGIN before several statements in one text, and those once it is answered', async () => {
  await using way = await road()
  const pool = makePool(db, { port: way.port, max: 1 })
  await pool.sql`select 1`
  way.sent.length = 0
  const text = "select current_setting('transaction_read_only') as a; select 2 as b"
  const rows = await pool.transaction((sql) => sql.unsafe(text), { readOnly: true })
  expect(rows.flat()).toEqual([{ a: 'on' }, { b: 2 }])
  expect(way.sent).toHaveLength(3)
  expect(way.sent[0]).toMatch(steps)
  expect(way.sent[0]?.endsWith('S\0\0\0\x04')).toBe(true)
  expect(way.sent[1]).toContain(text)
})

test('transaction() that runs nothing sends nothing, and what is run next is outside of it', async () => {
  await using way = await road()
  const pool = makePool(db, { port: way.port, max: 1 })
  await pool.sql`create table kept (a int)`
  way.sent.length = 0
  await pool.transaction(() => 'nothing')
  await rejection(pool.transaction(() => Promise.reject(new Error('mine'))))
  await pool.transaction(() => 'nothing', { rollback: true })
  expect(way.sent).toEqual([])
  await pool.sql`insert into kept values (1)`
  expect(way.sent.join('')).not.toContain('BEGIN')
  expect([...(await pool.sql`select a, pg_current_xact_id_if_assigned() is null as outside from kept`)]).toEqual([
    { a: 1, outside: true },
  ])
})

test('transaction() whose first query is refused has begun', async () => {
  const pool = makePool(db, { max: 1 })
  const errors: unknown[] = []
  const attempt = pool.transaction(async (sql) => {
    errors.push((await rejection(sql`select no_such_column`)).code)
    errors.push((await rejection(sql`select 1`)).code)
  })
  expect((await rejection(attempt)).code).toBe('42703')
  expect(errors).toEqual(['42703', '25P02'])
})
