/**
 * The generic pool, and the broker that holds one limit over the pools of all threads.
 *
 * @module
 */
export { createBroker } from './broker/broker.ts'
export type { Broker, BrokerOptions } from './broker/broker.ts'
export { Pool } from './pool.ts'
export type { AcquireOptions } from './pool.ts'
export type { Lease } from './lease.ts'
export type { GenericPoolOptions, LimitOption, PoolOptions } from './options.ts'
export type { Driver, Identity, ResetMode } from './driver.ts'
export type { Clock, Timer } from './clock.ts'
export type { BrokerStats, CloseReason, MemberStats, PoolStats } from './stats.ts'
export type { BrokerEvent, BrokerEvents } from './broker/events.ts'
export type { Events, PoolEvent } from './watch.ts'
export type { HistogramStats } from './histogram.ts'
export * as presets from './presets.ts'
export { closeOnSignal } from './close-on-signal.ts'
export type { CloseOnSignalOptions } from './close-on-signal.ts'
export {
  AcquireTimeoutError,
  BrokerError,
  ConnectError,
  ConnectionLostError,
  LeaseReleasedError,
  LeaseRevokedError,
  LimitError,
  PoolClosedError,
  PoolError,
  QueryCancelledError,
  QueryTimeoutError,
  QueueFullError,
  SessionBusyError,
  TaskError,
  TransactionOutcomeUnknownError,
  WorkerLostError,
} from './errors.ts'
export type { AcquirePhase, BrokerErrorCode, HeldLease, OptionError, QueryPhase } from './errors.ts'
