import type postgres from 'postgres'
import { running } from '../borrowing.ts'
import { PoolError } from '../errors.ts'
import { codeOf } from './connect-error.ts'
import type { LargeObject } from './large-object.ts'
import type { SessionState } from './listen.ts'
import type { PostgresSettings } from './options.ts'
import { isQuery } from './query.ts'
import type { RawQuery } from './query.ts'
import type { TransactionSql } from './scope.ts'
import { beginOptions } from './sql-face-begin.ts'
import { isTemplate } from './sql.ts'
import type { PostgresSql, Types, TypeValues } from './sql.ts'
import type { Template } from './template.ts'
import type { TransactionOptions } from './transaction-options.ts'

/**
 * The tag of a pool: that of postgres.js with all its members, for code that was written for it. `begin` is
 * `pool.transaction()`, `reserve` is `pool.acquire()`, `end` is `pool.close()`; `subscribe` rejects.
 */
export interface PoolSql<T extends Types = {}> extends postgres.Sql<TypeValues<T>>, PostgresSql<T> {
  readonly CLOSE: {}
  readonly END: this['CLOSE']
  readonly PostgresError: typeof postgres.PostgresError
  /**
   * Opens a large object, or makes one, on a connection of its own: in a transaction that ends with `close()`. Inside a
   * transaction of the pool it is part of that.
   *
   * @param mode `0x40000` to read, `0x20000` to write, their sum by default.
   */
  largeObject(oid?: number, mode?: number): Promise<LargeObject>
  /** Closes every connection; the next query opens new ones. */
  close(): Promise<void>
}

/** One connection, and how it is given back. */
export interface Reserved {
  readonly sql: PostgresSql
  release(): Promise<void>
}

/** What a pool does for the members of its tag that are more than queries. */
export interface FaceHouse {
  readonly template: Template
  readonly settings: PostgresSettings
  /** What the server has said of itself. */
  readonly parameters: Readonly<Record<string, string>>
  /** Whether a transaction that is begun now is a savepoint. */
  readonly inside: boolean
  begin<R>(fn: (sql: TransactionSql) => Promise<R>, options: TransactionOptions): Promise<R>
  reserve(): Promise<Reserved>
  listen(channel: string, fn: (payload: string) => void, again: () => void): Promise<Listened>
  largeObject(oid?: number, mode?: number): Promise<LargeObject>
  end(timeoutMs: number | undefined): Promise<unknown>
  close(): Promise<unknown>
  /** Sees every query before it is run; `own`: on a connection of its own, and not on one that somebody holds. */
  touch?(query: RawQuery, own: boolean): void
}

export interface Listened {
  readonly state: SessionState
  unlisten(): Promise<void>
}

type Tag = ((...values: unknown[]) => unknown) & Record<'unsafe' | 'file', (...values: unknown[]) => unknown>
type Touch = (query: RawQuery) => void
type Callback = (sql: unknown) => unknown

/** The members of postgres.js's tag, over a tag that makes queries only. */
export function poolSql<T extends Types>(sql: PostgresSql<T>, house: FaceHouse): PoolSql<T> {
  const touching = (own: boolean): Touch | undefined => house.touch && ((query) => house.touch?.(query, own))
  const held = touching(false)
  const face = dressed(sql, touching(true), {
    begin: (...values: unknown[]) => running(begin(house, values, held)),
    reserve: async () => {
      const reserved = await house.reserve()
      return dressed(reserved.sql, held, { release: () => void reserved.release() })
    },
    listen: async (channel: string, fn: (payload: string) => void, onlisten?: () => void) => {
      const listened = await house.listen(channel, fn, () => onlisten?.())
      onlisten?.()
      return { state: listened.state, unlisten: () => listened.unlisten() }
    },
    subscribe,
    largeObject: (oid?: number, mode?: number) => house.largeObject(oid, mode),
    options: shownOptions(house),
    end: async ({ timeout }: { timeout?: number | null } = {}) => {
      await house.end(typeof timeout === 'number' ? timeout * 1_000 : undefined)
    },
    close: async () => {
      await house.close()
    },
  })
  Object.defineProperty(face, 'parameters', { enumerable: true, get: () => house.parameters })
  return face as unknown as PoolSql<T>
}

/** A tag like this one, with more members, whose queries are seen by `touch` first. */
function dressed(sql: object, touch: Touch | undefined, members: object): object {
  const inner = sql as Tag
  const touched = (made: unknown): unknown => {
    if (touch && isQuery(made)) touch(made)
    return made
  }
  const tag = (...values: unknown[]): unknown => touched(inner(...values))
  return Object.assign(tag, inner, {
    unsafe: (...values: unknown[]) => touched(inner.unsafe(...values)),
    file: (...values: unknown[]) => touched(inner.file(...values)),
    notify: async (channel: string, payload: unknown) => await tag(notifyPieces, channel, String(payload)),
    ...members,
  })
}

/** What a tag gets in place of a template that is written out. One for all: where it was first used is noted once. */
const notifyPieces = pieces('select pg_notify(', ', ', ')')

function pieces(...texts: string[]): TemplateStringsArray {
  return Object.assign(texts, { raw: texts })
}

// ── Transactions ─────────────────────────────────────────────────────────────────────────────────────────────────

/** A transaction, which its callback may want to be prepared in place of being committed. */
async function begin(house: FaceHouse, values: readonly unknown[], touch: Touch | undefined): Promise<unknown> {
  const [first, second] = values
  const [options, fn] = second ? [first, second] : ['', first]
  if (typeof fn !== 'function') throw new TypeError('sql.begin() needs a function that runs the transaction.')
  const { inside } = house
  let name: string | undefined
  const prepare = (wanted: unknown): string => {
    if (inside) throw new PoolError('ERR_UNFINISHED', 'Cannot prepare a transaction inside of another one.')
    name = String(wanted)
    return name
  }
  let prepared: { readonly result: unknown } | undefined
  try {
    return await house.begin(
      async (sql) => {
        const result = await collected((fn as Callback)(transactionTag(sql, touch, prepare)))
        if (name === undefined) return result
        const { command } = await sql.unsafe(`prepare transaction '${name.replaceAll("'", "''")}'`)
        // The server's answer where a statement has failed, in place of an error.
        if (command !== 'ROLLBACK') prepared = { result }
        return result
      },
      beginOptions(typeof options === 'string' ? options : ''),
    )
  } catch (error) {
    // There is nothing left that could be committed.
    if (prepared && codeOf(error) === 'ERR_TRANSACTION_FAILED') return prepared.result
    throw error
  }
}

function transactionTag(sql: TransactionSql, touch: Touch | undefined, prepare: (name: unknown) => string): object {
  const savepoint = async (...values: unknown[]): Promise<unknown> => {
    if (isTemplate(values[0])) return savepoint((inner: unknown) => (inner as Tag)(...values))
    const fn = values.length > 1 ? values[1] : values[0]
    if (typeof fn !== 'function') throw new TypeError('sql.savepoint() needs a function that runs in the savepoint.')
    return sql.savepoint(async (inner) => await collected((fn as Callback)(transactionTag(inner, touch, prepare))))
  }
  return dressed(sql, touch, { savepoint, prepare })
}

/** postgres.js's way to run several queries: an array of them is returned. */
function collected(returned: unknown): unknown {
  return Array.isArray(returned) ? Promise.all(returned) : returned
}

// ── Members that tell something ──────────────────────────────────────────────────────────────────────────────────

/** As postgres.js shows them. What is in `parsers` and `serializers` holds for every connection, also if set later. */
function shownOptions({ template, settings, parameters }: FaceHouse): object {
  const { addresses, user, database, serverName, pool, fetchTypes, connection } = settings
  const { shared: _, ...options } = template.options as unknown as Record<string, unknown>
  return Object.assign(options, {
    host: addresses.map((address) => ('host' in address ? address.host : serverName)),
    port: addresses.map((address) => ('port' in address ? address.port : 0)),
    path: addresses.flatMap((address) => ('path' in address ? [address.path] : []))[0] ?? false,
    user,
    database,
    pass: null,
    parameters,
    connection,
    max: pool.max ?? 10,
    idle_timeout: secondsOf(pool.idleTimeoutMs),
    connect_timeout: secondsOf(pool.connectTimeoutMs),
    max_lifetime: secondsOf(pool.maxLifetimeMs),
    fetch_types: fetchTypes,
    target_session_attrs: settings.target === 'any' ? null : settings.target,
  })
}

async function subscribe(): Promise<never> {
  throw new PoolError(
    'ERR_NOT_SUPPORTED',
    'Cannot subscribe: logical replication is not supported. Give it an instance of postgres.js of its own, outside of the limit.',
  )
}

function secondsOf(ms = Infinity): number | null {
  return ms === Infinity ? null : ms / 1_000
}

/** Keeps what the server says of itself in `parameters`; whoever listens hears of changes only. */
export function learning(settings: PostgresSettings, parameters: Record<string, string>): PostgresSettings {
  const { onparameter } = settings.session
  return {
    ...settings,
    session: {
      ...settings.session,
      onparameter: (key: string, value: string) => {
        if (parameters[key] === value) return
        parameters[key] = value
        onparameter?.(key, value)
      },
    },
  }
}
