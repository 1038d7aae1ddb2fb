import postgres from 'postgres'
import { DeadlineError } from '../deadline.ts'
import {
  ConnectError,
  ConnectionLostError,
  LeaseRevokedError,
  PoolClosedError,
  SessionBusyError,
  TransactionOutcomeUnknownError,
} from '../errors.ts'
import type { PostgresSettings } from './options.ts'
import { ServerClosedError } from './wire.ts'

/** The codes of postgres.js's own errors. */
type Code =
  | 'CONNECT_TIMEOUT'
  | 'CONNECTION_CLOSED'
  | 'CONNECTION_ENDED'
  | 'CONNECTION_DESTROYED'
  | 'UNSAFE_TRANSACTION'
  | 'COPY_IN_PROGRESS'

/** An error of postgres.js. */
export function generic(code: Code, message: string, cause?: unknown): Error {
  return Object.assign(new Error(`${code}: ${message}`, cause === undefined ? undefined : { cause }), { code })
}

/** An error of postgres.js that speaks of a connection. */
export function connectionError(code: Code, { address }: PostgresSettings, cause?: unknown): Error {
  const [place, fields] =
    'path' in address
      ? [address.path, { address: address.path }]
      : [`${address.host}:${address.port}`, { address: address.host, port: address.port }]
  const options = cause === undefined ? undefined : { cause }
  return Object.assign(new Error(`write ${code} ${place}`, options), { code, errno: code, ...fields })
}

/**
 * The error that postgres.js would have thrown, with ours as its `cause`. `destroying`: the time given to `end()` is
 * over.
 */
export function asPostgresJs(error: unknown, settings: PostgresSettings, destroying: boolean): unknown {
  const closed = destroying ? 'CONNECTION_DESTROYED' : 'CONNECTION_CLOSED'
  if (error instanceof ConnectError) return notConnected(error, settings)
  if (error instanceof ConnectionLostError) {
    const reason = error.cause
    return !destroying && isOfSystem(reason) ? again(reason, error) : connectionError(closed, settings, error)
  }
  if (error instanceof TransactionOutcomeUnknownError) return connectionError(closed, settings, error)
  if (error instanceof LeaseRevokedError) return connectionError('CONNECTION_DESTROYED', settings, error)
  if (error instanceof PoolClosedError) {
    return connectionError(destroying ? 'CONNECTION_DESTROYED' : 'CONNECTION_ENDED', settings, error)
  }
  if (error instanceof SessionBusyError && error.open === 'copy') {
    return generic('COPY_IN_PROGRESS', 'You cannot execute queries during copy', error)
  }
  return error
}

function notConnected(error: ConnectError, settings: PostgresSettings): unknown {
  const causes = [...causesOf(error.cause)]
  const ofServer = causes.find((cause) => cause instanceof postgres.PostgresError)
  if (ofServer) return again(ofServer, error)
  if (causes.some(isTimeout)) return connectionError('CONNECT_TIMEOUT', settings, error)
  const ofSystem = causes.find(isOfSystem)
  if (ofSystem) return again(ofSystem, error)
  if (causes.some((cause) => cause instanceof ServerClosedError))
    return connectionError('CONNECTION_CLOSED', settings, error)
  // What `password()` has thrown, for one.
  const coded = causes.find((cause) => cause instanceof Error && 'code' in cause && !(cause instanceof ConnectError))
  return coded instanceof Error ? again(coded, error) : error
}

/** What is behind an error, all the way; of several hosts the last one first. */
function* causesOf(error: unknown): Generator {
  if (error instanceof AggregateError) for (const one of [...error.errors].toReversed()) yield* causesOf(one)
  else if (error instanceof Error) {
    yield error
    yield* causesOf(error.cause)
  }
}

const isTimeout = (error: unknown): boolean =>
  error instanceof DeadlineError || (error instanceof Error && error.name === 'TimeoutError')

const isOfSystem = (error: unknown): error is Error => error instanceof Error && 'syscall' in error

/** The same error once more: others may hold the first one, and it is the cause of our own. */
function again(error: Error, cause: unknown): Error {
  const copy = Object.create(Object.getPrototypeOf(error) as object, Object.getOwnPropertyDescriptors(error)) as Error
  Object.defineProperty(copy, 'cause', { value: cause, enumerable: false, configurable: true, writable: true })
  return copy
}
