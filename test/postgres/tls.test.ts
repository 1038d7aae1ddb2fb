import { createServer } from 'node:tls'
import type { AddressInfo } from 'node:net'
import { execFile } from 'node:child_process'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { inspect, promisify } from 'node:util'
import postgres from 'postgres'
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { startServer } from '../../bench/support/embedded.ts'
import type { EmbeddedServer } from '../../bench/support/embedded.ts'
import { ConnectError } from '../../src/errors.ts'
import type { PostgresPoolOptions } from '../../src/postgres/options.ts'
import { PostgresPool } from '../../src/postgres/pool.ts'
import { selfSigned } from '../support/certificate.ts'
import { DriverUnderTest, rejection } from '../support/connection.ts'
import { until } from '../support/database.ts'
import { scriptedServer } from '../support/scripted-server.ts'

const good = selfSigned(['localhost', '127.0.0.1'])
const other = selfSigned(['localhost', '127.0.0.1'])

let server: EmbeddedServer
let admin: postgres.Sql

/** The server keeps its files itself: it may be another user's. Sessions that begin later see them. */
async function present({ cert, key }: { cert: string; key: string }): Promise<void> {
  for (const [name, text] of [
    ['server.crt', cert],
    ['server.key', key],
  ] as const) {
    const base64 = Buffer.from(text).toString('base64')
    await admin.unsafe(`copy (select '${base64}') to program 'umask 077; base64 -d > ${name}'`)
  }
  await admin.unsafe(`select pg_reload_conf()`)
}

/** Puts lines before those that say who may log in, and how. */
async function allow(...lines: readonly string[]): Promise<void> {
  const path = String((await admin`show hba_file`)[0]?.['hba_file'])
  const rows = lines.map((line) => `('${line}')`).join(', ')
  await admin.unsafe(`copy (values ${rows}) to program 'cat - ${path} > hba.new; mv hba.new ${path}'`)
  await admin.unsafe('select pg_reload_conf()')
}

beforeAll(async () => {
  server = await startServer({ log_connections: 'off' })
  admin = postgres(server.url, { max: 1, onnotice: () => undefined })
  await present(good)
  await admin.unsafe('alter system set ssl = on')
  await admin.unsafe('select pg_reload_conf()')
  await until(async () => (await admin`show ssl`)[0]?.['ssl'] === 'on')
})
afterAll(async () => {
  await admin.end()
  await server.stop()
})

async function open(options: PostgresPoolOptions, url = server.url): Promise<{ secure: boolean; version: string }> {
  const under = new DriverUnderTest(url, options)
  const connection = await under.open()
  const [row] = await connection.ask('select ssl, version from pg_stat_ssl where pid = pg_backend_pid()')
  await under.close(connection)
  return { secure: row?.['ssl'] === true || row?.['ssl'] === 't', version: String(row?.['version']) }
}

async function openError(options: PostgresPoolOptions, url = server.url, timeoutMs = 5_000): Promise<ConnectError> {
  const error = await rejection(new DriverUnderTest(url, options).open('failing', timeoutMs))
  if (!(error instanceof ConnectError)) throw error
  expect(inspect(error, { depth: 9, showHidden: true })).not.toContain(server.password)
  return error
}

/** A server that is none. */
const at = (port: number): string => `postgres://ann:hush@127.0.0.1:${port}/shop`

const direct = { sslnegotiation: 'direct' } as const

describe('TLS', () => {
  test.each<[string, PostgresPoolOptions, boolean]>([
    ['ssl: false', { ssl: false }, false],
    ["ssl: 'require'", { ssl: 'require' }, true],
    ["ssl: 'prefer'", { ssl: 'prefer' }, true],
    ["ssl: 'allow'", { ssl: 'allow' }, true],
    ['an object that trusts everybody', { ssl: { rejectUnauthorized: false } }, true],
    ['an object with the certificate', { ssl: { ca: good.cert } }, true],
    ['the same for a name', { ssl: { ca: good.cert }, host: 'localhost' }, true],
    ['an object with another name', { ssl: { ca: good.cert, servername: 'localhost' } }, true],
    ['direct negotiation', { ssl: 'require', ...direct }, true],
    ['direct negotiation with the certificate', { ssl: { ca: good.cert }, ...direct }, true],
  ])('Opener.open() connects with %s', async (_, options, secure) => {
    expect((await open(options)).secure).toBe(secure)
  })

  test('Opener.open() takes TLS from the URL', async () => {
    expect((await open({}, `${server.url}?sslmode=require`)).version).toMatch(/^TLSv1/)
    expect((await open({}, `${server.url}?sslmode=require&sslnegotiation=direct`)).secure).toBe(true)
    expect((await open({}, `${server.url}?ssl=prefer`)).secure).toBe(true)
  })

  test.each<[string, PostgresPoolOptions]>([
    ['ssl: true', { ssl: true }],
    ["ssl: 'verify-full'", { ssl: 'verify-full' }],
    ["ssl: 'verify-ca'", { ssl: 'verify-ca' }],
    ['an empty object', { ssl: {} }],
    ['somebody else to trust', { ssl: { ca: other.cert } }],
    ['direct negotiation', { ssl: true, ...direct }],
    ['a name that is not in the certificate', { ssl: { ca: good.cert, servername: 'db.example' } }],
  ])('Opener.open() rejects for good where a certificate is not accepted: %s', async (_, options) => {
    const error = await openError(options)
    expect(error.message).toContain('the certificate of the server was not accepted')
    expect(error).toMatchObject({ retryable: false, doubtful: false })
  })

  test('Opener.open() rejects for good where the options in ssl cannot be used, and shows none of them', async () => {
    for (const ssl of [
      { key: 'hush-hush', cert: 'hush-hush' },
      { key: good.key, cert: other.cert },
      { ciphers: 'none' },
    ]) {
      const error = await openError({ ssl })
      expect(error.message).toContain('the options in ssl cannot be used')
      expect(error).toMatchObject({ retryable: false, doubtful: false })
      expect(inspect(error, { depth: 9, showHidden: true })).not.toMatch(/hush-hush|PRIVATE KEY/)
    }
  })

  test('Opener.open() checks the address where there is no name, not "localhost"', async () => {
    await present(selfSigned(['localhost']))
    onTestFinished(() => present(good))
    const error = await openError({ ssl: { rejectUnauthorized: true, ca: good.cert } })
    expect(error.retryable).toBe(false)
    const named = selfSigned(['localhost'])
    await present(named)
    await until(async () => (await rejection(open({ ssl: { ca: named.cert } }))).message.includes('IP'))
    expect((await open({ ssl: { ca: named.cert }, host: 'localhost' })).secure).toBe(true)
  })

  test('Opener.open() rejects an expired certificate for good', async () => {
    const old = selfSigned(['127.0.0.1'], { days: -1 })
    await present(old)
    onTestFinished(() => present(good))
    await until(async () => (await openError({ ssl: { ca: old.cert } })).message.includes('expired'))
    expect(await openError({ ssl: { ca: old.cert } })).toMatchObject({ retryable: false, doubtful: false })
  })

  test('Opener.open() says what may help where the server wants TLS', async () => {
    await admin.unsafe(`create role private login password 'p'`)
    await allow('hostnossl all private all reject')
    await until(
      async () =>
        (await rejection(open({ user: 'private', password: 'p' }).then(() => Promise.reject(new Error('in')))))
          .message !== 'in',
    )
    const error = await openError({ user: 'private', password: 'p' })
    expect(error.message).toContain("set ssl or sslmode to 'require'")
    expect(error.retryable).toBe(false)
    expect((await open({ user: 'private', password: 'p', ssl: 'require' })).secure).toBe(true)
  })

  test('Opener.open() uses no TLS over a unix socket, whatever ssl says', async () => {
    const { user, password, socketDirectory, port } = server
    const url = `postgres://${user}:${password}@/postgres?host=${socketDirectory}&port=${port}&sslmode=verify-full`
    expect((await open({}, url)).secure).toBe(false)
    expect((await open({ path: `${socketDirectory}/.s.PGSQL.${port}` })).secure).toBe(false)
  })

  test('a session over TLS ends with evidence, each time, and its queries can be cancelled', async () => {
    const under = new DriverUnderTest(server.url, { ssl: 'require' })
    for (let i = 0; i < 20; i++) await under.close(await under.open())
    const connection = await under.open()
    const running = rejection(connection.ask('select pg_sleep(60)'))
    await until(
      async () =>
        (
          await admin`select 1 from pg_stat_activity where query like '%sleep(60)' and state = 'active' and pid <> pg_backend_pid()`
        ).length === 1,
    )
    connection.cancelAll()
    expect((await running).code).toBe('57014')
    await under.close(connection)
    const terminated = await under.open()
    const lost = new Promise((resolve) => {
      terminated.onLost(resolve)
    })
    await admin`select pg_terminate_backend(${terminated.identity.pid})`
    expect(await lost).toMatchObject({ code: '57P01' })
    await under.close(terminated)
  })

  test('a pool over TLS moves much data', async () => {
    await using pool = new PostgresPool(`${server.url}?sslmode=require`, { max: 4 })
    const texts = await Promise.all(
      Array.from({ length: 40 }, async (_, i) => {
        const [row] = await pool.sql`select repeat(${String(i % 10)}, 300000) as text, ${'x'.repeat(100_000)} as back`
        return `${String(row?.['text']).slice(-1)}${String(row?.['text']).length}${String(row?.['back']).length}`
      }),
    )
    expect(texts).toEqual(texts.map((_, i) => `${i % 10}300000100000`))
  })
})

describe('ssl, as postgres.js means it', () => {
  const untrusting = { rejectUnauthorized: false }
  const values = {
    false: false,
    allow: 'allow',
    prefer: 'prefer',
    require: 'require',
    true: true,
    'verify-full': 'verify-full',
    'an empty object': {},
    'an object that trusts everybody': untrusting,
    'verify-ca': 'verify-ca',
    'direct, require': 'require',
    'direct, verify-full': 'verify-full',
  }
  const root = fileURLToPath(new URL('../..', import.meta.url))
  let folder: string
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'tls-'))
    const localhost = selfSigned(['localhost'])
    await writeFile(join(folder, 'ca.pem'), localhost.cert)
    await present(localhost)
    await until(async () => (await rejection(open({ ssl: { ca: localhost.cert } }))).message.includes('IP'))
  })
  afterAll(async () => {
    await present(good)
    await rm(folder, { recursive: true })
  })

  /** What comes of each value, in a process that trusts the server's certificate or not: whether there is TLS, or why not. */
  async function outcomes(from: string, host: string, trusts: boolean): Promise<Record<string, unknown>> {
    const program = `
      import postgres from '${from}'
      const outcomes = {}
      for (const [name, ssl] of Object.entries(${JSON.stringify(values)})) {
        const sslnegotiation = name.startsWith('direct') ? 'direct' : null
        const sql = postgres(process.env.URL, { host: '${host}', ssl, sslnegotiation, max: 1, backoff: false })
        outcomes[name] = await sql\`select ssl from pg_stat_ssl where pid = pg_backend_pid()\`.then(
          ([row]) => row.ssl,
          (error) => error.code,
        )
        await sql.end({ timeout: 0 })
      }
      console.log(JSON.stringify(outcomes))
      process.exit()`
    const env = { ...process.env, URL: server.url, ...(trusts ? { NODE_EXTRA_CA_CERTS: join(folder, 'ca.pem') } : {}) }
    const words = ['--input-type=module', '-e', program]
    const { stdout } = await promisify(execFile)(process.execPath, words, { cwd: root, env, timeout: 30_000 })
    return JSON.parse(stdout) as Record<string, unknown>
  }

  const always = { false: false, allow: true, prefer: true, require: true, 'an object that trusts everybody': true }
  const self = 'DEPTH_ZERO_SELF_SIGNED_CERT'

  test.each([
    [
      'a certificate that nobody vouches for',
      'localhost',
      false,
      { true: self, 'verify-full': self, 'verify-ca': self, 'an empty object': self, 'direct, verify-full': self },
      {},
    ],
    [
      'a certificate for the name',
      'localhost',
      true,
      { true: true, 'verify-full': true, 'verify-ca': true, 'an empty object': true, 'direct, verify-full': true },
      {},
    ],
    [
      'a certificate for another name',
      '127.0.0.1',
      true,
      {
        true: 'ERR_TLS_CERT_ALTNAME_INVALID',
        'verify-full': 'ERR_TLS_CERT_ALTNAME_INVALID',
        'verify-ca': true,
        'an empty object': 'ERR_TLS_CERT_ALTNAME_INVALID',
        'direct, verify-full': 'ERR_TLS_CERT_ALTNAME_INVALID',
      },
      // It compares with "localhost" where it connects to an address.
      { true: true, 'verify-full': true, 'an empty object': true, 'direct, verify-full': true },
    ],
  ])('%s', async (_, host, trusts, expected, differs) => {
    const [theirs, ours] = await Promise.all([
      outcomes('postgres', host, trusts),
      outcomes('millpond/postgres', host, trusts),
    ])
    const all = { ...always, 'direct, require': true, ...expected }
    expect(ours).toEqual(all)
    expect(theirs).toEqual({ ...all, ...differs })
  })
})

describe('a login at a real server', () => {
  const methods = ['scram-sha-256', 'md5', 'password', 'trust'] as const

  test('Opener.open() logs in by every method that postgres.js knows, with TLS and without', async () => {
    await admin.unsafe(`set password_encryption = 'scram-sha-256'`)
    await allow(...methods.map((method) => `host all "by ${method}" all ${method}`))
    for (const method of methods) {
      await admin.unsafe(`set password_encryption = '${method === 'md5' ? 'md5' : 'scram-sha-256'}'`)
      await admin.unsafe(`create role "by ${method}" login password 'geheim, ü'`)
    }
    await until(async () => (await admin`select error from pg_hba_file_rules where error is not null`).length === 0)
    for (const method of methods) {
      for (const ssl of [false, 'require'] as const) {
        const under = new DriverUnderTest(server.url, { user: `by ${method}`, password: 'geheim, ü', ssl })
        const connection = await under.open()
        const [row] = await connection.ask(`select system_user as name`)
        expect(row).toEqual({ name: method === 'trust' ? null : `${method}:by ${method}` })
        await under.close(connection)
      }
      const wrong = openError({ user: `by ${method}`, password: 'wrong' })
      if (method === 'trust') expect((await rejection(wrong)).message).toBe('it did not reject')
      else expect(await wrong).toMatchObject({ retryable: false, doubtful: false, cause: { code: '28P01' } })
    }
  })
})

describe('TLS with servers that go wrong', () => {
  test.each<[string, Buffer, RegExp, boolean]>([
    ['no', Buffer.from('N'), /does not do TLS/, false],
    ['an error', Buffer.from('EFATAL: no\0'), /answered the request for TLS with an error/, true],
    ['more than it was asked for', Buffer.from('Sabc'), /more than it was asked for before TLS/, false],
    ['HTTP', Buffer.from('HTTP/1.1 400\r\n\r\n'), /is not a PostgreSQL server/, true],
    ['garbage in the handshake', Buffer.from('S'), /TLS handshake/, true],
  ])('Opener.open() rejects at once where the request is answered with %s', async (what, answer, words, retryable) => {
    await using fake = await scriptedServer(answer, Buffer.from('this is not TLS at all'))
    const startedAt = performance.now()
    const error = await openError({ ssl: 'require' }, at(fake.port), 2_000)
    expect(error.message).toMatch(words)
    expect(error, what).toMatchObject({ retryable, doubtful: false })
    expect(performance.now() - startedAt).toBeLessThan(1_500)
  })

  test("Opener.open() goes on without TLS where the server has none, with 'prefer' and 'allow'", async () => {
    for (const ssl of ['prefer', 'allow'] as const) {
      await using fake = await scriptedServer(Buffer.from('N'), (socket) => socket.end())
      const error = await openError({ ssl }, at(fake.port), 2_000)
      expect(error.message).toContain('the server closed the connection')
    }
  })

  test('Opener.open() rejects where the server closes instead of an answer, or of a handshake', async () => {
    await using closes = await scriptedServer((socket) => socket.end())
    expect((await openError({ ssl: 'require' }, at(closes.port))).message).toContain('closed the connection')
    await using leaves = await scriptedServer(Buffer.from('S'), (socket) => socket.end())
    expect((await openError({ ssl: 'require' }, at(leaves.port))).message).toContain('TLS handshake')
  })

  test.each<[string, readonly Buffer[], PostgresPoolOptions]>([
    ['does not answer the request', [], { ssl: 'require' }],
    ['does not shake hands', [Buffer.from('S')], { ssl: 'require' }],
    ['does not shake hands directly', [], { ssl: 'require', ...direct }],
  ])('Opener.open() leaves a server that %s at the deadline, without doubt', async (_, script, options) => {
    await using fake = await scriptedServer(...script)
    const startedAt = performance.now()
    const error = await openError(options, at(fake.port), 150)
    expect(error.message).toContain('did not complete the TLS handshake in time')
    // No session was ever asked for.
    expect(error).toMatchObject({ retryable: true, doubtful: false })
    expect(performance.now() - startedAt).toBeLessThan(1_000)
  })

  test('Opener.open() insists that a server which is asked directly knows what it is asked for', async () => {
    const web = createServer({ key: good.key, cert: good.cert }, () => undefined)
    await new Promise<void>((resolve) => {
      web.listen(0, '127.0.0.1', resolve)
    })
    onTestFinished(() => void web.close())
    const error = await openError({ ssl: 'require', ...direct }, at((web.address() as AddressInfo).port))
    expect(error.message).toContain('did not agree to speak PostgreSQL over TLS')
  })
})
