import { createServer } from 'node:net'
import type { AddressInfo, Socket } from 'node:net'
import { inspect } from 'node:util'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, onTestFinished, test } from 'vitest'
import { AcquireTimeoutError, BrokerError, ConnectError, createBroker } from 'millpond'
import { createPool } from 'millpond/postgres'
import type { TestDatabase } from '../support/database.ts'
import { createDatabase } from '../support/database.ts'
import { Thread } from './thread.ts'

const secret = 'hunter2-the-secret'

let database: TestDatabase
const unhandled: unknown[] = []
const listener = (reason: unknown): void => void unhandled.push(reason)

beforeAll(async () => {
  database = await createDatabase()
  process.on('unhandledRejection', listener)
})

afterAll(async () => {
  process.off('unhandledRejection', listener)
  await database.drop()
})

beforeEach(() => {
  unhandled.length = 0
})

afterEach(() => {
  expect(unhandled).toEqual([])
})

/** The error of an acquire that cannot work; fails if it shows the password anywhere. */
async function failureOf(
  url: string,
  options: { acquireTimeoutMs?: number; connectTimeoutMs?: number } = {},
): Promise<unknown> {
  const pool = createPool(url, { acquireTimeoutMs: 2_000, ...options })
  const acquiring = performance.now()
  const [error, query] = await Promise.all([
    pool.acquire().catch((thrown: unknown) => thrown),
    pool.sql`select 1`.catch((thrown: unknown) => thrown),
  ])
  expect(performance.now() - acquiring).toBeLessThan((options.acquireTimeoutMs ?? 2_000) + 3_000)
  await pool.close({ timeoutMs: 100 })
  expect(query).toMatchObject({ code: (error as { code: string }).code })
  for (const one of [error, query]) {
    expect(inspect(one, { depth: 10, showHidden: true })).not.toContain(secret)
    expect((one as Error).stack).not.toContain(secret)
  }
  return error
}

function withPassword(url: string): URL {
  const changed = new URL(url)
  changed.password = secret
  return changed
}

describe('a pool that cannot connect', () => {
  test('with a wrong password fails at once: ERR_CONNECT, not retryable', async () => {
    const error = await failureOf(withPassword(database.url).href)
    expect(error).toBeInstanceOf(ConnectError)
    expect(error).toMatchObject({ code: 'ERR_CONNECT', retryable: false, cause: { code: '28P01' } })
    expect((error as Error).message).toContain(database.name)
  })

  test('to a database that does not exist fails at once: ERR_CONNECT, not retryable', async () => {
    const url = new URL(database.url)
    url.pathname = '/no_such_database'
    expect(await failureOf(url.href)).toMatchObject({ code: 'ERR_CONNECT', retryable: false, cause: { code: '3D000' } })
  })

  test('to a server that is down fails at its deadline, with the last failure as cause', async () => {
    const error = await failureOf(`postgres://someone:${secret}@127.0.0.1:1/nowhere`, { acquireTimeoutMs: 600 })
    expect(error).toBeInstanceOf(AcquireTimeoutError)
    expect(error).toMatchObject({ code: 'ERR_ACQUIRE_TIMEOUT', phase: 'connect', cause: { code: 'ERR_CONNECT' } })
    expect((error as Error).message).toContain('ECONNREFUSED')
    expect((error as Error).message).toContain('127.0.0.1:1')
  })

  test('to a server that accepts and never answers fails at its deadline', async () => {
    const sockets = new Set<Socket>()
    const deaf = createServer((socket) => void sockets.add(socket))
    await new Promise<void>((resolve) => {
      deaf.listen(0, '127.0.0.1', resolve)
    })
    onTestFinished(() => {
      for (const socket of sockets) socket.destroy()
      deaf.close()
    })
    const { port } = deaf.address() as AddressInfo
    const url = `postgres://someone:${secret}@127.0.0.1:${port}/nowhere`
    const error = await failureOf(url, { acquireTimeoutMs: 800, connectTimeoutMs: 200 })
    expect(error).toMatchObject({ code: 'ERR_ACQUIRE_TIMEOUT', phase: 'connect' })
  })
})

describe('createPool()', () => {
  test.each<[what: string, url: string | undefined, options: object, option: string]>([
    ['no address at all', undefined, {}, 'url'],
    ['an empty address', '', {}, 'url'],
    ['an address that is none', `not a url:${secret}`, {}, 'url'],
    ['an address without a host', `postgres://someone:${secret}`, {}, 'url'],
    ['another protocol', `mysql://someone:${secret}@localhost/x`, {}, 'url'],
    ['an unknown option', 'postgres://localhost/x', { pool_size: 5 }, 'pool_size'],
    ['an option of postgres.js that the pool owns', 'postgres://localhost/x', { idle_timeout: 5 }, 'idle_timeout'],
    ['min above max', 'postgres://localhost/x', { min: 3, max: 2 }, 'min'],
  ])('refuses %s', (_, url, options, option) => {
    let error: unknown
    try {
      createPool(url, options)
    } catch (thrown) {
      error = thrown
    }
    expect(error).toMatchObject({ code: 'ERR_OPTION', option })
    expect(inspect(error)).not.toContain(secret)
  })
})

describe('a broker', () => {
  test('that nobody made is ERR_NO_BROKER on first use, here and in a worker, each time', async () => {
    const pool = createPool(database.url, { broker: 'nobody made it' })
    for (let i = 0; i < 2; i++) {
      const error: unknown = await pool.acquire().catch((thrown: unknown) => thrown)
      expect(error).toBeInstanceOf(BrokerError)
      expect(error).toMatchObject({ code: 'ERR_NO_BROKER', message: expect.stringContaining('"nobody made it"') })
    }
    await expect(pool.sql`select 1`).rejects.toMatchObject({ code: 'ERR_NO_BROKER' })
    await expect(pool.open()).rejects.toMatchObject({ code: 'ERR_NO_BROKER' })
    await pool.close()
    const thread = new Thread(database.url, { broker: 'nobody made it' })
    await expect(thread.tell('idle')).rejects.toMatchObject({ code: 'ERR_NO_BROKER' })
  })

  test('made after the worker was started is not seen by it, and the error asks about that', async () => {
    const thread = new Thread(database.url, { broker: 'too late' })
    await thread.stats()
    await using broker = createBroker({ name: 'too late', limit: 2 })
    expect(broker.stats().members).toEqual([])
    await expect(thread.tell('idle')).rejects.toMatchObject({
      code: 'ERR_NO_BROKER',
      message: expect.stringContaining('after this worker was started'),
    })
  })

  test('of the same name with another limit is ERR_BROKER_EXISTS, with the same limit the same', async () => {
    await using broker = createBroker({ name: 'twice', limit: 2 })
    expect(createBroker({ name: 'twice', limit: 2 })).toBe(broker)
    expect(() => createBroker({ name: 'twice', limit: 3 })).toThrow(
      expect.objectContaining({ code: 'ERR_BROKER_EXISTS' }),
    )
    expect(() => createPool(database.url, { limit: { name: 'twice', connections: 3 } })).toThrow(BrokerError)
  })

  test('refuses members whose min adds up to more than the limit', async () => {
    await using broker = createBroker({ name: 'sum of min', limit: 3 })
    await using first = createPool(database.url, { broker: broker.name, min: 2 })
    await first.open()
    await using second = createPool(database.url, { broker: broker.name, min: 2 })
    await expect(second.open()).rejects.toMatchObject({
      code: 'ERR_BROKER_MISMATCH',
      message: expect.stringContaining('4'),
    })
  })

  test('that is closed refuses every acquire, and closes what idles', async () => {
    const broker = createBroker({ name: 'closing', limit: 2 })
    await using pool = createPool(database.url, { broker: broker.name })
    await pool.sql`select 1`
    await broker.close()
    await expect(pool.acquire()).rejects.toMatchObject({ code: 'ERR_BROKER_CLOSED' })
    await database.sessionsToBe(0)
  })
})
