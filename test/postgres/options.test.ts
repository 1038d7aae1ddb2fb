import { inspect } from 'node:util'
import postgres from 'postgres'
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

const tlsOf = (text: string, options: object = {}, env: Record<string, string> = none): unknown =>
  (parseOptions(text, options, env).address as { tls?: unknown }).tls

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

  test('parseOptions() refuses a password that was not encoded, and shows none of it', () => {
    for (const given of ['postgres://u:sec@ret/x@127.0.0.1:5432/db', 'postgres://u:sec/ret@127.0.0.1/db']) {
      expect(refusal(given)).toMatch(/percent-encoded/)
      expect(refusal(given)).not.toMatch(/sec|ret/)
    }
    expect(parseOptions('postgres://u:p@127.0.0.1/d%40b', {}, none)).toMatchObject({ database: 'd@b' })
  })

  test('parseOptions() takes the transformations of postgres.js, which are functions with properties', () => {
    for (const transform of [postgres.toCamel, postgres.fromKebab] as unknown as { column: object }[]) {
      const given = { transform } as unknown as PostgresPoolOptions
      expect(parseOptions(url, given, none).session).toMatchObject({ transform: { column: transform.column } })
    }
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
    'postgres://ann:hush@a,b c/shop',
    'postgres://ann:hush@[::1/shop',
    'postgres://ann:hush@[db]:5432/shop',
    'ann:hush@db',
    'postgres://db:x/shop?password=hush',
    'postgres://ann:12/hush@db/shop',
    'postgres://ann:12?hush@db/shop',
    'postgres://ann:12#hush@db/shop',
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
    ['max_pipeline', 'use pipelining'],
    ['username', 'use user'],
    ['timeout', 'idleTimeoutMs'],
    ['keep_alive', 'always on'],
    ['no_prepare', 'prepare: false'],
    ['onclose', 'onClose'],
    ['onnotify', 'pool.listen()'],
    ['publications', 'not supported'],
    ['no_subscribe', 'not supported'],
    ['hostname', 'use host'],
    ['db', 'use database'],
    ['pass', 'use password'],
    ['sslmode', 'use ssl'],
    ['dbname', 'use database'],
    ['statement_timeout', 'connection: { statement_timeout }'],
    ['application_name', 'connection: { application_name }'],
    ['connectionTimeoutMillis', 'acquireTimeoutMs'],
    ['idleTimeoutMillis', 'idleTimeoutMs'],
    ['acquireTimeoutMillis', 'acquireTimeoutMs'],
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
    [{ port: [1, 2] }, 'port'],
    [{ host: 'a,b', port: [1, 2, 3] }, 'port'],
    [{ host: [] }, 'host'],
    [{ host: ['a', 5] }, 'host'],
    [{ host: 'a b' }, 'host'],
    [{ path: '' }, 'path'],
    [{ ssl: 'no-verify' }, 'ssl'],
    [{ ssl: 5 }, 'ssl'],
    [{ sslnegotiation: 'direct' }, 'sslnegotiation'],
    [{ ssl: 'prefer', sslnegotiation: 'direct' }, 'sslnegotiation'],
    [{ sslnegotiation: 'later' }, 'sslnegotiation'],
    [{ target_session_attrs: 'master' }, 'target_session_attrs'],
    [{ user: 'a\0database\0b' }, 'user'],
    [{ database: 'a\0b' }, 'database'],
    [{ password: 'a\0b' }, 'password'],
    [{ connection: { search_path: 'a\0b' } }, 'connection.search_path'],
    [{ connection: { user: 'eve' } }, 'connection.user'],
    [{ connection: { password: 'hush' } }, 'connection.password'],
    [{ connection: { replication: 'database' } }, 'connection.replication'],
    [{ connection: { client_encoding: 'latin1' } }, 'connection.client_encoding'],
    [{ connection: 5 }, 'connection'],
    [{ types: 1 }, 'types'],
    [{ serverChecks: 'yes' }, 'serverChecks'],
    [{ connection: { a: {} } }, 'connection.a'],
  ])('parseOptions() refuses %j', (options, option) => {
    expect(refusal(url, options)).toContain(option)
    expect(thrown(() => parseOptions(url, options as unknown as PostgresPoolOptions, none)).option).toBe(option)
  })

  test('parseOptions() refuses in a URL what is refused in connection', () => {
    expect(refusal(`${url}?replication=database`)).toContain('not supported')
    expect(refusal(`${url}?search_path=a%00b`)).toContain('zero byte')
    expect(refusal('postgres://ann%00x@db/shop')).toContain('user must not have a zero byte')
    expect(refusal(`${url}?client_encoding=SJIS`)).toContain('UTF8')
    expect(parseOptions(`${url}?client_encoding=utf-8`, {}, none).connection).toEqual({ client_encoding: 'utf-8' })
  })

  test('parseOptions() takes names that every object has for what they are: unknown', () => {
    expect(parseOptions(`${url}?constructor=1`, {}, none).connection).toEqual({ constructor: '1' })
    expect(refusal(url, { constructor: 1 })).toContain('Unknown option "constructor"')
  })
})

describe('parseOptions(), several hosts', () => {
  const a = { host: 'a', port: 1 }
  const b = { host: 'b', port: 2 }

  test.each([
    ['postgres://ann@a:1,b:2/shop', {}],
    ['postgres://ann@a:1,b/shop', { host: 'a:1,b:2' }],
    ['postgres://ann@x:7/shop', { host: ['a', 'b'], port: [1, 2] }],
    ['postgres://ann@x:7/shop', { host: ['a:1', 'b:2'] }],
    ['postgres://ann@a,b/shop', { port: [1, 2] }],
    ['postgres://ann@a:8,b:9/shop', { port: [1, 2] }],
    ['postgres:///shop?host=a,b&port=1,2', {}],
    ['postgres://ann@/shop?host=a:1,b:2', {}],
  ])('parseOptions() reads both hosts of %s with %j', (text, options) => {
    const settings = parseOptions(text, options, none)
    expect(settings.addresses).toEqual([a, b])
    expect(settings.address).toEqual(a)
    expect(settings.serverName).toBe('a:1,b:2/shop')
  })

  test('parseOptions() reads hosts and ports of the environment', () => {
    const env = { PGHOST: 'a,[::1],/run/pg', PGPORT: '1,2,3', PGUSER: 'ann' }
    expect(parseOptions(undefined, {}, env).addresses).toEqual([
      a,
      { host: '::1', port: 2 },
      { path: '/run/pg/.s.PGSQL.3' },
    ])
    expect(parseOptions(undefined, {}, { ...env, PGPORT: '9' }).addresses).toHaveLength(3)
  })

  test('parseOptions() takes IPv6 addresses with and without brackets', () => {
    const addresses = [
      { host: '::1', port: 5432 },
      { host: 'fe80::1', port: 7 },
    ]
    expect(parseOptions('postgres://[::1],[fe80::1]:7/x', {}, none).addresses).toEqual(addresses)
    expect(parseOptions('postgres://x/y', { host: ['::1', '[fe80::1]:7'] }, none).addresses).toEqual(addresses)
  })

  test('parseOptions() takes path for the file of a unix socket', () => {
    expect(parseOptions(undefined, { path: '/run/pg/s' }, { PGUSER: 'ann' }).addresses).toEqual([{ path: '/run/pg/s' }])
  })

  test('parseOptions() takes target_session_attrs from the option, the URL and the environment, in this order', () => {
    const env = { PGTARGETSESSIONATTRS: 'standby' }
    expect(parseOptions(url, {}, none).target).toBe('any')
    expect(parseOptions(url, {}, env).target).toBe('standby')
    expect(parseOptions(`${url}?target_session_attrs=primary`, {}, env).target).toBe('primary')
    expect(
      parseOptions(`${url}?target_session_attrs=primary`, { target_session_attrs: 'read-write' }, env).target,
    ).toBe('read-write')
    expect(parseOptions(`${url}?target_session_attrs=primary`, {}, none).connection).toEqual({})
    expect(refusal(url, {}, { PGTARGETSESSIONATTRS: 'master' })).toContain('prefer-standby')
  })
})

describe('parseOptions(), TLS', () => {
  const untrusting = { rejectUnauthorized: false }

  test.each([
    [false, undefined],
    ['disable', undefined],
    [true, { optional: false, direct: false, options: {} }],
    ['verify-full', { optional: false, direct: false, options: {} }],
    ['require', { optional: false, direct: false, options: untrusting }],
    ['prefer', { optional: true, direct: false, options: untrusting }],
    ['allow', { optional: true, direct: false, options: untrusting }],
    [{ ca: 'x' }, { optional: false, direct: false, options: { ca: 'x' } }],
  ])('parseOptions() knows what ssl: %j means', (ssl, policy) => {
    expect(tlsOf(url, { ssl })).toEqual(policy)
    if (typeof ssl === 'object') return
    expect(tlsOf(`${url}?ssl=${ssl}`)).toEqual(policy)
    expect(tlsOf(`${url}?sslmode=${ssl}`)).toEqual(policy)
    expect(tlsOf(url, {}, { PGSSLMODE: String(ssl) })).toEqual(policy)
    expect(parseOptions(`${url}?sslmode=${ssl}`, {}, none).connection).toEqual({})
  })

  test('parseOptions() lets the option win over the URL, and the URL over the environment', () => {
    expect(tlsOf(`${url}?sslmode=require`, { ssl: false }, { PGSSLMODE: 'require' })).toBe(undefined)
    expect(tlsOf(`${url}?sslmode=disable`, {}, { PGSSLMODE: 'require' })).toBe(undefined)
    expect(tlsOf(`${url}?ssl=disable`, {}, { PGSSLMODE: 'require' })).toBe(undefined)
  })

  test('parseOptions() takes sslnegotiation, sslrootcert=system and sslmode=verify-ca', () => {
    expect(tlsOf(`${url}?sslmode=require&sslnegotiation=direct`)).toMatchObject({ direct: true })
    expect(tlsOf(url, { ssl: true }, { PGSSLNEGOTIATION: 'direct' })).toMatchObject({ direct: true })
    expect(tlsOf(`${url}?sslmode=require&sslrootcert=system`)).toMatchObject({ options: {} })
    const policy = tlsOf(`${url}?sslmode=verify-ca`) as { options: { checkServerIdentity: () => unknown } }
    expect(policy.options.checkServerIdentity()).toBe(undefined)
    expect(Object.keys(policy.options)).toEqual(['checkServerIdentity'])
  })

  test('parseOptions() uses no TLS for a unix socket, as other clients', () => {
    expect(parseOptions('postgres://a@/b?host=/run/pg&sslmode=require', {}, none).address).toEqual({
      path: '/run/pg/.s.PGSQL.5432',
    })
  })
})

describe('parseOptions(), the names of other tools', () => {
  test.each([
    ['connect_timeout=5', 'connectTimeoutMs (milliseconds, where connect_timeout has seconds)'],
    ['connection_limit=5', 'use max'],
    ['pool_timeout=5', 'acquireTimeoutMs'],
    ['pgbouncer=true', 'prepare: false'],
    ['schema=shop', 'search_path'],
    ['query_timeout=5', 'queryTimeoutMs'],
    ['pool=5', 'use max'],
    ['currentSchema=shop', 'search_path'],
    ['sslrootcert=/ca.pem', 'ssl: { ca:'],
    ['sslcert=/c.pem', 'ssl: { cert:'],
    ['sslpassword=hush', 'passphrase'],
    ['pass=hush', 'use password'],
    ['hostaddr=1.2.3.4', 'use host'],
    ['keepalives_idle=5', 'serverChecks'],
    ['load_balance_hosts=random', 'in their order'],
    ['channel_binding=require', 'not supported'],
    ['gssencmode=require', 'not supported'],
  ])('parseOptions() refuses ?%s with a hint', (parameter, hint) => {
    const message = refusal(`${url}?${parameter}`)
    expect(message).toContain(`Cannot use "${parameter.split('=')[0]}" in the URL`)
    expect(message).toContain(hint)
    expect(message).not.toContain('hush')
  })

  test('parseOptions() goes without what nobody insists on', () => {
    expect(parseOptions(`${url}?channel_binding=prefer&gssencmode=disable&options=`, {}, none).connection).toEqual({})
    expect(refusal(url, {}, { PGCHANNELBINDING: 'require' })).toContain('of the environment')
  })

  test('parseOptions() takes the switches of postgres.js from the URL', () => {
    const text = `${url}?prepare=false&fetch_types=false&debug=true`
    const settings = parseOptions(text, {}, none)
    expect(settings).toMatchObject({ connection: {}, fetchTypes: false, session: { prepare: false, debug: true } })
    expect(parseOptions(text, { prepare: true, debug: false }, none).session).toEqual({ prepare: true, debug: false })
    expect(refusal(`${url}?prepare=sometimes`)).toContain('prepare must be true or false')
  })

  test('parseOptions() sends to the server what it does not know', () => {
    expect(parseOptions(`${url}?statement_timeout=5s&options=-c%20a.b%3Dc`, {}, none).connection).toEqual({
      statement_timeout: '5s',
      options: '-c a.b=c',
    })
  })
})

describe('parseOptions(), secrets', () => {
  const secret = 'hush-hush'
  const withSecret = `postgres://ann:${secret}@db/shop`

  test.each<[string, object, Record<string, string>]>([
    [`${withSecret}?schema=a`, {}, none],
    [`${withSecret}?password=${secret}&pool_timeout=1`, {}, none],
    [`postgres://ann:${secret}@db:5432:5432/shop`, {}, none],
    [`postgres://ann:${secret}@a,b:x/shop`, {}, none],
    [`postgres://ann:${secret}@a,[b]/shop?sslpassword=${secret}`, {}, none],
    [`postgres://ann:${secret}%00@a/shop`, {}, none],
    [withSecret, { password: { secret } }, none],
    [withSecret, { password: `${secret}\0` }, none],
    [withSecret, { pass: secret }, none],
    [withSecret, { connection: { password: secret } }, none],
    [withSecret, { connection: { search_path: { secret } } }, none],
    [withSecret, { ssl: [secret] }, none],
    [withSecret, { ssl: { passphrase: secret, key: secret }, host: '' }, none],
    [withSecret, { maxx: secret }, none],
    ['', {}, { PGPASSWORD: secret }],
    ['postgres://db', {}, { PGPASSWORD: `${secret}\0`, PGUSER: 'ann' }],
  ])('parseOptions() shows no password where it refuses %#', (text, options, env) => {
    const error = thrown(() => parseOptions(text, options, env))
    expect(error.code).toBe('ERR_OPTION')
    expect(`${error.message} ${error.stack} ${inspect(error, { depth: 9, showHidden: true })}`).not.toContain(secret)
  })
})

describe('parseOptions(), the environment', () => {
  test('parseOptions() reads PGUSERNAME, PGAPPNAME, PGOPTIONS and PGCONNECT_TIMEOUT', () => {
    const env = { PGUSERNAME: 'eve', PGUSER: 'ann', PGAPPNAME: 'shop', PGOPTIONS: '-c a.b=c', PGCONNECT_TIMEOUT: '2' }
    const settings = parseOptions('postgres://db', {}, env)
    expect(settings).toMatchObject({ user: 'eve', pool: { connectTimeoutMs: 2_000 } })
    expect(settings.connection).toEqual({ application_name: 'shop', options: '-c a.b=c' })
    expect(parseOptions('postgres://db', { connectTimeoutMs: 5 }, env).pool.connectTimeoutMs).toBe(5)
    expect(parseOptions('postgres://db', {}, { ...env, PGCONNECT_TIMEOUT: '0' }).pool).toEqual({})
    expect(refusal(url, {}, { PGCONNECT_TIMEOUT: 'soon' })).toContain('PGCONNECT_TIMEOUT')
    expect(parseOptions('postgres://db?application_name=url', {}, env).connection['application_name']).toBe('url')
  })

  test('parseOptions() leaves variables alone that it does not know', () => {
    const env = { PGMAX: '5', PGIDLE_TIMEOUT: '1', PGPREPARE: 'false', PGUSER: 'ann' }
    expect(parseOptions(url, {}, env)).toMatchObject({ pool: {}, session: { prepare: true } })
  })
})
