import { spawn } from 'node:child_process'
import { accessSync, chmodSync, constants, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { connect, createServer } from 'node:net'
import type { AddressInfo, Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { afterAll, beforeAll, describe, expect, onTestFinished, test, vi } from 'vitest'
import { createPool } from '../../src/postgres/index.ts'
import type { PostgresPool, PostgresPoolOptions } from '../../src/postgres/index.ts'
import { rejection, tcpServer } from '../support/connection.ts'
import { createDatabase, until } from '../support/database.ts'
import type { TestDatabase } from '../support/database.ts'

function find(program: string): string | undefined {
  for (const folder of [...(process.env['PATH'] ?? '').split(delimiter), '/usr/sbin']) {
    const path = join(folder, program)
    try {
      accessSync(path, constants.X_OK)
      return path
    } catch {
      // Not there.
    }
  }
  return undefined
}

const program = find('pgbouncer')
const note = program === undefined ? ' (NOT TESTED: pgbouncer is not on the PATH)' : ''
if (note) console.warn(`test/postgres/pgbouncer.test.ts${note}`)

interface Bouncer {
  readonly url: string
  stop(): Promise<void>
}

async function freePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve)
  })
  const { port } = server.address() as AddressInfo
  await new Promise((resolve) => {
    server.close(resolve)
  })
  return port
}

const answers = (port: number): Promise<boolean> =>
  new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1', () => {
      socket.destroy()
      resolve(true)
    })
    socket.on('error', () => resolve(false))
  })

/** In transaction mode, with two sessions of the server for each database. */
async function startBouncer(path: string, { server, name }: TestDatabase): Promise<Bouncer> {
  const directory = mkdtempSync(join(tmpdir(), 'millpond-bouncer-'))
  // It refuses to run as root.
  chmodSync(directory, 0o777)
  const port = await freePort()
  writeFileSync(join(directory, 'users.txt'), `"${server.user}" "${server.password}"\n`)
  writeFileSync(
    join(directory, 'pgbouncer.ini'),
    `[databases]
* = host=${server.host} port=${server.port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = ${port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = ${join(directory, 'users.txt')}
pool_mode = transaction
default_pool_size = 2
max_client_conn = 50
`,
  )
  const user = process.getuid?.() === 0 ? ['-u', 'nobody'] : []
  const bouncer = spawn(path, ['-q', ...user, join(directory, 'pgbouncer.ini')], { stdio: 'ignore' })
  const exited = new Promise((resolve) => {
    bouncer.on('exit', resolve)
  })
  await until(() => answers(port), 'PgBouncer to answer')
  return {
    url: `postgres://${server.user}:${server.password}@127.0.0.1:${port}/${name}`,
    async stop() {
      bouncer.kill('SIGKILL')
      await exited
      rmSync(directory, { recursive: true, force: true })
    },
  }
}

describe.skipIf(program === undefined)(`behind PgBouncer in transaction mode${note}`, () => {
  let db: TestDatabase
  let bouncer: Bouncer
  beforeAll(async () => {
    db = await createDatabase()
    bouncer = await startBouncer(program ?? '', db)
  })
  afterAll(async () => {
    await bouncer.stop()
    await db.drop()
  })

  function make(options: PostgresPoolOptions = {}): PostgresPool {
    const warned = vi.spyOn(process, 'emitWarning').mockImplementation(() => {})
    const pool = createPool(bouncer.url, { max: 6, prepare: false, reset: 'none', ...options })
    onTestFinished(async () => {
      await pool.close({ timeoutMs: 100 })
      warned.mockRestore()
    })
    return pool
  }

  test('every kind of query works, of more connections than the server has', async () => {
    const pool = make()
    await pool.sql`create table things (id int primary key, tags text[])`
    const ids = Array.from({ length: 60 }, (_, i) => i)
    await Promise.all(ids.map((id) => pool.sql`insert into things values (${id}, ${[`t${id}`]})`))
    const rows = await Promise.all(ids.map((id) => pool.sql`select tags from things where id = ${id}`))
    expect(rows.map(([row]) => row?.['tags'] as unknown)).toEqual(ids.map((id) => [`t${id}`]))
    expect(await pool.query('select id from things where id < $1 order by id', [2])).toMatchObject([
      { id: 0 },
      { id: 1 },
    ])
    const portions: number[] = []
    for await (const part of pool.sql`select id from things`.cursor(40)) portions.push(part.length)
    expect(portions).toEqual([40, 20])
    await pipeline(Readable.from(['100\t{}\n']), await pool.sql`copy things from stdin`.writable())
    let text = ''
    for await (const chunk of await pool.sql`copy (select max(id) from things) to stdout`.readable()) text += chunk
    expect(text).toBe('100\n')
    expect((await rejection(pool.sql`select 1/0`)).code).toBe('22012')
    expect(pool.stats().open).toBeGreaterThan(2)
    expect((await db.sessions()).length).toBeLessThanOrEqual(2)
  })

  test('transactions, savepoints and settings of a transaction work', async () => {
    const pool = make()
    await pool.sql`create table counted (n int)`
    await pool.transaction(async (sql) => {
      await sql`set local statement_timeout = '5s'`
      const [first] = await sql`select pg_backend_pid() as pid`
      await pool.sql`insert into counted values (1)`
      await rejection(sql.savepoint((inner) => inner`select 1/0`))
      const [last] = await sql`select pg_backend_pid() as pid, current_setting('statement_timeout') as timeout`
      expect(last).toEqual({ pid: first?.['pid'], timeout: '5s' })
    })
    await rejection(
      pool.transaction(async (sql) => {
        await sql`insert into counted values (2)`
        throw new Error('no')
      }),
    )
    expect([...(await pool.sql`select n from counted`)]).toEqual([{ n: 1 }])
    expect((await pool.sql`show statement_timeout`)[0]).toEqual({ statement_timeout: '0' })
  })

  test('the parameters that it refuses are left out, and that is said once', async () => {
    const warned = vi.spyOn(process, 'emitWarning').mockImplementation(() => {})
    onTestFinished(() => warned.mockRestore())
    await using pool = createPool(bouncer.url, { max: 3, prepare: false, reset: 'none' })
    await Promise.all([1, 2, 3].map((i) => pool.sql`select ${i}::int, pg_sleep(0.01)`))
    const said = warned.mock.calls.filter(([text]) => String(text).includes('client_connection_check_interval'))
    expect(said).toHaveLength(1)
    await using insisting = createPool(bouncer.url, { serverChecks: true, acquireTimeoutMs: 300 })
    expect(await rejection(insisting.sql`select 1`)).toMatchObject({
      message: expect.stringContaining('unsupported startup parameter'),
    })
  })

  test('a query is cancelled on the server, through PgBouncer', async () => {
    const pool = make({ max: 1 })
    expect((await rejection(pool.with({ timeoutMs: 100 }).sql`select pg_sleep(60)`)).code).toBe('ERR_QUERY_TIMEOUT')
    expect([...(await pool.sql`select 1 as one`)]).toEqual([{ one: 1 }])
    await until(async () => (await db.sessions()).every(({ state }) => state !== 'active'), 'the query to end')
  })

  test('a session of the server that ends is a loss to who runs on it, and to nobody else', async () => {
    const pool = make()
    const lost = rejection(pool.sql`select pg_sleep(60)`)
    await pool.sql`select 1`
    await until(async () => (await db.sessions()).some(({ query }) => query.includes('pg_sleep(60)')))
    await db.admin`
      select pg_terminate_backend(pid) from pg_stat_activity where datname = ${db.name} and query like '%pg_sleep(60)%'`
    expect(await lost).toMatchObject({ code: 'ERR_CONNECTION_LOST', cause: { severity: 'FATAL' } })
    expect([...(await pool.sql`select 1 as one`)]).toEqual([{ one: 1 }])
  })

  test('close() ends all connections to PgBouncer; its own to the server stay', async () => {
    const pool = make()
    await Promise.all([1, 2, 3].map((i) => pool.sql`select ${i}::int, pg_sleep(0.01)`))
    expect(await pool.close()).toEqual({ revoked: 0 })
    expect(pool.stats()).toMatchObject({ phase: 'closed', doubtful: 0 })
    expect((await db.sessions()).length).toBeGreaterThan(0)
  })

  test('a connection whose end was not seen serves again, and harms nobody', async () => {
    const sockets: Socket[] = []
    await using proxy = await tcpServer((socket) => {
      sockets.push(socket)
      const upstream = connect(Number(new URL(bouncer.url).port), '127.0.0.1')
      upstream.on('error', () => undefined)
      upstream.pipe(socket)
      socket.pipe(upstream)
    })
    const pool = make({ port: proxy.port, max: 2, serverChecks: false })
    const running = pool.sql`select pg_sleep(0.5), 'bystander' as name`.execute()
    await until(() => sockets.length === 1 && pool.stats().leased === 1)
    await pool.sql`select 1`
    sockets[1]?.resetAndDestroy()
    await until(() => pool.stats().doubtful === 1, 'the doubt')
    await until(() => pool.stats().closing === 0, 'the reaping')
    expect((await running)[0]).toMatchObject({ name: 'bystander' })
    const both = await Promise.all([1, 2].map((i) => pool.sql`select ${i}::int as i, pg_sleep(0.01)`))
    expect(both.map(([row]) => row?.['i'] as unknown)).toEqual([1, 2])
  })

  test('what belongs to a session is lost or shared: settings, locks, the name', async () => {
    const pool = make({ max: 2 })
    // Both sessions of the server, and two clients.
    const [one, two] = [await pool.acquire(), await pool.acquire()]
    const pid = async (lease: typeof one): Promise<unknown> =>
      (await lease.sql`select pg_backend_pid() as pid`)[0]?.['pid']
    const shared = await pid(one)
    expect(await pid(two)).toBe(shared)
    await one.sql`set work_mem = '5MB'`
    expect((await two.sql`show work_mem`)[0]).toEqual({ work_mem: '5MB' })
    await one.sql`select pg_advisory_lock(1)`
    // It is the other one's lock as well.
    expect((await two.sql`select pg_try_advisory_lock(1) as got`)[0]).toEqual({ got: true })
    // The name follows the client, with each of its transactions.
    const name = async (lease: typeof one): Promise<unknown> =>
      (await lease.sql`select current_setting('application_name') as name`)[0]?.['name']
    const names = [await name(one), await name(two), await name(one)]
    expect(new Set(names).size).toBe(2)
    expect(names[0]).toMatch(/ mp[0-9a-z]+-[0-9a-z]+-[0-9a-z]+$/)
    await one.sql.unsafe('reset work_mem; select pg_advisory_unlock_all()')
    await one.release()
    await two.release()
  })
})
