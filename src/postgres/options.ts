import { userInfo } from 'node:os'
import type postgres from 'postgres'
import { optionRangeError, optionTypeError } from '../errors.ts'
import type { OptionError } from '../errors.ts'
import { hookNames, poolOptionNames } from '../options.ts'
import type { PoolOptions } from '../options.ts'
import type { CloseReason } from '../stats.ts'
import type { Address } from './dial.ts'
import type { PostgresSql, Types } from './sql.ts'
import { parseUrl } from './url.ts'

type PostgresJsOptions<T extends Types> = Pick<
  Partial<postgres.Options<T>>,
  'types' | 'transform' | 'debug' | 'onnotice' | 'onparameter' | 'connection' | 'prepare' | 'fetch_types'
>

/** Which session a hook is about, as the server knows it. */
export interface HookSession {
  /** The server's number for the session, as in `pg_stat_activity` and in the server's log. */
  readonly pid: number
  /** The end of its `application_name`, and the `connection` of the pool's events. */
  readonly tag: string
}

/**
 * What a pool does with its sessions at the turns of their lives. A hook's `sql` runs queries on the one session, as a
 * lease's does, until the hook has returned. Functions do not cross threads: hooks are for pools that are made in the
 * thread they serve, and the options of a service refuse them with `ERR_OPTION`.
 *
 * @example
 * ```ts
 * import { createPool } from 'millpond/postgres'
 *
 * const pool = createPool(process.env.DATABASE_URL, {
 *   onOpen: async (sql, { again }) => {
 *     await sql`set search_path = app, public`
 *     await sql`set statement_timeout = '30s'`
 *     // Prepared statements outlive the reset between two leases, settings do not.
 *     if (!again) await sql.unsafe('prepare answer as select 42 as answer')
 *   },
 *   onAcquire: async (sql) => {
 *     const [row] = await sql`select pg_is_in_recovery() as standby`
 *     return !row?.['standby'] // false: the next one, please
 *   },
 *   onClose: ({ pid }, reason) => console.log(`session ${pid} closed: ${reason}`),
 * })
 * await pool.use(async (sql) => {
 *   await sql`set statement_timeout = '2s'` // undone on release: then it is 30 s again
 *   await sql`execute answer`
 * })
 * await pool.close()
 * ```
 */
export interface PostgresHooks<T extends Types = {}> {
  /**
   * Configures a new session before anybody gets it, within `connectTimeoutMs`. If it throws or rejects, or leaves a
   * transaction, a COPY or a cursor open, the connection is closed, and that counts as a failure to connect.
   *
   * What it sets is no lease's: it costs no reset. Where a lease has left something behind, the reset undoes these
   * settings as well, so it is called again, with `again: true`, within that release's `resetTimeoutMs`; if it fails
   * then, the connection is closed (`'reset failed'`). With `reset: 'full'` that is each release, with `'none'` none.
   * A temporary table or a lock that it makes is shared by all leases of the session.
   */
  onOpen?: (sql: PostgresSql<T>, session: HookSession & { readonly again: boolean }) => unknown
  /**
   * Looks at a session before it is lent, within the acquire's deadline. False, throwing or rejecting closes it; the
   * acquire goes on with the next one. What it does to the session counts as the lease's, and is undone with it; where
   * the acquire has given up meanwhile, it is called for the next one with nothing undone in between.
   *
   * `tryAcquire()` lends nothing to a hook that returns a promise.
   */
  onAcquire?: (sql: PostgresSql<T>, session: HookSession) => unknown
  /**
   * Looks at a session that was released and cleaned, within `resetTimeoutMs`. False, throwing or rejecting closes it.
   * What it leaves in the session is undone, unless `reset` is `'none'`.
   */
  onRelease?: (sql: PostgresSql<T>, session: HookSession) => unknown
  /** Hears of a session whose end is certain. What it throws or rejects with becomes an event. */
  onClose?: (session: HookSession, reason: CloseReason) => unknown
}

/** Options of a PostgreSQL pool: those of every pool, its hooks, and those of postgres.js that concern a session. */
export interface PostgresPoolOptions<T extends Types = {}> extends PoolOptions, PostgresHooks<T>, PostgresJsOptions<T> {
  /** In place of the URL's part, or of `PGHOST`. A directory (`/run/postgresql`) means the socket in it. */
  host?: string
  /** In place of the URL's part, or of `PGPORT`. */
  port?: number
  /** In place of the URL's part, or of `PGUSER`. */
  user?: string
  /** In place of the URL's part, or of `PGDATABASE`. */
  database?: string
  /** In place of the URL's part, or of `PGPASSWORD`. A function is called for each connection. */
  password?: Password
  /**
   * Whether sessions ask the server to notice a dead client by itself, so that it does not go on counting it:
   * `client_connection_check_interval` and `tcp_keepalives_*` as startup parameters. `'auto'` leaves them out for
   * good where the server refuses them (PostgreSQL before 14, poolers); `false` never sends them.
   * @default 'auto'
   */
  serverChecks?: 'auto' | false
  /**
   * Whether queries on `pool.sql` that are made inside a transaction or a session join it, and `pool.transaction()` is a
   * savepoint there. Without, each of them has a connection of its own.
   * @default true
   */
  ambient?: boolean
}

export type Password = string | (() => string | Promise<string>)

/** Options taken apart, with every default filled in. */
export interface PostgresSettings {
  readonly address: Address
  readonly user: string
  readonly database: string
  readonly password: Password
  /** Startup parameters. */
  readonly connection: Readonly<Record<string, string>>
  readonly serverChecks: 'auto' | false
  readonly ambient: boolean
  readonly fetchTypes: boolean
  /** What goes to postgres.js as it is. */
  readonly session: Readonly<
    Pick<Partial<postgres.Options<Types>>, 'types' | 'transform' | 'debug' | 'onnotice' | 'onparameter'>
  > & { readonly prepare: boolean }
  /** `host:port/database`, for people and as the name under which pools of this server find each other. */
  readonly serverName: string
  readonly hooks: PostgresHooks
  /** What the generic pool gets. */
  readonly pool: PoolOptions
}

type Env = Readonly<Record<string, string | undefined>>

const own = ['host', 'port', 'user', 'database', 'password', 'serverChecks', 'ambient']
const passedOn = ['types', 'transform', 'debug', 'onnotice', 'onparameter', 'connection', 'prepare', 'fetch_types']
const known: readonly string[] = [...own, ...passedOn, ...hookNames]
const aliases: Readonly<Record<string, string>> = {
  hostname: 'host',
  path: 'host',
  username: 'user',
  db: 'database',
  dbname: 'database',
  pass: 'password',
}

/** What the pool does itself, or postgres.js must not do here; with what to say instead. */
const refused: Readonly<Record<string, string>> = {
  max_lifetime: 'use maxLifetimeMs',
  idle_timeout: 'use idleTimeoutMs',
  timeout: 'use idleTimeoutMs',
  connect_timeout: 'use connectTimeoutMs',
  connectTimeout: 'use connectTimeoutMs',
  connectionTimeoutMillis: 'use acquireTimeoutMs',
  idleTimeoutMillis: 'use idleTimeoutMs',
  pool_max: 'use max',
  connection_limit: 'use max',
  pool_timeout: 'use acquireTimeoutMs',
  keep_alive: 'use serverChecks',
  backoff: 'the pool backs off by itself',
  socket: 'the pool dials by itself',
  max_pipeline: 'a connection answers one query at a time',
  onclose: 'subscribe to the channel "millpond:close"',
  onnotify: 'it is not supported yet',
  publications: 'it is not supported',
  no_subscribe: 'it is not supported',
  no_prepare: 'use prepare: false',
  target_session_attrs: 'it is not supported yet',
}

const ofTls = ['ssl', 'sslmode', 'sslnegotiation', 'sslrootcert', 'sslcert', 'sslkey', 'sslpassword', 'sslcrl']

/**
 * Checks a URL and options, and takes them apart. The URL wins over the environment (`PGHOST`, `PGPORT`, `PGUSER`,
 * `PGDATABASE`, `PGPASSWORD`, `PGAPPNAME`), options win over the URL.
 *
 * Throws a `TypeError` or `RangeError` with `code: 'ERR_OPTION'`, in whose text there is no password.
 */
export function parseOptions<T extends Types>(
  url: string | URL | undefined,
  options: PostgresPoolOptions<T> = {},
  env: Env = process.env,
): PostgresSettings {
  const pool: Record<string, unknown> = {}
  const given: Record<string, unknown> = {}
  for (const [key, value] of Object.entries(options)) {
    if (value === undefined) continue
    check(key, value, `"${key}"`)
    if (poolOptionNames.has(key)) pool[key] = value
    else if (known.includes(key)) given[key] = value
    else if (!ofTls.includes(key)) throw unknown(key)
  }
  const parts = urlParts(url, given['host'] !== undefined || isSet(env['PGHOST']))
  const { parameters, ...rest } = parts
  for (const [key, value] of Object.entries(parameters)) check(key, value, `"${key}" in the URL`)
  if (env['PGSSLMODE'] && !withoutTls.has(env['PGSSLMODE'])) check('sslmode', env['PGSSLMODE'], 'PGSSLMODE')

  const { host: hostParameter, port: portParameter, user: userParameter, password: passwordParameter } = parameters
  const { dbname, database: databaseParameter } = parameters
  const host = text('host', given['host']) ?? firstSet(hostParameter, rest.host, env['PGHOST']) ?? 'localhost'
  const port = portOf(given['port'] ?? firstSet(portParameter, rest.port, env['PGPORT']) ?? 5432)
  const user = text('user', given['user']) ?? firstSet(userParameter, rest.user, env['PGUSER']) ?? systemUser()
  const database =
    text('database', given['database']) ?? firstSet(databaseParameter, dbname, rest.database, env['PGDATABASE']) ?? user
  const password = passwordOf(given['password']) ?? firstSet(passwordParameter, rest.password, env['PGPASSWORD']) ?? ''
  if (host.includes(',')) throw optionTypeError('host', `Cannot use several hosts ("${host}"): not supported yet.`)
  const address: Address = host.startsWith('/') ? { path: `${host}/.s.PGSQL.${port}` } : { host, port }

  return {
    address,
    user,
    database,
    password,
    connection: startupParameters(given['connection'], parameters, env),
    serverChecks: serverChecksOf(given['serverChecks']),
    ambient: flag('ambient', given['ambient'], true),
    fetchTypes: flag('fetch_types', given['fetch_types'] ?? parameters['fetch_types'], true),
    session: {
      prepare: flag('prepare', given['prepare'] ?? parameters['prepare'], true),
      ...objectOrNothing(given, 'types'),
      ...objectOrNothing(given, 'transform'),
      ...functionOrNothing(given, 'debug', [true, false]),
      ...functionOrNothing(given, 'onnotice'),
      ...functionOrNothing(given, 'onparameter'),
    },
    hooks: Object.assign({}, ...hookNames.map((name) => functionOrNothing(given, name))) as PostgresHooks,
    serverName: `${host.includes(':') ? `[${host}]` : host}:${port}/${database}`,
    pool,
  }
}

function urlParts(url: unknown, hasHost: boolean): ReturnType<typeof parseUrl> {
  if (url instanceof URL) return parseUrl(url.href)
  if (typeof url === 'string' && url !== '') return parseUrl(url)
  if (url !== undefined && url !== '' && url !== null) {
    throw optionTypeError(
      'url',
      `url must be a string or a URL: got ${typeof url === 'object' ? 'an object' : typeof url}.`,
    )
  }
  if (hasHost) return parseUrl('postgres://')
  throw optionTypeError(
    'url',
    'url must name a server (postgres://user:password@host:port/database), or PGHOST must be set: got neither. Is DATABASE_URL set?',
  )
}

/** Refuses what is known to be wrong here, by option or by URL. */
function check(key: string, value: unknown, name: string): void {
  const instead = refused[key]
  if (instead) throw optionTypeError(key, `Cannot use ${name}: ${instead}.`)
  const alias = aliases[key]
  if (alias && name === `"${key}"`) throw optionTypeError(key, `Unknown option ${name}: use ${alias}.`)
  if (ofTls.includes(key) && !(typeof value === 'string' ? withoutTls.has(value) : value === false)) {
    throw optionTypeError(key, `Cannot use ${name}: TLS is not supported yet. Only "disable" is.`)
  }
  if (poolOptionNames.has(key) && name !== `"${key}"`) {
    throw optionTypeError(key, `Cannot use ${name}: it is an option of the pool, give it to createPool.`)
  }
}

const withoutTls: ReadonlySet<string> = new Set(['disable', 'false'])

function unknown(key: string): OptionError {
  const allowed = [...poolOptionNames, ...known].join(', ')
  return optionTypeError(key, `Unknown option "${key}": allowed are ${allowed}.`)
}

const notForTheServer: ReadonlySet<string> = new Set([
  'host',
  'port',
  'user',
  'password',
  'dbname',
  'database',
  'prepare',
  'fetch_types',
  ...ofTls,
])

/** postgres.js's way: whatever the URL has beyond is a parameter of the session. */
function startupParameters(connection: unknown, parameters: Record<string, string>, env: Env): Record<string, string> {
  const all: Record<string, string> = {}
  if (isSet(env['PGAPPNAME'])) all['application_name'] = env['PGAPPNAME']
  for (const [key, value] of Object.entries(parameters)) if (!notForTheServer.has(key)) all[key] = value
  if (connection === undefined) return all
  if (typeof connection !== 'object' || connection === null) {
    throw optionTypeError('connection', 'connection must be an object of startup parameters.')
  }
  for (const [key, value] of Object.entries(connection)) {
    if (value === undefined || value === null) continue
    if (typeof value !== 'string' && typeof value !== 'number' && typeof value !== 'boolean') {
      throw optionTypeError(`connection.${key}`, `connection.${key} must be a string, a number or a boolean.`)
    }
    all[key] = String(value)
  }
  return all
}

function firstSet(...values: (string | undefined)[]): string | undefined {
  return values.find(isSet)
}

function isSet(value: string | undefined): value is string {
  return value !== undefined && value !== ''
}

function text(option: string, value: unknown): string | undefined {
  if (value === undefined) return undefined
  if (typeof value !== 'string' || value === '')
    throw optionTypeError(option, `${option} must be a string that is not empty.`)
  return value
}

function portOf(value: unknown): number {
  const port = typeof value === 'string' && /^\d+$/.test(value) ? Number(value) : value
  if (typeof port !== 'number') throw optionTypeError('port', 'port must be a number.')
  if (!Number.isInteger(port) || port < 1 || port > 65_535) {
    throw optionRangeError('port', `port must be a whole number from 1 to 65535: got ${port}.`)
  }
  return port
}

function passwordOf(value: unknown): Password | undefined {
  if (value === undefined || typeof value === 'string') return value
  if (typeof value === 'function') return value as Password
  throw optionTypeError('password', 'password must be a string or a function that returns one.')
}

function serverChecksOf(value: unknown): 'auto' | false {
  if (value === undefined || value === 'auto') return 'auto'
  if (value === false) return false
  throw optionTypeError('serverChecks', `serverChecks must be 'auto' or false.`)
}

function flag(option: string, value: unknown, fallback: boolean): boolean {
  if (value === undefined) return fallback
  if (value === true || value === 'true') return true
  if (value === false || value === 'false' || value === 'disable') return false
  throw optionTypeError(option, `${option} must be true or false.`)
}

function objectOrNothing(given: Record<string, unknown>, option: string): Record<string, unknown> {
  const value = given[option]
  if (value === undefined) return {}
  if (typeof value !== 'object' || value === null) throw optionTypeError(option, `${option} must be an object.`)
  return { [option]: value }
}

function functionOrNothing(
  given: Record<string, unknown>,
  option: string,
  also: readonly unknown[] = [],
): Record<string, unknown> {
  const value = given[option]
  if (value === undefined) return {}
  if (typeof value !== 'function' && !also.includes(value))
    throw optionTypeError(option, `${option} must be a function.`)
  return { [option]: value }
}

function systemUser(): string {
  try {
    return userInfo().username
  } catch {
    throw optionTypeError('user', 'user must be set: the URL, PGUSER and the operating system name none.')
  }
}
