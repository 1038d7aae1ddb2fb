import { userInfo } from 'node:os'
import type postgres from 'postgres'
import { optionTypeError } from '../errors.ts'
import type { OptionError } from '../errors.ts'
import { hookNames, poolOptionNames, whole } from '../options.ts'
import type { PoolOptions } from '../options.ts'
import type { CloseReason } from '../stats.ts'
import { checkTimeout } from './deadlines.ts'
import { shownAddress } from './dial.ts'
import type { Address } from './dial.ts'
import { readEnvironment } from './environment.ts'
import type { Env, Environment } from './environment.ts'
import { insteadOf, insteadOfOption } from './foreign.ts'
import { addressesOf, parseHosts, parsePorts } from './hosts.ts'
import type { PostgresSql, Types } from './sql.ts'
import { tlsPolicy } from './ssl.ts'
import type { Ssl, SslNegotiation } from './ssl.ts'
import { isTarget, targets } from './target.ts'
import type { TargetSessionAttrs } from './target.ts'
import { parseUrl } from './url.ts'
import type { UrlParts } from './url.ts'

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
  /**
   * In place of the URL's part, or of `PGHOST`. A directory (`/run/postgresql`) means the socket in it. Several, as an
   * array or separated by commas, each with a port of its own if it has one (`'a:5432,b:5433'`), are tried in order
   * until one connects, within one `connectTimeoutMs`.
   */
  host?: string | readonly string[]
  /** In place of the URL's part, or of `PGPORT`: one for all hosts, or one for each. */
  port?: number | readonly number[]
  /** The file of a unix socket, in place of host and port. */
  path?: string
  /** In place of the URL's part, or of `PGUSER`. */
  user?: string
  /** In place of the URL's part, or of `PGDATABASE`. */
  database?: string
  /** In place of the URL's part, or of `PGPASSWORD`. A function is called for each connection, before it is dialed. */
  password?: Password
  /**
   * TLS, in place of the URL's `sslmode` or of `PGSSLMODE`. `true` and `'verify-full'` check the server's certificate
   * and name, `'verify-ca'` the certificate only, `'require'` neither; `'prefer'` and `'allow'` go without TLS where
   * the server has none. An object is for `tls.connect()`, which checks unless it says `rejectUnauthorized: false`.
   * @default false
   */
  ssl?: Ssl
  /**
   * How TLS begins: asked for in PostgreSQL's protocol, or directly, which saves a round trip (PostgreSQL 17 and
   * later).
   * @default 'postgres'
   */
  sslnegotiation?: SslNegotiation
  /**
   * Which servers will do, of several hosts above all. Asked of each new connection, which costs it a round trip.
   * @default 'any'
   */
  target_session_attrs?: TargetSessionAttrs
  /**
   * Whether sessions ask the server to notice a dead client by itself, so that it does not go on counting it:
   * `client_connection_check_interval` and `tcp_keepalives_*` as startup parameters. `'auto'` leaves them out for
   * good where the server refuses them (PostgreSQL before 14, poolers), and warns once; `true` insists; `false` never
   * sends them.
   * @default 'auto'
   */
  serverChecks?: 'auto' | boolean
  /**
   * For every query, from the moment it is run until its answer is complete: waiting for a connection, running, and the
   * reading of a cursor or the stream of a COPY. At the end it is cancelled and rejects with a `QueryTimeoutError`.
   * @default Infinity
   */
  queryTimeoutMs?: number
  /**
   * Whether the event `millpond:query` tells the text of a statement, without its parameters. Texts that were put
   * together by hand may hold what nobody should log.
   * @default false
   */
  queryText?: boolean
  /**
   * How many single queries may be on their way on one connection at the same time, from 1 to 100. Above 1, a query on
   * `pool.sql` that finds no free connection is sent behind another one, if it is a tagged template that reads or writes
   * rows and has run on that connection before: fewer connections do the same work, and a slow network costs less. Each
   * query keeps its own answer, error and deadline. But it has to wait for those before it, also for slow or blocked ones,
   * and is lost with them where the connection is.
   * @default 1
   */
  pipelining?: number
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
  /** The first of `addresses`. */
  readonly address: Address
  /** Where to connect, in the order in which they are tried. */
  readonly addresses: readonly Address[]
  readonly target: TargetSessionAttrs
  readonly user: string
  readonly database: string
  readonly password: Password
  /** Startup parameters. */
  readonly connection: Readonly<Record<string, string>>
  readonly serverChecks: 'auto' | boolean
  readonly ambient: boolean
  readonly queryTimeoutMs: number
  readonly queryText: boolean
  readonly pipelining: number
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

const own = [
  'host',
  'port',
  'path',
  'user',
  'database',
  'password',
  'serverChecks',
  'ambient',
  'queryTimeoutMs',
  'queryText',
  'pipelining',
]
const ofDial = ['ssl', 'sslnegotiation', 'target_session_attrs']
const passedOn = ['types', 'transform', 'debug', 'onnotice', 'onparameter', 'connection', 'prepare', 'fetch_types']
const known: readonly string[] = [...own, ...ofDial, ...passedOn, ...hookNames]

/**
 * Checks a URL and options, and takes them apart. The URL wins over the environment (see `environment.ts`), options win
 * over the URL.
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
    if (poolOptionNames.has(key)) pool[key] = value
    else if (known.includes(key)) given[key] = value
    else throw unknown(key)
  }
  const environment = readEnvironment(env)
  const hasHost = given['host'] !== undefined || given['path'] !== undefined || environment.hosts !== undefined
  const parts = urlParts(url, hasHost)
  const fromUrl = checked(parts.parameters, '" in the URL')
  const parameters = { ...checked(environment.parameters, '" of the environment'), ...fromUrl }
  if (environment.connectTimeoutMs !== undefined) pool['connectTimeoutMs'] ??= environment.connectTimeoutMs

  const addresses = addressesFrom({ given, fromUrl, parameters, parts, environment })
  const [address] = addresses
  if (!address) throw new Error('bug: no address')
  const user = text('user', given['user']) ?? fromUrl['user'] ?? parts.user ?? environment.user ?? systemUser()
  const database =
    text('database', given['database']) ??
    fromUrl['database'] ??
    fromUrl['dbname'] ??
    parts.database ??
    environment.database ??
    user
  const password = passwordOf(given['password']) ?? fromUrl['password'] ?? parts.password ?? environment.password ?? ''
  for (const [name, value] of Object.entries({ user, database, password })) withoutZero(name, value)

  return {
    address,
    addresses,
    target: targetOf(given['target_session_attrs'] ?? parameters['target_session_attrs']),
    user,
    database,
    password,
    connection: startupParameters(given['connection'], parameters),
    serverChecks: serverChecksOf(given['serverChecks']),
    ambient: flag('ambient', given['ambient'], true),
    queryText: flag('queryText', given['queryText'], false),
    pipelining: given['pipelining'] === undefined ? 1 : whole('pipelining', given['pipelining'], { from: 1, to: 100 }),
    queryTimeoutMs: checkTimeout('queryTimeoutMs', given['queryTimeoutMs']),
    fetchTypes: flag('fetch_types', given['fetch_types'] ?? parameters['fetch_types'], true),
    session: {
      prepare: flag('prepare', given['prepare'] ?? parameters['prepare'], true),
      ...objectOrNothing(given, 'types'),
      ...objectOrNothing({ transform: propertiesOf(given['transform']) }, 'transform'),
      ...(parameters['debug'] === undefined ? {} : { debug: flag('debug', parameters['debug'], false) }),
      ...functionOrNothing(given, 'debug', [true, false]),
      ...functionOrNothing(given, 'onnotice'),
      ...functionOrNothing(given, 'onparameter'),
    },
    hooks: Object.assign({}, ...hookNames.map((name) => functionOrNothing(given, name))) as PostgresHooks,
    serverName: `${addresses.map(shownAddress).join(',')}/${database}`,
    pool,
  }
}

function urlParts(url: unknown, hasHost: boolean): UrlParts {
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

interface Sources {
  readonly given: Readonly<Record<string, unknown>>
  readonly fromUrl: Readonly<Record<string, string>>
  readonly parameters: Readonly<Record<string, string>>
  readonly parts: UrlParts
  readonly environment: Environment
}

function addressesFrom({ given, fromUrl, parameters, parts, environment }: Sources): readonly Address[] {
  const ssl = given['ssl'] ?? parameters['ssl']
  const negotiation = given['sslnegotiation'] ?? parameters['sslnegotiation']
  const tls = tlsPolicy(ssl, { negotiation, name: given['ssl'] === undefined ? 'sslmode' : 'ssl' })
  const path = text('path', given['path'])
  if (path !== undefined) return [{ path }]
  const { host, port } = fromUrl
  const hosts = (given['host'] === undefined ? undefined : parseHosts('host', given['host'])) ??
    (host === undefined ? undefined : parseHosts('host', host)) ??
    parts.hosts ??
    environment.hosts ?? [{ name: 'localhost', port: undefined }]
  if (given['port'] !== undefined) {
    // It stands in place of what the URL says, but not of what the option `host` says.
    const bare = given['host'] === undefined ? hosts.map(({ name }) => ({ name, port: undefined })) : hosts
    return addressesOf(bare, parsePorts(given['port']), tls)
  }
  const others = given['host'] === undefined ? undefined : parts.hosts?.map((one) => one.port)
  const ports = port === undefined ? (portsOf(others) ?? environment.ports) : parsePorts(port)
  return addressesOf(hosts, ports, tls)
}

/** The URL's port, where an option names another host. Of several hosts it is not known which one's it would be. */
function portsOf(ports: readonly (number | undefined)[] | undefined): readonly number[] | undefined {
  return ports?.length === 1 && ports[0] !== undefined ? [ports[0]] : undefined
}

/** Refuses what would not be understood, and gives the parameters that are left one name each. */
function checked(parameters: Readonly<Record<string, string>>, where: string): Record<string, string> {
  const { sslmode, sslrootcert, ...others } = parameters
  const rest: Record<string, string> = others
  if (sslmode) rest['ssl'] = sslmode
  if (sslrootcert === 'system') rest['ssl'] = 'verify-full'
  else if (sslrootcert) rest['sslrootcert'] = sslrootcert
  for (const [key, value] of Object.entries(rest)) {
    const name = `"${key}${where}`
    const instead = insteadOf(key)
    if (instead) throw optionTypeError(key, `Cannot use ${name}: ${instead}.`)
    if (poolOptionNames.has(key)) {
      throw optionTypeError(key, `Cannot use ${name}: it is an option of the pool, give it to createPool.`)
    }
    if (key === 'channel_binding' || key === 'gssencmode') {
      // Both are offered by no client of Node; where they are not insisted on, nothing is lost.
      if (value === 'require') throw optionTypeError(key, `Cannot use ${name}: "require" is not supported.`)
      delete rest[key]
    } else if (value === '') {
      // An empty one is one that is not set, as in the environment.
      delete rest[key]
    }
  }
  return rest
}

function unknown(key: string): OptionError {
  const instead = insteadOfOption(key)
  if (instead) return optionTypeError(key, `Cannot use "${key}": ${instead}.`)
  if (key === 'sslmode' || key === 'dbname') {
    return optionTypeError(key, `Cannot use "${key}": it is for URLs, use ${key === 'dbname' ? 'database' : 'ssl'}.`)
  }
  const allowed = [...poolOptionNames, ...known].join(', ')
  return optionTypeError(key, `Unknown option "${key}": allowed are ${allowed}.`)
}

/** Parameters of a URL that are used here. */
const notForTheServer: ReadonlySet<string> = new Set([
  'host',
  'port',
  'user',
  'password',
  'dbname',
  'database',
  'prepare',
  'debug',
  'fetch_types',
  ...ofDial,
])

/** What would make the session another one than the options say, or one that cannot be pooled. */
const notForConnection: ReadonlyMap<string, string> = new Map([
  ['user', 'use the option user'],
  ['database', 'use the option database'],
  ['password', 'use the option password'],
  ['replication', 'it is not supported'],
])

/** postgres.js's way: whatever the URL has beyond is a parameter of the session. */
function startupParameters(connection: unknown, parameters: Readonly<Record<string, string>>): Record<string, string> {
  const all: Record<string, string> = {}
  for (const [key, value] of Object.entries(parameters)) if (!notForTheServer.has(key)) all[key] = value
  if (connection !== undefined && (typeof connection !== 'object' || connection === null)) {
    throw optionTypeError('connection', 'connection must be an object of startup parameters.')
  }
  for (const [key, value] of Object.entries(connection ?? {})) {
    if (value === undefined || value === null) continue
    if (typeof value !== 'string' && typeof value !== 'number' && typeof value !== 'boolean') {
      throw optionTypeError(`connection.${key}`, `connection.${key} must be a string, a number or a boolean.`)
    }
    all[key] = String(value)
  }
  for (const [key, value] of Object.entries(all)) {
    const option = `connection.${key}`
    const instead = notForConnection.get(key)
    if (instead) throw optionTypeError(option, `Cannot use ${option}: ${instead}.`)
    if (key === 'client_encoding' && !/^utf-?8$/i.test(value)) {
      throw optionTypeError(option, `${option} must be UTF8: postgres.js reads nothing else.`)
    }
    withoutZero(option, key)
    withoutZero(option, value)
  }
  return all
}

/** The startup packet ends its words with a zero byte: what followed one would be a parameter of its own. */
function withoutZero(option: string, value: unknown): void {
  if (typeof value === 'string' && value.includes('\0')) {
    throw optionTypeError(
      option.replaceAll('\0', ''),
      `${option.replaceAll('\0', '')} must not have a zero byte in it.`,
    )
  }
}

function text(option: string, value: unknown): string | undefined {
  if (value === undefined) return undefined
  if (typeof value !== 'string' || value === '')
    throw optionTypeError(option, `${option} must be a string that is not empty.`)
  return value
}

function passwordOf(value: unknown): Password | undefined {
  if (value === undefined || typeof value === 'string') return value
  if (typeof value === 'function') return value as Password
  throw optionTypeError('password', 'password must be a string or a function that returns one.')
}

function targetOf(value: unknown): TargetSessionAttrs {
  if (value === undefined || value === null) return 'any'
  if (isTarget(value)) return value
  throw optionTypeError('target_session_attrs', `target_session_attrs must be one of '${targets.join("', '")}'.`)
}

function serverChecksOf(value: unknown): 'auto' | boolean {
  if (value === undefined || value === 'auto') return 'auto'
  if (typeof value === 'boolean') return value
  throw optionTypeError('serverChecks', `serverChecks must be 'auto', true or false.`)
}

function flag(option: string, value: unknown, fallback: boolean): boolean {
  if (value === undefined) return fallback
  if (value === true || value === 'true') return true
  if (value === false || value === 'false' || value === 'disable') return false
  throw optionTypeError(option, `${option} must be true or false.`)
}

/** `postgres.toCamel` and its like are functions that have what is asked for as properties. */
function propertiesOf(transform: unknown): unknown {
  return typeof transform === 'function' ? Object.assign({}, transform) : transform
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
