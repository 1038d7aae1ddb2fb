import postgres from 'postgres'
import type { Deadlines } from './deadlines.ts'
import { KnownStatements } from './known-statements.ts'
import type { PostgresSettings } from './options.ts'
import { adopt } from './query.ts'
import type { RawQuery } from './query.ts'
import type { QueryEvents } from './query-events.ts'
import type { Types } from './sql.ts'
import type { Wire } from './wire.ts'

/** postgres.js's options after its own parsing. Its handlers read them live; `shared` is not in its types. */
export interface SessionOptions {
  parsers: Record<number, ArrayAware>
  serializers: Record<number, ((value: unknown) => unknown) | undefined>
  transform: Transform
  shared: { retries: number; typeArrayMap: Record<number, number> }
  debug: unknown
}

interface Transform {
  undefined: unknown
  column: { from: unknown; to: unknown }
  value: { from: unknown; to: unknown }
  row: { from: unknown; to: unknown }
}

type ArrayAware = (((value: string) => unknown) & { array?: boolean }) | undefined

/** One instance of postgres.js that holds one session. */
export interface Inner {
  /** Runs a query on the session at once. */
  readonly handler: (query: RawQuery) => void
  /** The statements that may be sent ahead; undefined where one query at a time is on its way. */
  readonly statements: KnownStatements | undefined
  /** Whether rows and their values are the user's as they are read: no transformation of his makes something else of them. */
  readonly plainRows: boolean
  /** Whether rows come as the server sends them, or transformed as the user wants. */
  plain(on: boolean): void
  /** Whether the user's `debug` hears of what is handed over now: not of what the pool asks by itself. */
  told: () => boolean
  /** Has `debug` hear of a statement that is sent beside postgres.js. */
  tell(text: string): void
}

export interface Session {
  wire: Wire
  password: string
  connection: Readonly<Record<string, string>>
}

/**
 * The instance of postgres.js that makes all queries of a pool and never connects, and the maker of those that do.
 *
 * Always: all of them share `parsers`, `serializers` and the map of array types; none shares what one session writes
 * (`shared.retries`, `parameters`).
 */
export class Template {
  readonly sql: postgres.Sql
  readonly options: SessionOptions
  /** How long its queries may take. */
  deadlines: Deadlines | undefined
  /** Who tells how they went. */
  events: QueryEvents | undefined
  readonly #settings: PostgresSettings

  constructor(settings: PostgresSettings) {
    this.#settings = settings
    const { session, user, database } = settings
    this.sql = postgres({
      ...fixed,
      onnotice: () => undefined,
      ...session,
      ...guarded(session),
      host: 'nowhere.invalid',
      port: 1,
      user,
      database,
      // With a value that postgres.js knows it does not look into the environment; sessions have none.
      target_session_attrs: 'read-write',
    } as unknown as postgres.Options<Types>)
    this.options = this.sql.options as unknown as SessionOptions
    Object.assign(this.sql.options, { pass: null })
    const its = this.sql.unsafe('')
    if (!('handler' in its && 'canceller' in its) || !this.options.shared) {
      throw new Error('Cannot work with this version of postgres: 3.4.9 or a later 3.4 is needed.')
    }
    adopt(its)
  }

  /** An instance for one session, on a stream that is connected already. */
  open({ wire, password, connection }: Session): Inner {
    const { user, database } = this.#settings
    let dialed = false
    const transform = switchable(this.options.transform)
    const { debug } = this.options
    let id: unknown
    const heard = (...values: unknown[]): void => {
      id = values[0]
      if (inner.told() && typeof debug === 'function') debug(...values)
    }
    const options = {
      ...fixed,
      ...this.sql.options,
      // One of each: with more, postgres.js would swallow errors while it connects and try the next.
      host: ['session'],
      port: [0],
      path: false,
      user,
      database,
      pass: password,
      connection: whole(connection),
      parameters: {},
      shared: { retries: 0, typeArrayMap: this.options.shared.typeArrayMap },
      target_session_attrs: null,
      transform: transform.current,
      debug: typeof debug === 'function' ? heard : debug,
      socket: () => {
        // It cannot come here a second time, since it never sees its socket close. If it did, it gets a dead one.
        if (dialed) wire.kill(new Error('bug: a second socket was asked for'))
        dialed = true
        return wire
      },
    }
    const sql = postgres(options as unknown as postgres.Options<Types>)
    const inner: Inner = {
      statements: this.#settings.pipelining > 1 ? new KnownStatements(this.options.serializers) : undefined,
      handler: (sql.unsafe('') as unknown as { handler: Inner['handler'] }).handler,
      plain: transform.plain,
      plainRows: !this.options.transform.value.from && !this.options.transform.row.from,
      told: () => false,
      tell: (text) => void (typeof debug === 'function' && debug(id, text, [], [])),
    }
    return inner
  }
}

/** What every instance must have, whatever the environment says: each of these can be set by a variable, too. */
const fixed = {
  max: 1,
  ssl: false,
  sslnegotiation: null,
  idle_timeout: null,
  connect_timeout: null,
  max_lifetime: null,
  max_pipeline: 1,
  backoff: false,
  keep_alive: null,
  fetch_types: false,
  prepare: true,
  debug: false,
  publications: 'none',
  no_subscribe: true,
  onclose: undefined,
  onnotify: undefined,
}

/** postgres.js leaves out what is falsy, but an empty `search_path` is meant: a string as an object is not falsy. */
function whole(connection: Readonly<Record<string, string>>): object {
  return Object.fromEntries(
    Object.entries(connection).map(([name, value]) => [name, value === '' ? new String(value) : value]),
  )
}

/** A callback that throws inside postgres.js would fail the query that happens to run. */
function guarded({ debug, onnotice, onparameter }: PostgresSettings['session']): Record<string, unknown> {
  const callbacks: Record<string, unknown> = {}
  for (const [name, fn] of Object.entries({ debug, onnotice, onparameter })) {
    if (typeof fn !== 'function') continue
    callbacks[name] = (...values: never[]) => {
      try {
        ;(fn as (...values: never[]) => unknown)(...values)
      } catch (error) {
        process.emitWarning(`${name} threw: ${String(error)}`, 'MillpondWarning')
      }
    }
  }
  return callbacks
}

/** A session's own copy of the user's transformations, which can be left out for the pool's own statements. */
function switchable(users: Transform): { current: Transform; plain: (on: boolean) => void } {
  const current = { ...users, column: { ...users.column }, value: { ...users.value }, row: { ...users.row } }
  return {
    current,
    plain(on) {
      for (const part of ['column', 'value', 'row'] as const) current[part].from = on ? undefined : users[part].from
    },
  }
}
