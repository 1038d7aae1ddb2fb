import { once } from 'node:events'
import { createServer } from 'node:net'
import type { AddressInfo } from 'node:net'
import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest'
import postgres from 'postgres'
import { createPool } from '../../src/postgres/pool.ts'
import { tcpServer } from '../support/connection.ts'
import type { TestDatabase } from '../support/database.ts'
import { createDatabase } from '../support/database.ts'
import { failure, millpond } from './command.ts'

let database: TestDatabase
const roles: string[] = []

beforeAll(async () => {
  database = await createDatabase()
})

afterAll(async () => {
  for (const role of roles) await database.admin.unsafe(`drop role ${role}`)
  await database.drop()
})

/** A role of its own, of which the server allows as many sessions as it is told. */
async function roleOf(limit: number): Promise<{ role: string; url: string }> {
  const role = `doctor_${randomUUID().slice(0, 8)}`
  await database.admin.unsafe(`create role ${role} login password 'not-to-be-seen' connection limit ${limit}`)
  roles.push(role)
  const { host, port } = database.server
  return { role, url: `postgres://${role}:not-to-be-seen@${host}:${port}/${database.name}` }
}

test('doctor: a limit that fits ends with 0, and the sum is shown as a table', async () => {
  const { role, url } = await roleOf(5)
  const { code, stdout, stderr } = await millpond(['doctor', url, '--limit', '5'])
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
  const { host, port } = database.server
  expect(stdout).toContain(`${host}:${port}/${database.name} as "${role}"\n`)
  expect(stdout).toMatch(/allowed +others now +left$/m)
  expect(stdout).toMatch(/^server: max_connections +100$/m)
  expect(stdout).toMatch(/^ +superuser_reserved_connections +-3$/m)
  expect(stdout).toMatch(/^ +for this role +97 +\d+ +\d+$/m)
  expect(stdout).toMatch(new RegExp(`^role "${role}" +5 +0 +5$`, 'm'))
  expect(stdout).toMatch(new RegExp(`^database "${database.name}" +no limit +0$`, 'm'))
  expect(stdout).toContain('A limit of 5 fits: 5 can be had now, 5 at the most.\n')
  expect(stdout).not.toContain('Lower the limit')
})

test('doctor: a limit that can never be had ends with 1, and says what to do', async () => {
  const { role, url } = await roleOf(5)
  const { code, stdout } = await millpond(['doctor', url, '-l', '6'])
  expect(code).toBe(1)
  expect(stdout).toContain('A limit of 6 can never be had: 5 at the most.\n')
  expect(stdout).toContain(`Lower the limit to 5, or \`alter role "${role}" connection limit 6\`.\n`)
})

test('doctor: a limit that others leave no room for ends with 1', async () => {
  const { url } = await roleOf(5)
  const sql = postgres(url, { max: 1 })
  onTestFinished(() => sql.end())
  await sql`select 1`
  const { code, stdout } = await millpond(['doctor', url, '--limit', '5'])
  expect(code).toBe(1)
  expect(stdout).toContain('A limit of 5 is tight: 4 can be had now, 5 at the most.\n')
  expect(stdout).toContain('wait until the others have left')
})

test('doctor: tells which of the others are of millpond: perhaps they are the very service', async () => {
  const { role, url } = await roleOf(5)
  await using pool = createPool(url, { min: 3, max: 3, limit: { name: role, connections: 4 } })
  await pool.open()
  const { code, stdout } = await millpond(['doctor', url, '--limit', '4'])
  expect(code).toBe(1)
  expect(stdout).toMatch(/Of the others, \d+ are connections of millpond \(3 of this role, 3 on this database\)\./)
  expect(stdout).toContain('they count twice')
})

test('doctor: without a limit, whether there is room for one connection at all', async () => {
  const { url } = await roleOf(2)
  const { code, stdout } = await millpond(['doctor'], { DATABASE_URL: url })
  expect(code).toBe(0)
  expect(stdout).toContain('A limit of 1 fits: 2 can be had now, 2 at the most.\n')
})

test('doctor: a superuser is not bound by what is reserved', async () => {
  const { code, stdout } = await millpond(['doctor', database.url, '--limit', '101'])
  expect(code).toBe(1)
  expect(stdout).toMatch(/^ +for a superuser +100 /m)
  expect(stdout).not.toContain('superuser_reserved_connections')
})

test('doctor --json prints the same as JSON, and nothing else', async () => {
  const { role, url } = await roleOf(5)
  const misfit = await millpond(['doctor', url, '--limit', '6', '--json'])
  expect(misfit).toMatchObject({ code: 1, stderr: '' })
  const { host, port } = database.server
  expect(JSON.parse(misfit.stdout)).toMatchObject({
    server: `${host}:${port}/${database.name}`,
    fits: 'no',
    limit: 6,
    most: 5,
    room: 5,
    numbers: { maxConnections: 100, role, roleLimit: 5, database: database.name, others: { role: 0 }, proxy: false },
    sum: expect.stringContaining('left for a limit of 6'),
    advice: [expect.stringContaining('Lower the limit to 5')],
    millpond: { role: 0, database: 0 },
  })
  expect(await millpond(['doctor', url, '--limit', '5', '--json'])).toMatchObject({ code: 0, stderr: '' })
})

test('doctor: the parts of an address may come from the environment', async () => {
  const { role } = await roleOf(3)
  const { host, port } = database.server
  const env = {
    PGHOST: host,
    PGPORT: String(port),
    PGUSER: role,
    PGPASSWORD: 'not-to-be-seen',
    PGDATABASE: database.name,
  }
  const { code, stdout } = await millpond(['doctor', '--limit', '3'], env)
  expect(code).toBe(0)
  expect(stdout).toContain(`as "${role}"`)
})

test('doctor: leaves no session behind', async () => {
  const { role, url } = await roleOf(5)
  await millpond(['doctor', url])
  const [row] = await database.admin`select count(*)::int as count from pg_stat_activity where usename = ${role}`
  expect(row).toEqual({ count: 0 })
})

test('doctor: a server that is not there ends with 2 and the cause', async () => {
  const free = createServer().listen(0, '127.0.0.1')
  await once(free, 'listening')
  const { port } = free.address() as AddressInfo
  free.close()
  await once(free, 'close')
  const line = await failure(2, ['doctor', `postgres://app:not-to-be-seen@127.0.0.1:${port}/x`])
  expect(line).toContain(`Cannot connect to 127.0.0.1:${port} as "app" to database "x"`)
  expect(line).toContain('ECONNREFUSED')
})

test('doctor: a server that does not answer ends with 2 when its time is over', async () => {
  await using silent = await tcpServer(() => {})
  const url = `postgres://app:not-to-be-seen@127.0.0.1:${silent.port}/x`
  expect(await failure(2, ['doctor', url, '--timeout-ms', '100'])).toContain('100 ms')
})

test('doctor: a server that has no room for its own connection ends with 2 and says so', async () => {
  const { url } = await roleOf(1)
  const sql = postgres(url, { max: 1 })
  onTestFinished(() => sql.end())
  await sql`select 1`
  expect(await failure(2, ['doctor', url])).toContain('(53300)')
})

test.each([
  ['no address at all', [], {}, 'Is DATABASE_URL set?'],
  ['something else than a URL', ['not-to-be-seen'], {}, 'Cannot read the url "***"'],
  ['a URL of something else', ['mysql://app:not-to-be-seen@localhost/x'], {}, '"mysql://app:***@localhost/x"'],
  ['a port that cannot be', ['postgres://app:not-to-be-seen@localhost:99999/x'], {}, '99999'],
  ['an unescaped password', ['postgres://app:p@ss:not-to-be-seen@localhost:x/y'], {}, '***@localhost'],
  ['a password in a parameter', ['mysql://localhost/x?password=not-to-be-seen'], {}, 'password=***'],
  ['a bad URL of the environment', [], { DATABASE_URL: 'x://app:not-to-be-seen@h' }, 'x://app:***@h'],
])('doctor: %s ends with 2', async (_, args, env, words) => {
  expect(await failure(2, ['doctor', ...args], env)).toContain(words)
})

test('doctor: a wrong password ends with 2, and with NODE_DEBUG the stack is shown, without any password', async () => {
  const { url } = await roleOf(5)
  const wrong = url.replace('not-to', 'is-not-to')
  expect(await failure(2, ['doctor', wrong])).toContain('password authentication failed')
  const { code, stderr } = await millpond(['doctor', wrong], { NODE_DEBUG: 'millpond' })
  expect(code).toBe(2)
  expect(stderr).toMatch(/^ +at /m)
})
