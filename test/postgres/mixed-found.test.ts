// What the mixed operations have found, each by itself.
import { execFileSync } from 'node:child_process'
import { finished } from 'node:stream/promises'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { deferred } from '../../src/deferred.ts'
import { createDatabase } from '../support/database.ts'
import type { TestDatabase } from '../support/database.ts'
import { poolFor } from '../support/given-back.ts'

let db: TestDatabase
beforeAll(async () => {
  db = await createDatabase()
})
afterAll(() => db.drop())

/** Some of the requests to cancel come while a portion is on its way, and too late for it. */
async function turns(count: number): Promise<void> {
  for (let i = 0; i < count; i++) await nextTurn()
}

test('a cursor whose cancel comes too late for a portion fails, and does not end before its time', async () => {
  const pool = poolFor(db)
  await using lease = await pool.acquire()
  const read = async (): Promise<string> => {
    let seen = 0
    for await (const rows of lease.sql`select g from generate_series(1, 50) g`.cursor(1)) seen += rows.length
    return `ended after ${seen}`
  }
  const called = async (): Promise<string> => {
    let seen = 0
    await lease.sql`select g from generate_series(1, 50) g`.cursor(1, () => void seen++)
    return `ended after ${seen}`
  }
  const ends = new Set<unknown>()
  for (let i = 0; i < 200; i++) {
    const ended = (i % 2 ? read() : called()).catch((error: unknown) => (error as { code?: string }).code)
    await turns(5 + (i % 40))
    lease.cancel()
    ends.add(await ended)
  }
  ends.delete('57014')
  ends.delete('ended after 50')
  expect([...ends]).toEqual([])
})

const large = `copy (select repeat('x', 2000) from generate_series(1, 3000)) to stdout`

test('a query right behind a COPY that was destroyed is not refused', async () => {
  const pool = poolFor(db)
  await using lease = await pool.acquire()
  const stream = await lease.sql.unsafe(large).readable()
  stream.destroy()
  expect(await lease.sql`select 1 as one`).toEqual([{ one: 1 }])
})

test('the stream of a COPY ends with the very reason of its signal', async () => {
  const pool = poolFor(db)
  const controller = new AbortController()
  const { sql } = pool.with({ signal: controller.signal })
  const reason = { why: 'enough' }
  const stream = await sql.unsafe(large).readable()
  controller.abort(reason)
  await expect(finished(stream)).rejects.toBe(reason)
})

test('what a transaction has left behind stays in it, whatever else it is called in', async () => {
  const pool = poolFor(db)
  const other = poolFor(db)
  const ended = deferred<void>()
  const asked = [
    () => pool.within({ timeoutMs: 5_000 }, () => pool.sql`select 1`),
    () => other.transaction(() => pool.sql`select 1`),
    () => other.transaction(() => pool.within({ timeoutMs: 5_000 }, () => pool.sql`select 1`)),
    () => other.within({ timeoutMs: 5_000 }, () => other.outside(() => pool.sql`select 1`)),
  ]
  let left: Promise<PromiseSettledResult<unknown>[]> | undefined
  await pool.transaction(() => {
    left = Promise.allSettled(asked.map((ask) => ended.promise.then(ask)))
  })
  ended.resolve()
  const refused = { status: 'rejected', reason: { code: 'ERR_LEASE_RELEASED' } }
  expect(await left).toMatchObject([refused, refused, refused, refused])
})

test('the stream of a COPY whose connection is lost ends with that, not with the error of a socket', async () => {
  const pool = poolFor(db)
  await using lease = await pool.acquire()
  const [row] = await lease.sql<[{ pid: number }]>`select pg_backend_pid() as pid`
  await lease.sql`create temp table copied (a text)`
  const stream = await lease.sql.unsafe('copy copied from stdin').writable()
  const ended = finished(stream)
  // Nothing of that is read before something has been written.
  const end = `
    import postgres from 'postgres'
    const sql = postgres(process.env.ADMIN_URL, { max: 1 })
    await sql.unsafe('select pg_terminate_backend(${row.pid}, 5000)')
    await sql.end()`
  const env = { ...process.env, ADMIN_URL: db.server.url }
  execFileSync(process.execPath, ['--input-type=module', '--eval', end], { env })
  for (let i = 0; i < 5; i++) stream.write(`${i}\n`)
  await expect(ended).rejects.toMatchObject({ code: 'ERR_CONNECTION_LOST' })
})

test('listen() begins again when the pool is evicted meanwhile', async () => {
  const pool = poolFor(db)
  for (let i = 0; i < 100; i++) {
    const listening = pool.listen('evicted', () => undefined)
    await turns(i % 20)
    pool.evict()
    const listener = await listening
    await listener.unlisten()
  }
})
