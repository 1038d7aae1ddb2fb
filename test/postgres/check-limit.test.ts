import { connect } from 'node:net'
import postgres from 'postgres'
import { afterAll, beforeAll, describe, expect, onTestFinished, test, vi } from 'vitest'
import { startServer } from '../../bench/support/embedded.ts'
import type { EmbeddedServer } from '../../bench/support/embedded.ts'
import { createBroker } from '../../src/broker/broker.ts'
import { ConnectError, LimitError } from '../../src/errors.ts'
import { checkLimit } from '../../src/postgres/check-limit.ts'
import type { Connection } from '../../src/postgres/connection.ts'
import { sumUp } from '../../src/postgres/limit-sum.ts'
import type { LimitCheck, LimitNumbers } from '../../src/postgres/limit-sum.ts'
import { createPool } from '../../src/postgres/pool.ts'
import { DriverUnderTest, rejection, tcpServer } from '../support/connection.ts'
import { until } from '../support/database.ts'

function numbers(some: Partial<LimitNumbers> = {}): LimitNumbers {
  return {
    maxConnections: 100,
    superuserReserved: 3,
    reserved: 0,
    role: 'app',
    superuser: false,
    usesReserved: false,
    roleLimit: -1,
    database: 'x',
    databaseLimit: -1,
    others: { server: 0, role: 0, database: 0 },
    proxy: false,
    ...some,
  }
}

function others(server: number, role = 0, database = 0): Pick<LimitNumbers, 'others'> {
  return { others: { server, role, database } }
}

describe('sumUp()', () => {
  test.each<[string, number, Partial<LimitNumbers>, Pick<LimitCheck, 'fits' | 'most' | 'room'>]>([
    ['all that is not reserved', 97, {}, { fits: 'yes', most: 97, room: 97 }],
    ['one more than that', 98, {}, { fits: 'no', most: 97, room: 97 }],
    ['what others leave', 90, others(7), { fits: 'yes', most: 97, room: 90 }],
    ['one more than others leave', 91, others(7), { fits: 'tight', most: 97, room: 90 }],
    ['others in the reserved ones', 1, others(99), { fits: 'tight', most: 97, room: 0 }],
    ['reserved_connections', 92, { reserved: 5 }, { fits: 'yes', most: 92, room: 92 }],
    ['more than without reserved_connections', 93, { reserved: 5 }, { fits: 'no', most: 92, room: 92 }],
    ['a role that uses them', 97, { reserved: 5, usesReserved: true }, { fits: 'yes', most: 97, room: 97 }],
    ['a server before 16', 97, { reserved: undefined }, { fits: 'yes', most: 97, room: 97 }],
    ['a superuser', 100, { superuser: true, reserved: 5 }, { fits: 'yes', most: 100, room: 100 }],
    ['more than a server has for a superuser', 101, { superuser: true }, { fits: 'no', most: 100, room: 100 }],
    ['the role’s limit', 50, { roleLimit: 50 }, { fits: 'yes', most: 50, room: 50 }],
    ['more than the role’s limit', 51, { roleLimit: 50 }, { fits: 'no', most: 50, room: 50 }],
    ['others of the role', 40, { roleLimit: 50, ...others(12, 12) }, { fits: 'tight', most: 50, room: 38 }],
    ['others of other roles', 40, { roleLimit: 50, ...others(12, 0) }, { fits: 'yes', most: 50, room: 50 }],
    ['a role that may not have any', 1, { roleLimit: 0 }, { fits: 'no', most: 0, room: 0 }],
    ['a role’s limit beyond the server', 98, { roleLimit: 500 }, { fits: 'no', most: 97, room: 97 }],
    ['the database’s limit', 30, { databaseLimit: 30 }, { fits: 'yes', most: 30, room: 30 }],
    ['more than the database’s limit', 31, { databaseLimit: 30 }, { fits: 'no', most: 30, room: 30 }],
    ['others on the database', 30, { databaseLimit: 30, ...others(1, 0, 1) }, { fits: 'tight', most: 30, room: 29 }],
    [
      'limits do not bind superusers',
      60,
      { superuser: true, roleLimit: 5, databaseLimit: 6 },
      { fits: 'yes', most: 100, room: 100 },
    ],
    [
      'the least of all',
      20,
      { roleLimit: 50, databaseLimit: 30, ...others(80, 1, 2) },
      { fits: 'tight', most: 30, room: 17 },
    ],
    ['a proxy may have more clients', 500, { proxy: true }, { fits: 'tight', most: 97, room: 97 }],
    ['a proxy before a server with room', 50, { proxy: true }, { fits: 'yes', most: 97, room: 97 }],
  ])('sumUp() of %s: a limit of %i', (_, limit, some, expected) => {
    expect(sumUp(limit, numbers(some))).toMatchObject({ limit, ...expected })
  })

  test('sumUp() writes the sum out so that it can be checked', () => {
    expect(sumUp(40, numbers({ roleLimit: 50, ...others(12, 12) })).sum).toBe(
      '100 max_connections − 3 superuser_reserved_connections − 0 reserved_connections = 97, others use 12 of them now: 85 left; ' +
        'role "app" may have 50, others use 12 of them now: 38 left; database "x" no limit: 38 left for a limit of 40',
    )
    expect(sumUp(9, numbers({ superuser: true, databaseLimit: 5 })).sum).toBe(
      '100 max_connections, all of them open to a superuser, others use 0 of them now: 100 left; ' +
        'role "app" no limit; database "x" a limit of 5, which does not bind a superuser: 100 left for a limit of 9',
    )
    expect(sumUp(9, numbers({ reserved: undefined })).sum).not.toContain(' reserved_connections')
    expect(sumUp(9, numbers({ reserved: 5, usesReserved: true })).sum).not.toContain(' reserved_connections')
    expect(sumUp(9, numbers({ proxy: true })).sum).toContain('proxy')
  })

  test('sumUp() says what to do, and nothing where it fits', () => {
    const { advice } = sumUp(60, numbers({ role: 'a"b', roleLimit: 50, databaseLimit: 55, ...others(50, 1, 2) }))
    expect(advice).toEqual([
      'Lower the limit to 47, or raise max_connections to 113 (needs a restart) and ' +
        '`alter role "a""b" connection limit 61` and `alter database "x" connection limit 62`.',
    ])
    expect(sumUp(97, numbers()).advice).toEqual([])
    expect(sumUp(1, numbers(others(97))).advice).toEqual([
      'Raise max_connections to 101 (needs a restart), or wait until the others have left.',
    ])
    expect(sumUp(1, numbers({ proxy: true })).advice).toEqual([expect.stringContaining('proxy')])
  })

  test('sumUp() gives something that cannot be changed', () => {
    const check = sumUp(5, numbers())
    for (const part of [check, check.numbers, check.numbers.others, check.advice])
      expect(Object.isFrozen(part)).toBe(true)
  })
})

let server: EmbeddedServer
let admin: postgres.Sql
let names = 0

beforeAll(async () => {
  server = await startServer({ max_connections: 14, superuser_reserved_connections: 2, reserved_connections: 3 })
  admin = postgres(server.url, { max: 1, onnotice: () => undefined })
})

afterAll(async () => {
  await admin.end()
  await server.stop()
})

/** A role and a database of its own; `more` are clauses of CREATE ROLE, `database` of CREATE DATABASE. */
async function place(more = '', database = ''): Promise<{ role: string; database: string; url: string }> {
  const name = `place_${++names}`
  await admin.unsafe(`create role ${name} login password 'not-to-be-seen' ${more}`)
  await admin.unsafe(`create database ${name} ${database}`)
  return { role: name, database: name, url: urlOf(name, name) }
}

function urlOf(role: string, database: string, port = server.port): string {
  return `postgres://${role}:not-to-be-seen@127.0.0.1:${port}/${database}`
}

/** Opens sessions until the server refuses one, or until there are so many; they are closed when the test is over. */
async function fill(url: string, most = 100): Promise<number> {
  const under = new DriverUnderTest(url)
  const open: Connection[] = []
  onTestFinished(async () => {
    await Promise.all(open.map((connection) => under.close(connection)))
  })
  while (open.length < most) {
    try {
      open.push(await under.open())
    } catch (error) {
      if (error instanceof ConnectError && error.full) break
      throw error
    }
  }
  return open.length
}

async function sessionsOf(role: string): Promise<number> {
  const [row] = await admin`select count(*)::int as count from pg_stat_activity where usename = ${role}`
  return Number(row?.['count'])
}

function warnings(): { calls: () => string[] } {
  const spy = vi.spyOn(process, 'emitWarning').mockImplementation(() => {})
  onTestFinished(() => spy.mockRestore())
  return { calls: () => spy.mock.calls.map(([text]) => String(text)) }
}

const quiet = { onMisfit: 'ignore' } as const

describe('checkLimit() on a server', () => {
  test.each([
    ['a plain role', '', '', 9],
    ['a role that may use reserved_connections', 'in role pg_use_reserved_connections', '', 12],
    ['a superuser', 'superuser connection limit 2', 'connection limit 3', 14],
    ['a role with a CONNECTION LIMIT', 'connection limit 4', '', 4],
    ['a database with a CONNECTION LIMIT', '', 'connection limit 5', 5],
    ['both', 'connection limit 6', 'connection limit 3', 3],
  ])('checkLimit() for %s tells what the server then grants', async (_, roleClause, databaseClause, most) => {
    const { role, database, url } = await place(roleClause, databaseClause)
    // Others, of another role that this one may not look into: on another database, and on this one.
    const stranger = await place()
    await fill(stranger.url, 1)
    await fill(urlOf(stranger.role, database), 1)
    const check = await checkLimit(url, 1, quiet)
    expect(check.numbers).toMatchObject({ role, database, others: { server: 3, role: 0, database: 1 }, proxy: false })
    expect(check.most).toBe(most)
    expect(await fill(url)).toBe(check.room)
    expect(await sessionsOf(role)).toBe(check.room)
  })

  test('checkLimit() counts others of the same role, wherever they are', async () => {
    const { role, url } = await place('connection limit 5')
    await fill(urlOf(role, 'postgres'), 2)
    const check = await checkLimit(url, 4, quiet)
    expect(check).toMatchObject({ fits: 'tight', most: 5, room: 3 })
    expect(check.numbers.others).toEqual({ server: 3, role: 2, database: 0 })
    expect(await fill(url)).toBe(3)
  })

  test('checkLimit() does not take sessions of the broker for others', async () => {
    const { url } = await place('connection limit 6')
    const name = `own ${++names}`
    await using pool = createPool(url, { min: 3, max: 5, limit: { name, connections: 5 } })
    await pool.open()
    const { broker } = pool.stats()
    if (!broker) throw new Error('no broker')
    expect(await checkLimit(url, broker)).toMatchObject({ fits: 'yes', limit: 5, room: 6 })
    expect(await checkLimit(url, { name, limit: 6 })).toMatchObject({ fits: 'yes', room: 6 })
    // Whose sessions they are cannot be known from a number.
    expect(await checkLimit(url, 5, quiet)).toMatchObject({ fits: 'tight', room: 3 })
  })

  test('checkLimit() counts sessions that have no name, and all where nobody knows the broker', async () => {
    const { role, url } = await place('connection limit 5')
    const sql = postgres(url, { max: 1, connection: { application_name: '' } })
    onTestFinished(() => sql.end())
    await sql`select 1`
    for (const limit of [
      5,
      { limit: 5, name: 'nobody knows it' },
      createBroker({ name: `none ${++names}`, limit: 5 }),
    ]) {
      const check = await checkLimit(url, limit, quiet)
      expect(check.numbers.others.role).toBe(1)
    }
    expect(await sessionsOf(role)).toBe(1)
  })

  test('checkLimit() gives advice that can be followed to the letter', async () => {
    const { role, url } = await place('connection limit 4', 'connection limit 3')
    await fill(urlOf(role, 'postgres'), 2)
    const before = await checkLimit(url, 5, quiet)
    expect(before.fits).toBe('no')
    const statements = [...before.advice.join().matchAll(/`([^`]+)`/g)].map((match) => match[1] ?? '')
    expect(statements).toHaveLength(2)
    for (const statement of statements) await admin.unsafe(statement)
    expect(await checkLimit(url, 5)).toMatchObject({ fits: 'yes', room: 5, advice: [] })
  })
})

describe('checkLimit() and a limit that does not fit', () => {
  test('checkLimit() throws a LimitError with the sum and what to do, and no password', async () => {
    const { role, database, url } = await place('connection limit 4')
    const error = await rejection(checkLimit(url, 5))
    expect(error).toBeInstanceOf(LimitError)
    expect(error).toMatchObject({ code: 'ERR_LIMIT_MISFIT', limit: 5, most: 4 })
    expect(error.message).toContain(`Cannot have 5 connections to "127.0.0.1:${server.port}/${database}", only 4:`)
    expect(error.message).toContain(`role "${role}" may have 4, others use 0 of them now: 4 left;`)
    expect(error.message).toContain(`alter role "${role}" connection limit 5`)
    expect(JSON.stringify([error.message, error.stack, error])).not.toContain('not-to-be-seen')
    expect(await sessionsOf(role)).toBe(0)
  })

  test('checkLimit() warns once of a tight limit, and resolves', async () => {
    const warned = warnings()
    const { url } = await place('connection limit 4')
    await fill(url, 1)
    for (let i = 0; i < 2; i++) expect(await checkLimit(url, 4)).toMatchObject({ fits: 'tight', room: 3 })
    expect(warned.calls()).toEqual([expect.stringContaining('others use 1 of them now: 3 left')])
    expect(warned.calls()[0]).not.toContain('not-to-be-seen')
  })

  test('checkLimit() warns or is silent instead of throwing, as onMisfit says', async () => {
    const warned = warnings()
    const { url } = await place('connection limit 4')
    expect(await checkLimit(url, 5, { onMisfit: 'ignore' })).toMatchObject({ fits: 'no' })
    expect(warned.calls()).toEqual([])
    expect(await checkLimit(url, 5, { onMisfit: 'warn' })).toMatchObject({ fits: 'no' })
    expect(warned.calls()).toEqual([expect.stringContaining('can never be had')])
  })
})

describe('checkLimit() that gets no answer', () => {
  test('checkLimit() rejects with a ConnectError where nobody listens, and for a wrong password', async () => {
    const { port, server: tcp } = await tcpServer(() => undefined)
    await new Promise((resolve) => {
      tcp.close(resolve)
    })
    const refused = await rejection(checkLimit(urlOf('app', 'x', port), 5))
    expect(refused).toBeInstanceOf(ConnectError)
    expect(refused.message).not.toContain('not-to-be-seen')
    const { url } = await place()
    const wrong = await rejection(checkLimit(url.replace('not-to-be-seen', 'not-to-be-seen-either'), 5))
    expect(wrong).toBeInstanceOf(ConnectError)
    expect(wrong).toMatchObject({ code: 'ERR_CONNECT', retryable: false })
    expect(wrong.message).not.toContain('not-to-be-seen')
  })

  test('checkLimit() rejects with a ConnectError that says so where the role’s limit is used up', async () => {
    const { role, url } = await place('connection limit 1')
    await fill(url)
    expect(await rejection(checkLimit(url, 5))).toMatchObject({ code: 'ERR_CONNECT', full: true })
    expect(await sessionsOf(role)).toBe(1)
  })

  test('checkLimit() rejects within timeoutMs where the server says nothing', async () => {
    await using silent = await tcpServer(() => undefined)
    const startedAt = performance.now()
    const error = await rejection(checkLimit(urlOf('app', 'x', silent.port), 5, { timeoutMs: 100 }))
    expect(error).toBeInstanceOf(ConnectError)
    expect(performance.now() - startedAt).toBeLessThan(2_000)
  })

  test('checkLimit() rejects with the signal’s own reason, and leaves no session', async () => {
    const reason = new Error('not now')
    const { role, database, url } = await place()
    await expect(checkLimit(url, 5, { signal: AbortSignal.abort(reason) })).rejects.toBe(reason)
    // The answer waits for a lock that another session has; connecting does not.
    const blocker = postgres(server.url.replace(/postgres$/, database), { max: 1, onnotice: () => undefined })
    onTestFinished(() => blocker.end())
    const locked = await blocker.reserve()
    await locked.unsafe('begin; lock table pg_catalog.pg_auth_members in access exclusive mode')
    const controller = new AbortController()
    const asking = rejection(checkLimit(url, 5, { signal: controller.signal }))
    await until(async () => {
      const waiting = await admin`select from pg_stat_activity where usename = ${role} and wait_event_type = 'Lock'`
      return waiting.length === 1
    }, 'the check to wait for a lock')
    controller.abort(reason)
    expect(await asking).toBe(reason)
    expect(await sessionsOf(role)).toBe(0)
    await locked.unsafe('rollback')
    locked.release()
  })
})

/** Relays to the server. `keys`: hands out process numbers of its own, as a proxy does. */
async function relay(keys: boolean): ReturnType<typeof tcpServer> {
  return tcpServer((client) => {
    const behind = connect(server.port, '127.0.0.1')
    behind.on('error', () => client.destroy())
    client.on('data', (chunk) => behind.write(chunk))
    client.on('end', () => behind.end())
    behind.on('data', (chunk: Buffer) => {
      // BackendKeyData: K, length 12, process number, key.
      const at = keys ? chunk.indexOf(Buffer.from('K\0\0\0\x0c', 'latin1')) : -1
      if (at >= 0) chunk.writeUInt32BE(0x7123_4567, at + 5)
      client.write(chunk)
    })
    behind.on('end', () => client.end())
  })
}

describe('checkLimit() through something in between', () => {
  test('checkLimit() says so where a proxy hands out keys of its own, and then never says never', async () => {
    const warned = warnings()
    const { role, database } = await place('connection limit 4')
    await using proxy = await relay(true)
    const check = await checkLimit(urlOf(role, database, proxy.port), 5)
    expect(check).toMatchObject({ fits: 'tight', most: 4, numbers: { proxy: true } })
    expect(check.sum).toContain('proxy')
    expect(warned.calls()).toEqual([expect.stringContaining('more than the server behind a proxy has room for')])
  })

  test('checkLimit() does not mind what only passes the bytes on', async () => {
    const { role, database } = await place('connection limit 4')
    await using relayed = await relay(false)
    const check = await checkLimit(urlOf(role, database, relayed.port), 4)
    expect(check).toMatchObject({ fits: 'yes', numbers: { proxy: false } })
  })
})

describe('checkLimit() and its options', () => {
  test.each<[unknown, object, string]>([
    [0, {}, 'broker'],
    [1.5, {}, 'broker'],
    [undefined, {}, 'broker'],
    [{ name: 'x' }, {}, 'broker'],
    ['5', {}, 'broker'],
    [5, { onMisfit: 'shout' }, 'onMisfit'],
    [5, { timeoutMs: 0 }, 'timeoutMs'],
    [5, { timeout: 5 }, 'timeout'],
    [5, { pool: { maximum: 5 } }, 'maximum'],
  ])('checkLimit() refuses %j with %j', async (broker, options, option) => {
    expect(await rejection(checkLimit(server.url, broker as number, options))).toMatchObject({
      code: 'ERR_OPTION',
      option,
    })
  })

  test('checkLimit() connects as the pool’s options say', async () => {
    const { role, database } = await place('connection limit 4')
    const pool = { user: role, database, password: () => 'not-to-be-seen', max: 3 }
    const check = await checkLimit(`postgres://127.0.0.1:${server.port}`, 4, { pool })
    expect(check.numbers).toMatchObject({ role, database })
  })
})
