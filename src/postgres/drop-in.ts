import postgresJs from 'postgres'
import * as limits from './check-limit.ts'
import { dropInOptions } from './drop-in-options.ts'
import type { DropInExtras } from './drop-in-options.ts'
import { newDropIn } from './drop-in-pool.ts'
import * as leases from './lease.ts'
import type * as sums from './limit-sum.ts'
import * as listeners from './listen.ts'
import type * as listening from './listen-options.ts'
import type * as options from './options.ts'
import * as pools from './pool.ts'
import type * as queries from './query.ts'
import * as sessions from './session.ts'
import type * as faces from './sql-face.ts'
import type * as tags from './sql.ts'
import type * as transactions from './transaction-options.ts'

/**
 * A drop-in for postgres.js: its signature, its options with their names and defaults, its tag, its error codes. Under
 * it are the connections of `createPool()`; so it takes `limit` and `broker`, too.
 *
 * Connections do one query at a time, nothing is sent a second time, and a session is cleaned between its users, unless
 * `max` is 1. Errors of a connection have ours as their `cause`.
 *
 * @example
 * ```ts
 * import postgres from 'millpond/postgres'
 *
 * const sql = postgres(process.env.DATABASE_URL ?? '', { max: 10, idle_timeout: 20, limit: 20 })
 * const [user] = await sql<{ name: string }[]>`select name from users where id = ${7}`
 * await sql.begin(async (sql) => {
 *   await sql`update users set name = ${'Ann'} where id = ${7}`
 * })
 * await sql.end({ timeout: 5 })
 * ```
 */
function postgres<T extends Record<string, postgresJs.PostgresType> = {}>(
  options?: postgres.Options<T>,
): postgres.Sql<tags.TypeValues<T>>
function postgres<T extends Record<string, postgresJs.PostgresType> = {}>(
  url: string,
  options?: postgres.Options<T>,
): postgres.Sql<tags.TypeValues<T>>
function postgres(a?: unknown, b?: unknown): postgres.Sql<Record<string, never>> {
  const { url, options: ours } = dropInOptions(a, b)
  return newDropIn(url, ours) as unknown as postgres.Sql<Record<string, never>>
}

/** postgres.js's types under their own names, and what its function has as properties. */
declare namespace postgres {
  interface Options<T extends Record<string, postgresJs.PostgresType>>
    extends Omit<postgresJs.Options<T>, 'onclose'>, DropInExtras<T> {}

  type Sql<T extends Record<string, unknown> = {}> = postgresJs.Sql<T>
  type ISql<T extends Record<string, unknown> = {}> = postgresJs.ISql<T>
  type TransactionSql<T extends Record<string, unknown> = {}> = postgresJs.TransactionSql<T>
  type ReservedSql<T extends Record<string, unknown> = {}> = postgresJs.ReservedSql<T>
  type ParsedOptions<T extends Record<string, unknown> = {}> = postgresJs.ParsedOptions<T>
  type PostgresType<T = any> = postgresJs.PostgresType<T>
  type ConnectionParameters = postgresJs.ConnectionParameters
  type Transform = postgresJs.Transform
  type Notice = postgresJs.Notice
  type Parameter<T = postgresJs.SerializableParameter> = postgresJs.Parameter<T>
  type ArrayParameter<T extends readonly any[] = readonly any[]> = postgresJs.ArrayParameter<T>
  type PostgresError = postgresJs.PostgresError
  type ConnectionError = postgresJs.ConnectionError
  type NotSupportedError = postgresJs.NotSupportedError
  type GenericError = postgresJs.GenericError
  type AuthNotImplementedError = postgresJs.AuthNotImplementedError
  type Error = postgresJs.Error
  type ColumnInfo = postgresJs.ColumnInfo
  type RelationInfo = postgresJs.RelationInfo
  type ReplicationEvent = postgresJs.ReplicationEvent
  type SubscriptionHandle = postgresJs.SubscriptionHandle
  type LargeObject = postgresJs.LargeObject
  type EscapableArray = postgresJs.EscapableArray
  type Serializable = postgresJs.Serializable
  type SerializableParameter<T = never> = postgresJs.SerializableParameter<T>
  type JSONValue = postgresJs.JSONValue
  type Row = postgresJs.Row
  type MaybeRow = postgresJs.MaybeRow
  type Column<T extends string> = postgresJs.Column<T>
  type ColumnList<T> = postgresJs.ColumnList<T>
  type State = postgresJs.State
  type Statement = postgresJs.Statement
  type ResultMeta<T extends number | null> = postgresJs.ResultMeta<T>
  type ResultQueryMeta<T extends number | null, U> = postgresJs.ResultQueryMeta<T, U>
  type ExecutionResult<T> = postgresJs.ExecutionResult<T>
  type ValuesRowList<T extends readonly any[]> = postgresJs.ValuesRowList<T>
  type RawRowList<T extends readonly any[]> = postgresJs.RawRowList<T>
  type RowList<T extends readonly any[]> = postgresJs.RowList<T>
  type PendingQueryModifiers<T extends readonly any[]> = postgresJs.PendingQueryModifiers<T>
  type PendingDescribeQuery = postgresJs.PendingDescribeQuery
  type PendingValuesQuery<T extends readonly postgresJs.MaybeRow[]> = postgresJs.PendingValuesQuery<T>
  type PendingRawQuery<T extends readonly postgresJs.MaybeRow[]> = postgresJs.PendingRawQuery<T>
  type PendingQuery<T extends readonly postgresJs.MaybeRow[]> = postgresJs.PendingQuery<T>
  type PendingRequest = postgresJs.PendingRequest
  type ListenRequest = postgresJs.ListenRequest
  type ListenMeta = postgresJs.ListenMeta
  type Helper<T, U extends readonly any[] = T[]> = postgresJs.Helper<T, U>
  type Fragment = postgresJs.Fragment
  type ParameterOrJSON<T> = postgresJs.ParameterOrJSON<T>
  type ParameterOrFragment<T> = postgresJs.ParameterOrFragment<T>
  type UnsafeQueryOptions = postgresJs.UnsafeQueryOptions

  export const PostgresError: typeof postgresJs.PostgresError
  export const BigInt: typeof postgresJs.BigInt
  export const toPascal: typeof postgresJs.toPascal
  export const pascal: typeof postgresJs.pascal
  export const toCamel: typeof postgresJs.toCamel
  export const camel: typeof postgresJs.camel
  export const toKebab: typeof postgresJs.toKebab
  export const kebab: typeof postgresJs.kebab
  export const fromPascal: typeof postgresJs.fromPascal
  export const fromCamel: typeof postgresJs.fromCamel
  export const fromKebab: typeof postgresJs.fromKebab

  // For those who require(): what else there is to import.
  export const createPool: typeof pools.createPool
  export const checkLimit: typeof limits.checkLimit
  export const PostgresPool: typeof pools.PostgresPool
  export const PostgresLease: typeof leases.PostgresLease
  export const PostgresListener: typeof listeners.PostgresListener
  export const PostgresSession: typeof sessions.PostgresSession
  type PostgresPool<T extends tags.Types = {}> = pools.PostgresPool<T>
  type PostgresLease<T extends tags.Types = {}> = leases.PostgresLease<T>
  type PostgresListener = listeners.PostgresListener
  type PostgresSession<T extends tags.Types = {}> = sessions.PostgresSession<T>
  type PostgresPoolOptions<T extends tags.Types = {}> = options.PostgresPoolOptions<T>
  type PostgresHooks<T extends tags.Types = {}> = options.PostgresHooks<T>
  type HookSession = options.HookSession
  type Password = options.Password
  type PoolSql<T extends tags.Types = {}> = faces.PoolSql<T>
  type PostgresSql<T extends tags.Types = {}> = tags.PostgresSql<T>
  type Types = tags.Types
  type QueryOptions = pools.QueryOptions
  type QueryLimits = queries.QueryLimits
  type ListenGap = listening.ListenGap
  type ListenOptions = listening.ListenOptions
  type OnNotification = listening.OnNotification
  type Isolation = transactions.Isolation
  type SessionOptions = transactions.SessionOptions
  type TransactionOptions = transactions.TransactionOptions
  type CheckedLimit = limits.CheckedLimit
  type CheckLimitOptions = limits.CheckLimitOptions
  type OnMisfit = limits.OnMisfit
  type LimitCheck = sums.LimitCheck
  type LimitFit = sums.LimitFit
  type LimitNumbers = sums.LimitNumbers
}

const { PostgresError, BigInt, toPascal, pascal, toCamel, camel, toKebab, kebab, fromPascal, fromCamel, fromKebab } =
  postgresJs

/** `require()` gives this function, as it does of postgres.js; so what else there is to import must be on it, too. */
Object.assign(postgres, {
  PostgresError,
  BigInt,
  toPascal,
  pascal,
  toCamel,
  camel,
  toKebab,
  kebab,
  fromPascal,
  fromCamel,
  fromKebab,
  default: postgres,
  createPool: pools.createPool,
  checkLimit: limits.checkLimit,
  PostgresPool: pools.PostgresPool,
  PostgresLease: leases.PostgresLease,
  PostgresListener: listeners.PostgresListener,
  PostgresSession: sessions.PostgresSession,
})

export type DropInOptions<T extends Record<string, postgresJs.PostgresType> = {}> = postgres.Options<T>

export { postgres }
