import { connect } from 'node:net'
import type { Socket } from 'node:net'
import { inspect } from 'node:util'
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { startServer } from '../../bench/support/embedded.ts'
import type { EmbeddedServer } from '../../bench/support/embedded.ts'
import { ConnectError } from '../../src/errors.ts'
import { HostOrder } from '../../src/postgres/host-order.ts'
import { addressesOf, parseHost } from '../../src/postgres/hosts.ts'
import type { PostgresPoolOptions } from '../../src/postgres/options.ts'
import { PostgresPool } from '../../src/postgres/pool.ts'
import { DriverUnderTest, rejection, tcpServer } from '../support/connection.ts'
import { createDatabase, until } from '../support/database.ts'
import type { TestDatabase } from '../support/database.ts'
import { authenticated, fatal, keyAndReady, message, scriptedServer } from '../support/scripted-server.ts'

let db: TestDatabase
/** A second server, whose sessions are read-only: it stands for one that was set aside. */
let readOnly: EmbeddedServer
beforeAll(async () => {
  db = await createDatabase()
  readOnly = await startServer({ default_transaction_read_only: 'on', max_connections: 20 })
})
afterAll(async () => {
  await readOnly.stop()
  await db.drop()
})

/** A port where nothing listens. */
async function closedPort(): Promise<number> {
  await using server = await tcpServer(() => undefined)
  return server.port
}

const column = (name: string): string => `${name}\0${'\0'.repeat(6)}\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\0`

/** What a standby says, from the login to the question who it is. A real one would take a copy of a server to make. */
function standby(): ReturnType<typeof scriptedServer> {
  const answer = [
    message('T', `\0\x02${column('standby')}${column('read_only')}`),
    message('D', '\0\x02\0\0\0\x04true\0\0\0\x02on'),
    message('C', 'SELECT 1\0'),
    message('Z', 'I'),
  ]
  return scriptedServer(
    Buffer.concat([authenticated, keyAndReady]),
    Buffer.concat([message('I'), message('Z', 'I')]),
    Buffer.concat(answer),
  )
}

function under(ports: readonly number[], options: PostgresPoolOptions = {}): DriverUnderTest {
  const { user, password } = db.server
  const hosts = ports.map((port) => `127.0.0.1:${port}`).join(',')
  return new DriverUnderTest(`postgres://${user}:${password}@${hosts}/postgres`, { fetch_types: false, ...options })
}

/** The port that answered. */
async function portOf(driver: DriverUnderTest, timeoutMs?: number): Promise<number> {
  const connection = await driver.open(undefined, timeoutMs)
  const [row] = await connection.ask('select inet_server_port()::text as port')
  await driver.close(connection)
  return Number(row?.['port'])
}

async function openError(driver: DriverUnderTest, timeoutMs?: number): Promise<ConnectError> {
  const error = await rejection(driver.open(undefined, timeoutMs))
  if (!(error instanceof ConnectError)) throw error
  expect(inspect(error, { depth: 9, showHidden: true })).not.toContain(db.server.password)
  return error
}

describe('Opener.open() with several hosts', () => {
  test('Opener.open() takes the first that connects', async () => {
    const { port } = db.server
    expect(await portOf(under([port, readOnly.port]))).toBe(port)
    expect(await portOf(under([readOnly.port, port]))).toBe(readOnly.port)
    expect(await portOf(under([await closedPort(), port]))).toBe(port)
  })

  test('Opener.open() takes the next one where a server closes, starts up, is full, or is none', async () => {
    const scripts = [
      [(socket: Socket) => socket.end()],
      [(socket: Socket) => socket.end(fatal('57P03', 'the database system is starting up'))],
      [(socket: Socket) => socket.end(fatal('53300', 'too many'))],
      [Buffer.from('HTTP/1.1 400')],
    ]
    for (const script of scripts) {
      await using first = await scriptedServer(...script)
      expect(await portOf(under([first.port, db.server.port]))).toBe(db.server.port)
      expect(first.sockets).toBe(1)
    }
  })

  test('Opener.open() asks nobody else where a server refuses who we are', async () => {
    await using second = await scriptedServer()
    const error = await openError(under([db.server.port, second.port], { password: 'wrong' }))
    expect(error).toMatchObject({ retryable: false, doubtful: false, cause: { code: '28P01' } })
    expect(second.sockets).toBe(0)
  })

  test('Opener.open() gives a deaf server its share of the one deadline, and tries it last from then on', async () => {
    await using deaf = await scriptedServer()
    const driver = under([deaf.port, db.server.port], { connectTimeoutMs: 600 })
    const startedAt = performance.now()
    expect(await portOf(driver, 600)).toBe(db.server.port)
    expect(performance.now() - startedAt).toBeGreaterThan(290)
    expect(deaf.sockets).toBe(1)
    expect(await portOf(driver, 600)).toBe(db.server.port)
    expect(deaf.sockets).toBe(1)
  })

  test('Opener.open() keeps to the one deadline where all are deaf, and tells of each', async () => {
    await using first = await scriptedServer()
    await using second = await scriptedServer()
    const startedAt = performance.now()
    const error = await openError(under([first.port, second.port], { connectTimeoutMs: 200 }), 200)
    expect(performance.now() - startedAt).toBeLessThan(1_000)
    expect(error).toMatchObject({ retryable: true, doubtful: true })
    expect(error.message).toMatch(/^No server of .* will do: .*said nothing in time.*said nothing in time/)
    expect(error.message).toContain(`127.0.0.1:${first.port}`)
    expect(error.message).toContain(`127.0.0.1:${second.port}`)
    expect(error.cause).toBeInstanceOf(AggregateError)
    expect([first.sockets, second.sockets]).toEqual([1, 1])
  })

  test('Opener.open() asks a function for the password once for all hosts', async () => {
    let asked = 0
    const password = async (): Promise<string> => {
      asked++
      return db.server.password
    }
    await portOf(under([await closedPort(), db.server.port], { password }))
    expect(asked).toBe(1)
  })

  test('a query is cancelled on the server that runs it', async () => {
    const driver = under([await closedPort(), db.server.port])
    const connection = await driver.open()
    const running = rejection(connection.ask('select pg_sleep(60)'))
    const { pid } = connection.identity
    await until(async () => {
      const [row] = await db.admin`select state, wait_event from pg_stat_activity where pid = ${pid}`
      return row?.['wait_event'] === 'PgSleep'
    })
    connection.cancelAll()
    expect((await running).code).toBe('57014')
    await driver.close(connection)
  })
})

const wants = (target: PostgresPoolOptions['target_session_attrs'], ports: readonly number[]): DriverUnderTest =>
  under(ports, target ? { target_session_attrs: target } : {})

describe('target_session_attrs', () => {
  test('Opener.open() finds the server that is as wanted', async () => {
    const ports = [readOnly.port, db.server.port]
    expect(await portOf(wants('any', ports))).toBe(readOnly.port)
    expect(await portOf(wants('read-write', ports))).toBe(db.server.port)
    expect(await portOf(wants('read-only', ports.toReversed()))).toBe(readOnly.port)
    expect(await portOf(wants('primary', ports))).toBe(readOnly.port)
    await db.sessionsToBe(0)
  })

  test('Opener.open() passes a standby over for a primary, and takes it for a standby', async () => {
    for (const target of ['primary', 'read-write'] as const) {
      await using first = await standby()
      expect(await portOf(wants(target, [first.port, db.server.port]))).toBe(db.server.port)
      expect(first.sockets).toBe(1)
    }
    for (const target of ['standby', 'read-only', 'prefer-standby'] as const) {
      await using second = await standby()
      const driver = wants(target, [db.server.port, second.port])
      const connection = await driver.open()
      expect(second.sockets).toBe(1)
      await driver.close(connection)
    }
  })

  test('Opener.open() prefers a standby, and takes another where there is none', async () => {
    expect(await portOf(wants('prefer-standby', [db.server.port, await closedPort()]))).toBe(db.server.port)
    expect(await portOf(wants('prefer-standby', [db.server.port]))).toBe(db.server.port)
  })

  test('Opener.open() says what it found, for now, and leaves no session behind', async () => {
    const error = await openError(wants('read-write', [readOnly.port]))
    expect(error).toMatchObject({ retryable: true, doubtful: false })
    expect(error.message).toContain(
      "a primary whose sessions are read-only, and target_session_attrs asks for 'read-write'",
    )
    const none = await openError(wants('standby', [readOnly.port, db.server.port]))
    expect(none).toMatchObject({ retryable: true, doubtful: false })
    expect(none.message).toMatch(/is a primary.*asks for 'standby'.*is a primary/)
  })
})

describe('a failover', () => {
  test('PostgresPool gets all its permits back, though the server that had its sessions is gone', async () => {
    const sockets: Socket[] = []
    const proxy = await tcpServer((socket) => {
      const upstream = connect(db.server.port, '127.0.0.1')
      upstream.on('error', () => undefined)
      socket.pipe(upstream)
      upstream.pipe(socket)
      sockets.push(socket, upstream)
    })
    onTestFinished(() => proxy[Symbol.asyncDispose]())
    const { user, password } = db.server
    const url = `postgres://${user}:${password}@127.0.0.1:${proxy.port},127.0.0.1:${readOnly.port}/postgres`
    await using pool = new PostgresPool(url, { max: 2, acquireTimeoutMs: 20_000 })
    const before = [await pool.acquire(), await pool.acquire()]
    const portOfLease = async ([lease]: typeof before): Promise<unknown> => {
      if (!lease) return undefined
      const [row] = await lease.sql`select inet_server_port() as port`
      return row?.['port']
    }
    expect(await portOfLease(before)).toBe(db.server.port)
    proxy.server.close()
    // No FIN: nobody has seen the sessions end.
    for (const socket of sockets) socket.resetAndDestroy()
    await Promise.all(before.map((lease) => lease.release()))
    await until(() => pool.stats().doubtful === 2)
    const after = [await pool.acquire(), await pool.acquire()]
    expect(await portOfLease(after)).toBe(readOnly.port)
    await Promise.all(after.map((lease) => lease.release()))
    expect(pool.stats().doubtful).toBe(0)
  })
})

describe('PostgresDriver.reap() with several hosts', () => {
  test.each([
    ['the server that has the session', true],
    ['all servers, where it is not known which one has it', false],
  ])('PostgresDriver.reap() asks %s', async (_, isKnown) => {
    const ports = [readOnly.port, db.server.port]
    const driver = under(ports, { target_session_attrs: 'read-write' })
    const victim = await driver.open()
    const running = rejection(victim.ask('select pg_sleep(60)'))
    // Of the first server, where there is no such session.
    const elsewhere = under([readOnly.port])
    const via = await elsewhere.open()
    const reaper = isKnown ? driver : under(ports)
    expect(await reaper.driver.reap(victim.identity, { via, signal: AbortSignal.timeout(10_000) })).toBe(true)
    expect(await db.admin`select from pg_stat_activity where pid = ${victim.identity.pid}`).toHaveLength(0)
    await running
    await driver.close(victim)
    await elsewhere.close(via)
  })

  test('PostgresDriver.reap() does not take a session for gone where its server answers, but lets nobody in', async () => {
    await using full = await scriptedServer((socket) => socket.end(fatal('53300', 'too many')))
    const driver = under([full.port, db.server.port])
    const via = await driver.open()
    const stranger = { pid: 5, secret: 5, tag: 'mpother-0-0' }
    const error = await rejection(driver.driver.reap(stranger, { via, signal: AbortSignal.timeout(10_000) }))
    expect(error).toMatchObject({ cause: { code: '53300' } })
    await driver.close(via)
  })
})

describe('HostOrder', () => {
  test('HostOrder.at() puts those last that failed lately', () => {
    const a = { host: 'a', port: 1 }
    const b = { host: 'b', port: 1 }
    const c = { host: 'c', port: 1 }
    const order = new HostOrder([a, b, c])
    expect(order.at(0)).toEqual([a, b, c])
    order.failed(a, 0)
    expect(order.at(29_999)).toEqual([b, c, a])
    expect(order.at(30_000)).toEqual([a, b, c])
    order.failed(b, 100)
    expect(order.at(200)).toEqual([c, a, b])
    order.served(a)
    expect(order.at(200)).toEqual([a, c, b])
  })
})

describe('hosts', () => {
  test.each([
    ['db', 'db', undefined],
    ['db:1', 'db', 1],
    ['db:', 'db', undefined],
    ['127.0.0.1:2', '127.0.0.1', 2],
    ['::1', '::1', undefined],
    ['[::1]', '::1', undefined],
    ['[::1]:3', '::1', 3],
    ['/run/pg:x', '/run/pg:x', undefined],
  ])('parseHost() takes %s apart', (text, name, port) => {
    expect(parseHost(text)).toEqual({ name, port })
  })

  test.each(['', ':5', 'a b', 'a@b', '[db]', '[::1', 'a:b:c', 'a:x'])('parseHost() does not take %j', (text) => {
    expect(parseHost(text)).toBe(undefined)
  })

  test('addressesOf() gives each host its port', () => {
    const hosts = [
      { name: 'a', port: 1 },
      { name: '/run', port: undefined },
    ]
    expect(addressesOf(hosts, undefined, undefined)).toEqual([{ host: 'a', port: 1 }, { path: '/run/.s.PGSQL.5432' }])
    expect(addressesOf(hosts, [8, 9], undefined)).toEqual([{ host: 'a', port: 1 }, { path: '/run/.s.PGSQL.9' }])
  })
})
