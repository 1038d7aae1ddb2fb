/**
 * Names that people bring along from postgres.js, libpq and other tools, in options and in URLs, and that mean nothing
 * here; with what to say instead. Any other parameter of a URL is one of the session, and goes to the server.
 */
const foreign: Readonly<Record<string, string>> = {
  // Other names of our own options
  hostname: 'use host',
  username: 'use user',
  db: 'use database',
  pass: 'use password',
  // postgres.js
  max_lifetime: 'use maxLifetimeMs (milliseconds)',
  idle_timeout: 'use idleTimeoutMs (milliseconds)',
  timeout: 'use idleTimeoutMs (milliseconds)',
  connect_timeout: 'use connectTimeoutMs (milliseconds, where connect_timeout has seconds)',
  keep_alive: 'TCP keepalives are always on, and serverChecks asks the server for its own',
  backoff: 'the pool backs off by itself',
  socket: 'the pool dials by itself',
  max_pipeline: 'use pipelining',
  onclose: 'use onClose, or the channel "millpond:close"',
  onnotify: 'use pool.listen()',
  publications: 'it is not supported',
  no_subscribe: 'it is not supported',
  no_prepare: 'use prepare: false',
  // libpq
  sslrootcert: 'only "system" can stand here, for a file use the option ssl: { ca: readFileSync(file) }',
  sslcert: 'use the option ssl: { cert: readFileSync(file) }',
  sslkey: 'use the option ssl: { key: readFileSync(file) }',
  sslpassword: 'use the option ssl: { passphrase }',
  sslcrl: 'use the option ssl: { crl: readFileSync(file) }',
  sslcrldir: 'use the option ssl: { crl }',
  sslcertmode: 'use the option ssl: { cert, key }',
  sslsni: 'use the option ssl: { servername }',
  sslcompression: 'it is not supported',
  ssl_min_protocol_version: 'use the option ssl: { minVersion }',
  ssl_max_protocol_version: 'use the option ssl: { maxVersion }',
  hostaddr: 'use host',
  service: 'it is not supported',
  servicefile: 'it is not supported',
  passfile: 'use password, which may be a function',
  require_auth: 'it is not supported',
  requirepeer: 'it is not supported',
  requiressl: 'use ssl',
  krbsrvname: 'it is not supported',
  gsslib: 'it is not supported',
  gssdelegation: 'it is not supported',
  load_balance_hosts: 'hosts are tried in their order',
  fallback_application_name: 'use application_name',
  keepalives: 'TCP keepalives are always on, and serverChecks asks the server for its own',
  keepalives_idle: 'TCP keepalives are always on, and serverChecks asks the server for its own',
  keepalives_interval: 'TCP keepalives are always on, and serverChecks asks the server for its own',
  keepalives_count: 'TCP keepalives are always on, and serverChecks asks the server for its own',
  // pg
  connectionString: 'give it as the first argument',
  connectTimeout: 'use connectTimeoutMs',
  connectionTimeoutMillis: 'use acquireTimeoutMs',
  idleTimeoutMillis: 'use idleTimeoutMs',
  maxLifetimeSeconds: 'use maxLifetimeMs (milliseconds)',
  allowExitOnIdle: 'idle connections keep no process alive',
  keepAlive: 'TCP keepalives are always on, and serverChecks asks the server for its own',
  keepAliveInitialDelayMillis: 'TCP keepalives are always on, and serverChecks asks the server for its own',
  query_timeout: 'use queryTimeoutMs',
  uselibpqcompat: 'leave it out: ssl has the meanings of postgres.js',
  // Prisma
  connection_limit: 'use max',
  pool_timeout: 'use acquireTimeoutMs (milliseconds, where pool_timeout has seconds)',
  pgbouncer: 'leave it out, and use prepare: false where PgBouncer keeps no prepared statements',
  schema: 'use connection: { search_path }',
  socket_timeout: 'use connection: { statement_timeout }',
  statement_cache_size: 'use prepare: false to have none',
  single_use_connections: 'use maxUses: 1',
  sslaccept: 'use ssl: "verify-full" or "require"',
  sslidentity: 'use the option ssl: { pfx }',
  // JDBC
  currentSchema: 'use connection: { search_path }',
  ApplicationName: 'use application_name',
  loginTimeout: 'use connectTimeoutMs (milliseconds, where loginTimeout has seconds)',
  socketTimeout: 'use queryTimeoutMs (milliseconds, where socketTimeout has seconds)',
  targetServerType: 'use target_session_attrs',
  prepareThreshold: 'use prepare: false to have no prepared statements',
  tcpKeepAlive: 'TCP keepalives are always on, and serverChecks asks the server for its own',
  reWriteBatchedInserts: 'leave it out',
  stringtype: 'leave it out',
  // Rails, Go, Python, and the pools of Node.js
  pool: 'use max',
  checkout_timeout: 'use acquireTimeoutMs (milliseconds, where checkout_timeout has seconds)',
  prepared_statements: 'use prepare',
  encoding: 'leave it out: it is UTF-8',
  binary_parameters: 'leave it out',
  default_query_exec_mode: 'use prepare: false to have no prepared statements',
  command_timeout: 'use queryTimeoutMs (milliseconds, where command_timeout has seconds)',
  server_settings: 'use connection',
  min_size: 'use min',
  max_size: 'use max',
  acquireTimeoutMillis: 'use acquireTimeoutMs',
  createTimeoutMillis: 'use connectTimeoutMs',
  pool_max: 'use max',
  pool_size: 'use max',
  max_overflow: 'use max',
  pool_max_conns: 'use max',
  pool_min_conns: 'use min',
  pool_max_conn_lifetime: 'use maxLifetimeMs',
  pool_max_conn_idle_time: 'use idleTimeoutMs',
  pool_recycle: 'use maxLifetimeMs (milliseconds, where pool_recycle has seconds)',
  pool_pre_ping: 'use pingAfterIdleMs: 0',
  supa: 'leave it out',
  workaround: 'leave it out',
}

/** Parameters of the session, which stand in URLs, but are no options by themselves. */
const ofSession: ReadonlySet<string> = new Set([
  'application_name',
  'options',
  'search_path',
  'statement_timeout',
  'lock_timeout',
  'idle_in_transaction_session_timeout',
  'idle_session_timeout',
  'TimeZone',
])

/** What to say to somebody who used this name as an option. */
export function insteadOfOption(name: string): string | undefined {
  return ofSession.has(name) ? `use connection: { ${name} }` : insteadOf(name)
}

/** What to say to somebody who used this name; undefined if it is not one of these. */
export function insteadOf(name: string): string | undefined {
  return Object.hasOwn(foreign, name) ? foreign[name] : undefined
}
