import { describe, expect, test } from 'vitest'
import { parseOptions } from '../../src/postgres/options.ts'
import type { PostgresPoolOptions } from '../../src/postgres/options.ts'
import { redact } from '../../src/postgres/url.ts'

const url = 'postgres://ann:s%40cret@db.example:6543/shop'
const none = {}

function onnotice(): void {}

function thrown(fn: () => unknown): Error & { code?: string; option?: string } {
  try {
    fn()
  } catch (error) {
    if (error instanceof Error) return error
  }
  throw new Error('nothing was thrown')
}

function refusal(given: string | URL | undefined, options?: object, env: Record<string, string> = none): string {
  const error = thrown(() => parseOptions(given, options as PostgresPoolOptions, env))
  expect(error.code).toBe('ERR_OPTION')
  return error.message
}

describe('parseOptions()', () => {
  test('parseOptions() takes a URL apart and decodes it', () => {
    expect(parseOptions(url, {}, none)).toMatchObject({
      address: { host: 'db.example', port: 6543 },
      user: 'ann',
      password: 's@cret',
      database: 'shop',
      serverName: 'db.example:6543/shop',
    })
    expect(parseOptions(new URL(url), {}, none).serverName).toBe('db.example:6543/shop')
  })

  test('parseOptions() takes an IPv6 address', () => {
    const { address, serverName } = parseOptions('postgres://ann@[::1]:5433/shop', {}, none)
    expect(address).toEqual({ host: '::1', port: 5433 })
    expect(serverName).toBe('[::1]:5433/shop')
  })

  test.each([
    ['postgres://ann@/shop?host=/run/pg', '/run/pg/.s.PGSQL.5432'],
    ['postgres://ann@%2Frun%2Fpg/shop', '/run/pg/.s.PGSQL.5432'],
    ['postgres://ann@%2Frun%2Fpg:6000/shop', '/run/pg/.s.PGSQL.6000'],
    ['postgresql:///shop?host=/run/pg&port=6000&user=ann', '/run/pg/.s.PGSQL.6000'],
  ])('parseOptions() finds the unix socket of %s', (text, path) => {
    expect(parseOptions(text, {}, none)).toMatchObject({ address: { path }, database: 'shop', user: 'ann' })
  })

  test('parseOptions() refuses to guess where nothing names a server', () => {
    for (const nothing of [undefined, '']) expect(refusal(nothing)).toMatch(/url must name a server.*DATABASE_URL/)
    expect(refusal(undefined, {}, { PGUSER: 'ann', PGPORT: '1' })).toMatch(/got neither/)
  })

  test('parseOptions() fills in from the environment what a URL or PGHOST leaves open', () => {
    const env = { PGHOST: 'pg.example', PGPORT: '7000', PGUSER: 'eve', PGDATABASE: 'lab', PGPASSWORD: 'pw' }
    expect(parseOptions(undefined, {}, env)).toMatchObject({
      address: { host: 'pg.example', port: 7000 },
      user: 'eve',
      database: 'lab',
      password: 'pw',
    })
    expect(parseOptions('postgres://db.example', {}, env)).toMatchObject({
      address: { host: 'db.example', port: 7000 },
      user: 'eve',
    })
    expect(parseOptions('postgres://db.example', { host: 'x', user: 'u', database: 'd' }, env)).toMatchObject({
      address: { host: 'x', port: 7000 },
      user: 'u',
      database: 'd',
    })
  })

  test.each([
    'mysql://ann:hush@db/shop',
    'postgres:/ann:hush@db/shop',
    'postgres://ann:hush@db:port/shop',
    'postgres://ann:hu/sh@db/shop',
    'postgres://ann:hu%sh@db/shop',
    'postgres://ann:hush@a,b/shop',
    'ann:hush@db',
    'postgres://db:x/shop?password=hush',
  ])('parseOptions() names a URL that it cannot read, without its password: %s', (text) => {
    const message = refusal(text)
    expect(message).toContain('Cannot read the url "')
    expect(message).not.toMatch(/hush|hu.sh|sh@db/)
  })

  test('redact() leaves a URL without a password as it is', () => {
    expect(redact('postgres://ann@db:5432/shop')).toBe('postgres://ann@db:5432/shop')
    expect(redact('postgres://ann@db:5432/shop?password=a@b')).toBe('postgres://ann@db:5432/shop?password=***')
  })

  test.each([
    ['max_lifetime', 'maxLifetimeMs'],
    ['idle_timeout', 'idleTimeoutMs'],
    ['connect_timeout', 'connectTimeoutMs'],
    ['socket', 'dials by itself'],
    ['backoff', 'backs off'],
    ['max_pipeline', 'one query at a time'],
    ['username', 'use user'],
  ])('parseOptions() refuses %s and says what to use', (option, instead) => {
    expect(refusal(url, { [option]: 1 })).toContain(instead)
  })

  test('parseOptions() refuses in a URL what is refused as an option, and options of the pool', () => {
    expect(refusal(`${url}?connect_timeout=5`)).toContain('connectTimeoutMs')
    expect(refusal(`${url}?max=5`)).toContain('createPool')
  })

  test('parseOptions() refuses unknown options and names the allowed ones', () => {
    expect(refusal(url, { maxx: 1 })).toMatch(/Unknown option "maxx": allowed are .*max.*fetch_types/)
  })

  test('parseOptions() refuses TLS until it can do it, and takes sslmode=disable', () => {
    expect(refusal(`${url}?sslmode=require`)).toContain('TLS is not supported yet')
    expect(refusal(url, { ssl: true })).toContain('TLS is not supported yet')
    expect(refusal(url, { ssl: {} })).toContain('TLS is not supported yet')
    expect(refusal(url, {}, { PGSSLMODE: 'verify-full' })).toContain('TLS is not supported yet')
    expect(parseOptions(`${url}?sslmode=disable`, { ...({ ssl: false } as object) }, none).connection).toEqual({})
  })

  test('parseOptions() splits the options of the pool from those of the session', () => {
    const options = { max: 3, reset: 'full', onnotice, prepare: false, fetch_types: false } as const
    const settings = parseOptions(`${url}?statement_timeout=5`, { ...options, connection: { lock_timeout: 7 } }, none)
    expect(settings.pool).toEqual({ max: 3, reset: 'full' })
    expect(settings.session).toEqual({ onnotice, prepare: false })
    expect(settings.fetchTypes).toBe(false)
    expect(settings.connection).toEqual({ statement_timeout: '5', lock_timeout: '7' })
  })

  test.each([
    [{ onnotice: false }, 'onnotice'],
    [{ prepare: 'yes' }, 'prepare'],
    [{ password: 5 }, 'password'],
    [{ port: 70_000 }, 'port'],
    [{ types: 1 }, 'types'],
    [{ serverChecks: true }, 'serverChecks'],
    [{ connection: { a: {} } }, 'connection.a'],
  ])('parseOptions() refuses %j', (options, option) => {
    expect(refusal(url, options)).toContain(option)
    expect(thrown(() => parseOptions(url, options as unknown as PostgresPoolOptions, none)).option).toBe(option)
  })
})
