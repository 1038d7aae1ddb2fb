import type { PoolOptions } from './options.ts'
import { thawClock } from './thaw-clock.ts'

// Settings that people bring from elsewhere, under the names and in the units (seconds) that they have there. Each
// returns options, to be spread beside others. docs/presets.md says what differs.

/** As good as no limit. */
const unlimited = 1_000_000

/** Seconds to our milliseconds; what is negative there means never. */
function ms(seconds: number): number {
  return seconds < 0 ? Infinity : Math.max(1, seconds * 1_000)
}

/**
 * SQLAlchemy's `QueuePool`: `pool_size` connections are kept, up to `max_overflow` more are opened and closed again.
 *
 * @example
 * ```ts
 * import { presets } from 'millpond'
 * import { createPool } from 'millpond/postgres'
 *
 * const pool = createPool(process.env.DATABASE_URL, presets.queuePool({ pool_size: 5, max_overflow: 10 }))
 * ```
 */
export function queuePool({
  pool_size = 5,
  max_overflow = 10,
  pool_timeout = 30,
  pool_recycle = -1,
  pool_pre_ping = false,
}: {
  pool_size?: number
  max_overflow?: number
  pool_timeout?: number
  pool_recycle?: number
  pool_pre_ping?: boolean
} = {}): PoolOptions {
  const endless = pool_size === 0 || max_overflow < 0
  const max = endless ? unlimited : pool_size + max_overflow
  return {
    max,
    maxIdle: pool_size === 0 ? max : pool_size,
    order: 'fifo',
    acquireTimeoutMs: ms(pool_timeout),
    maxLifetimeMs: ms(pool_recycle),
    pingAfterIdleMs: pool_pre_ping ? 0 : Infinity,
    idleTimeoutMs: Infinity,
  }
}

/** SQLAlchemy's `NullPool`: no connection is kept. Limit and queue remain. */
export function nullPool({ max = 10 }: { max?: number } = {}): PoolOptions {
  return { max, maxIdle: 0 }
}

/** SQLAlchemy's `StaticPool`: one connection for everybody, one after the other. */
export function staticPool(): PoolOptions {
  return { max: 1, idleTimeoutMs: Infinity, maxLifetimeMs: Infinity }
}

/** A fixed number of connections, opened at first use and kept. */
export function fixedPool({ size = 10 }: { size?: number } = {}): PoolOptions {
  return { min: size, max: size, idleTimeoutMs: Infinity }
}

/** asyncpg's `create_pool`. */
export function createPool({
  min_size = 10,
  max_size = 10,
  max_queries = 50_000,
  max_inactive_connection_lifetime = 300,
}: {
  min_size?: number
  max_size?: number
  max_queries?: number
  max_inactive_connection_lifetime?: number
} = {}): PoolOptions {
  return {
    min: min_size,
    max: max_size,
    maxUses: max_queries,
    idleTimeoutMs: max_inactive_connection_lifetime === 0 ? Infinity : ms(max_inactive_connection_lifetime),
    maxLifetimeMs: Infinity,
    acquireTimeoutMs: Infinity,
    pingAfterIdleMs: Infinity,
  }
}

/** psycopg2's `SimpleConnectionPool`: `minconn` connections are opened and kept, up to `maxconn` are lent. */
export function simpleConnectionPool({
  minconn = 1,
  maxconn = 10,
}: { minconn?: number; maxconn?: number } = {}): PoolOptions {
  return {
    min: minconn,
    max: maxconn,
    maxIdle: minconn,
    idleTimeoutMs: Infinity,
    maxLifetimeMs: Infinity,
    pingAfterIdleMs: Infinity,
  }
}

/** Django's `CONN_MAX_AGE` (seconds, `null` for ever) and `CONN_HEALTH_CHECKS`. */
export function connMaxAge({
  CONN_MAX_AGE = 0,
  CONN_HEALTH_CHECKS = false,
  max = 10,
}: { CONN_MAX_AGE?: number | null; CONN_HEALTH_CHECKS?: boolean; max?: number } = {}): PoolOptions {
  const kept = CONN_MAX_AGE !== 0
  return {
    max,
    maxIdle: kept ? max : 0,
    maxLifetimeMs: CONN_MAX_AGE === null || !kept ? Infinity : ms(CONN_MAX_AGE),
    idleTimeoutMs: Infinity,
    pingAfterIdleMs: CONN_HEALTH_CHECKS ? 0 : Infinity,
  }
}

/**
 * For functions that are frozen between two calls. Put the pool at the top of the module. A connection is kept for the
 * next call, and looked at by the wall clock first: after a thaw it is pinged, or replaced if its time is over.
 */
export function serverless({ max = 2 }: { max?: number } = {}): PoolOptions {
  return { min: 0, max, pingAfterIdleMs: 500, maxLifetimeMs: 15 * 60_000, idleTimeoutMs: Infinity, clock: thawClock() }
}
