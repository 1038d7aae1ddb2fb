export { PostgresPool, createPool } from './pool.ts'
export type { QueryOptions } from './pool.ts'
export type { LargeObject } from './large-object.ts'
export type { PoolSql } from './sql-face.ts'
export type { QueryLimits } from './query.ts'
export { PostgresLease } from './lease.ts'
export { PostgresListener } from './listen.ts'
export type { ListenGap, ListenOptions, OnNotification } from './listen-options.ts'
export type { HookSession, Password, PostgresHooks, PostgresPoolOptions } from './options.ts'
export type { PostgresSql, Types } from './sql.ts'
export type { TransactionSql } from './scope.ts'
export { PostgresSession } from './session.ts'
export type { Isolation, SessionOptions, TransactionOptions } from './transaction-options.ts'
export { checkLimit } from './check-limit.ts'
export type { CheckedLimit, CheckLimitOptions, OnMisfit } from './check-limit.ts'
export type { LimitCheck, LimitFit, LimitNumbers } from './limit-sum.ts'
export { postgres as default, postgres as 'module.exports' } from './drop-in.ts'
export type { DropInOptions as Options } from './drop-in.ts'
export type {
  ArrayParameter,
  Column,
  ColumnList,
  ConnectionError,
  ConnectionParameters,
  Error,
  ExecutionResult,
  Fragment,
  Helper,
  ISql,
  JSONValue,
  ListenMeta,
  ListenRequest,
  MaybeRow,
  Notice,
  Parameter,
  ParameterOrFragment,
  ParameterOrJSON,
  ParsedOptions,
  PendingDescribeQuery,
  PendingQuery,
  PendingQueryModifiers,
  PendingRawQuery,
  PendingRequest,
  PendingValuesQuery,
  PostgresError,
  PostgresType,
  RawRowList,
  ReservedSql,
  ResultMeta,
  ResultQueryMeta,
  Row,
  RowList,
  Serializable,
  SerializableParameter,
  Sql,
  State,
  Statement,
  SubscriptionHandle,
  Transform,
  UnsafeQueryOptions,
  ValuesRowList,
} from 'postgres'
