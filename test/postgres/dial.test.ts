import dns from 'node:dns'
import { createServer } from 'node:net'
import type { AddressInfo, Socket } from 'node:net'
import { inspect } from 'node:util'
import { Worker } from 'node:worker_threads'
import { afterAll, beforeAll, describe, expect, onTestFinished, test, vi } from 'vitest'
import { AcquireTimeoutError, ConnectError } from '../../src/errors.ts'
import { dial, shownAddress } from '../../src/postgres/dial.ts'
import type { PostgresPoolOptions } from '../../src/postgres/options.ts'
import { PostgresPool } from '../../src/postgres/pool.ts'
import { DriverUnderTest, rejection } from '../support/connection.ts'
import { createDatabase, until } from '../support/database.ts'
import type { TestDatabase } from '../support/database.ts'
import { fatal, offer, scriptedServer } from '../support/scripted-server.ts'
import type { Line } from '../support/scripted-server.ts'

let db: TestDatabase
beforeAll(async () => {
  db = await createDatabase()
})
afterAll(() => db.drop())

const secret = 'hush-hush'

function expectNoSecret(error: Error): void {
  const { message, stack } = error
  const shown = inspect(error, { depth: 12, showHidden: true })
  expect(`${message} ${stack} ${shown} ${JSON.stringify(error)}`).not.toMatch(/hush-hush|millpond-secret/)
}

async function openError(url: string, options: PostgresPoolOptions = {}, timeoutMs = 5_000): Promise<ConnectError> {
  const error = await rejection(new DriverUnderTest(url, options).open('failing', timeoutMs))
  if (!(error instanceof ConnectError)) throw error
  expectNoSecret(error)
  return error
}

describe('an acquire from a server that goes wrong', () => {
  test.each<[string, readonly Line[], PostgresPoolOptions, RegExp]>([
    ['is deaf', [], {}, /accepted the connection, but said nothing in time/],
    ['accepts and closes', [(socket: Socket) => socket.end()], {}, /the server closed the connection/],
    ['resets', [(socket: Socket) => socket.resetAndDestroy()], {}, /ECONNRESET/],
    ['is silent in the middle of the login', [offer], {}, /broke off in the middle of the login in time/],
    ['speaks something else', [Buffer.from('220 smtp.example\r\n')], {}, /is not a PostgreSQL server/],
    [
      'answers the request for TLS with an error',
      [Buffer.from('E')],
      { ssl: 'require' },
      /request for TLS with an error/,
    ],
    ['is silent about TLS', [], { ssl: 'require' }, /did not complete the TLS handshake in time/],
    ['starts up', [(socket: Socket) => socket.end(fatal('57P03', 'starting up'))], {}, /starting up \(57P03\)/],
  ])(
    'PostgresPool.acquire() times out with the last failure as its cause: it %s',
    async (_, script, options, words) => {
      await using server = await scriptedServer(...script)
      const url = `postgres://ann:${secret}@127.0.0.1:${server.port}/shop`
      const pool = new PostgresPool(url, { ...options, connectTimeoutMs: 100, acquireTimeoutMs: 500 })
      onTestFinished(async () => {
        await pool.close({ timeoutMs: 50 })
      })
      const startedAt = performance.now()
      const error = await rejection(pool.acquire())
      expect(error).toBeInstanceOf(AcquireTimeoutError)
      expect(performance.now() - startedAt).toBeLessThan(1_500)
      expect(error.cause).toBeInstanceOf(ConnectError)
      expect((error.cause as ConnectError).message).toMatch(words)
      expect(error.message).toMatch(words)
      expectNoSecret(error)
    },
  )

  test.each<[string, readonly Line[], PostgresPoolOptions, RegExp]>([
    ['has no TLS', [Buffer.from('N')], { ssl: 'require' }, /does not do TLS/],
    ['wants a password that is not set', [offer], { password: '' }, /none is set/],
    ['refuses the password', [(socket: Socket) => socket.end(fatal('28P01', 'wrong'))], {}, /wrong \(28P01\)/],
  ])('PostgresPool.acquire() rejects at once where it %s', async (_, script, options, words) => {
    await using server = await scriptedServer(...script)
    const pool = new PostgresPool(`postgres://ann:${secret}@127.0.0.1:${server.port}/shop`, options)
    onTestFinished(async () => {
      await pool.close({ timeoutMs: 50 })
    })
    const error = await rejection(pool.acquire())
    expect(error).toBeInstanceOf(ConnectError)
    expect(error.message).toMatch(words)
    expectNoSecret(error)
  })
})

describe('Opener.open(), the password', () => {
  const never = new Promise<string>(() => undefined)
  test.each<[string, PostgresPoolOptions['password'] & Function, RegExp]>([
    [
      'throws',
      () => {
        throw new Error('no vault')
      },
      /no vault/,
    ],
    ['rejects', () => Promise.reject(new Error('no vault')), /no vault/],
    ['never settles', () => never, /password\(\) did not settle in time/],
    ['returns nothing', () => undefined as never, /must return a string/],
    ['returns a zero byte', () => `${secret}\0`, /without a zero byte/],
  ])('Opener.open() connects nowhere where password() %s', async (_, password, words) => {
    await using server = await scriptedServer()
    const url = `postgres://ann@127.0.0.1:${server.port}/shop`
    const error = await openError(url, { password: password as () => string }, 150)
    expect(error.message).toMatch(words)
    expect(error).toMatchObject({ retryable: true, doubtful: false })
    expect(server.sockets).toBe(0)
  })
})

describe('Opener.open(), startup parameters', () => {
  test.each([
    ['nonsense=1', '"nonsense" went to the server', '42704'],
    ['statement_timeout=soon', '"statement_timeout" went to the server', '22023'],
  ])(
    'Opener.open() names the parameter of the URL that the server refuses, for good: %s',
    async (text, words, code) => {
      const error = await openError(`${db.url}?${text}`)
      expect(error.message).toContain(words)
      expect(error).toMatchObject({ retryable: false, doubtful: false, cause: { code } })
    },
  )

  test.each([
    ['search_path', '', ''],
    ['statement_timeout', 0, '0'],
    ['default_transaction_read_only', false, 'off'],
    ['default_transaction_read_only', true, 'on'],
    ['application_name', 'mine', expect.stringMatching(/^mine mptest/)],
    ['mill.pond', 'ä "\\', 'ä "\\'],
  ])('Opener.open() sends connection.%s as it is, %j', async (name, value, expected) => {
    // What is left out would show.
    const under = new DriverUnderTest(db.url, {
      connection: { options: '-c statement_timeout=7s', [name]: value },
    })
    const connection = await under.open()
    expect(await connection.ask(`select current_setting('${name}') as value`)).toEqual([{ value: expected }])
    await under.close(connection)
  })

  test('Opener.open() says what to use in place of a parameter of other tools that the server refuses', async () => {
    const error = await openError(db.url, { connection: { schema: 'shop' } })
    expect(error.message).toContain('"schema" went to the server')
    expect(error.message).toContain('use connection: { search_path }')
  })

  test('Opener.open() names what a pooler refuses', async () => {
    await using pooler = await scriptedServer((socket) =>
      socket.end(fatal('08P01', 'unsupported startup parameter: search_path')),
    )
    const url = `postgres://ann:${secret}@127.0.0.1:${pooler.port}/shop`
    const error = await openError(url, { connection: { search_path: 'shop' } })
    expect(error.message).toContain('"search_path" went to the server')
    expect(pooler.sockets).toBe(1)
  })

  test('Opener.open() passes options and parameters of the URL on', async () => {
    const under = new DriverUnderTest(`${db.url}?options=-c%20lock_timeout%3D7s&statement_timeout=5s`)
    const connection = await under.open()
    const [row] = await connection.ask(
      `select current_setting('lock_timeout') as lock, current_setting('statement_timeout') as statement`,
    )
    expect(row).toEqual({ lock: '7s', statement: '5s' })
    await under.close(connection)
  })
})

const refuses: Line = (socket) => socket.end(fatal('08P01', 'unsupported startup parameter: tcp_keepalives_idle'))

describe('serverChecks', () => {
  test('serverChecks: true insists on what the server refuses', async () => {
    await using pooler = await scriptedServer(refuses)
    const error = await openError(`postgres://ann@127.0.0.1:${pooler.port}/shop`, { serverChecks: true })
    expect(error.message).toContain('unsupported startup parameter')
    expect(pooler.sockets).toBe(1)
  })

  test("serverChecks: 'auto' goes without what the server refuses, in a second attempt", async () => {
    await using pooler = await scriptedServer(refuses)
    const error = await openError(`postgres://ann@127.0.0.1:${pooler.port}/shop`)
    // It refuses the second one as well.
    expect(error.retryable).toBe(true)
    expect(pooler.sockets).toBe(2)
  })

  test.each<[PostgresPoolOptions['serverChecks'], string]>([
    ['auto', '2s'],
    [true, '2s'],
    [false, '0'],
  ])('serverChecks: %j sets client_connection_check_interval to %s', async (serverChecks, interval) => {
    const under = new DriverUnderTest(db.url, { serverChecks: serverChecks ?? 'auto' })
    const connection = await under.open()
    const [row] = await connection.ask(`select current_setting('client_connection_check_interval') as interval`)
    expect(row).toEqual({ interval })
    await under.close(connection)
  })
})

describe('dial()', () => {
  test('dial() leaves a server that does not take the connection at the deadline', async () => {
    // A blocked thread accepts nothing; the system does so for it, until the backlog is full.
    const flag = new Int32Array(new SharedArrayBuffer(4))
    const worker = new Worker(
      `const { workerData, parentPort } = require('node:worker_threads')
       const server = require('node:net').createServer().listen({ port: 0, host: '127.0.0.1', backlog: 1 }, () => {
         parentPort.postMessage(server.address().port)
         setImmediate(() => { Atomics.wait(workerData, 0, 0) })
       })`,
      { eval: true, workerData: flag },
    )
    const port = await new Promise<number>((resolve) => {
      worker.once('message', resolve)
    })
    const sockets: Socket[] = []
    onTestFinished(async () => {
      for (const socket of sockets) socket.destroy()
      Atomics.store(flag, 0, 1)
      Atomics.notify(flag, 0)
      await worker.terminate()
    })
    let failure: Error | undefined
    for (let i = 0; i < 20 && !failure; i++) {
      try {
        sockets.push(await dial({ host: '127.0.0.1', port }, AbortSignal.timeout(150)))
      } catch (error) {
        failure = error as Error
      }
    }
    expect(failure?.name).toBe('TimeoutError')
    const error = await openError(`postgres://ann:${secret}@127.0.0.1:${port}/shop`, {}, 150)
    expect(error.message).toContain('the TCP connection was not made in time')
    expect(error).toMatchObject({ retryable: true, doubtful: false })
  })

  test('dial() rejects with the reason of a signal that has aborted before', async () => {
    const reason = new Error('enough')
    expect(await rejection(dial({ host: '127.0.0.1', port: 1 }, AbortSignal.abort(reason)))).toBe(reason)
  })

  test('dial() connects to an IPv6 address', async (context) => {
    const server = createServer((socket) => socket.end())
    const listening = await new Promise<boolean>((resolve) => {
      server.once('error', () => resolve(false))
      server.listen(0, '::1', () => resolve(true))
    })
    context.skip(!listening, 'there is no IPv6 here')
    onTestFinished(() => void server.close())
    const { port } = server.address() as AddressInfo
    const error = await openError(`postgres://ann:${secret}@[::1]:${port}/shop`)
    expect(error.message).toContain(`Cannot connect to [::1]:${port} as "ann"`)
    expect(error.message).toMatch(/closed the connection|ECONNRESET|EPIPE/)
  })

  test('dial() leaves a name that nobody looks up at the deadline', async () => {
    const lookup = vi.spyOn(dns, 'lookup').mockImplementation(() => undefined)
    onTestFinished(() => lookup.mockRestore())
    const startedAt = performance.now()
    const error = await openError(`postgres://ann:${secret}@slow.example/shop`, {}, 150)
    expect(lookup).toHaveBeenCalledOnce()
    expect(error.message).toContain('slow.example:5432')
    expect(error.message).toContain('the name of the server was not looked up in time')
    expect(error).toMatchObject({ retryable: true, doubtful: false })
    expect(performance.now() - startedAt).toBeLessThan(1_000)
  })

  test('dial() tries the next address of a name, and connects to the one that answers', async () => {
    // Whatever comes first: IPv6 has no server there.
    const addresses = [
      { address: '::1', family: 6 },
      { address: '127.0.0.1', family: 4 },
    ]
    const lookup = vi.spyOn(dns, 'lookup').mockImplementation(((_: string, __: object, done: Function) => {
      done(null, addresses)
    }) as never)
    onTestFinished(() => lookup.mockRestore())
    const under = new DriverUnderTest(db.url.replace(db.server.host, 'both.example'))
    const connection = await under.open()
    expect(await connection.ask('select 1 as one')).toEqual([{ one: 1 }])
    await under.close(connection)
  })

  test('dial() rejects where a name is not known', async () => {
    const error = await openError(`postgres://ann:${secret}@nowhere.invalid/shop`, {}, 3_000)
    expect(error).toMatchObject({ retryable: true, doubtful: false })
    expect(error.message).toContain('nowhere.invalid:5432')
  })

  test('shownAddress() writes addresses as people do', () => {
    expect(shownAddress({ host: '::1', port: 1 })).toBe('[::1]:1')
    expect(shownAddress({ host: 'db', port: 1 })).toBe('db:1')
    expect(shownAddress({ path: '/run/pg' })).toBe('/run/pg')
  })
})

describe('array types', () => {
  test('a connection that waits for another one’s question gives up at its own deadline', async () => {
    const lock = new DriverUnderTest(db.url, { fetch_types: false })
    const holder = await lock.open()
    await holder.ask('begin')
    await holder.ask('lock table pg_catalog.pg_type in access exclusive mode')
    const under = new DriverUnderTest(db.url)
    const asking = under.open(undefined, 10_000)
    await until(async () => (await db.sessions()).some(({ wait }) => wait === 'relation'))
    const startedAt = performance.now()
    const error = await rejection(under.open(undefined, 200))
    expect(performance.now() - startedAt).toBeLessThan(2_000)
    expect(error).toBeInstanceOf(ConnectError)
    await holder.ask('rollback')
    await lock.close(holder)
    await under.close(await asking)
  })
})
