import { Pool } from '../pool.ts'
import type { AcquireOptions } from '../pool.ts'
import type { PoolOptions } from '../options.ts'
import type { PoolStats } from '../stats.ts'
import type { Connection } from './connection.ts'
import { PostgresDriver } from './driver.ts'
import { PostgresLease } from './lease.ts'
import { OneShots } from './one-shots.ts'
import { parseOptions } from './options.ts'
import type { PostgresPoolOptions } from './options.ts'
import { beginStatement, runTransaction } from './session.ts'
import type { TransactionOptions, TransactionSql } from './session.ts'
import { createSql } from './sql.ts'
import type { PostgresSql, Types } from './sql.ts'
import { Template } from './template.ts'

/**
 * Connections to one PostgreSQL database, through postgres.js.
 *
 * @example
 * ```ts
 * import { createPool } from 'millpond/postgres'
 *
 * const pool = createPool(process.env.DATABASE_URL, { max: 10 })
 * const [row] = await pool.sql`select ${1} as one`
 * await pool.close()
 * ```
 */
export class PostgresPool<T extends Types = {}> implements AsyncDisposable {
  /** Runs each query on any connection: acquired when the query runs, released when its answer is complete. */
  readonly sql: PostgresSql<T>
  readonly #pool: Pool<Connection>
  readonly #template: Template

  /** Throws a `TypeError` or `RangeError` with `code: 'ERR_OPTION'`. Does no I/O. */
  constructor(url: string | URL | undefined, options?: PostgresPoolOptions<T>) {
    const settings = parseOptions(url, options)
    this.#template = new Template(settings)
    const driver = new PostgresDriver(settings, this.#template)
    this.#pool = new Pool<Connection>({ ...named(settings.pool, settings.serverName), ...driver.hooks, driver })
    const { debug } = this.#template.options
    const looksFirst = settings.hooks.onAcquire !== undefined
    this.sql = createSql<T>(this.#template, new OneShots(this.#pool, { debug, looksFirst }))
  }

  get name(): string {
    return this.#pool.name
  }

  /** Resolves when `min` connections are open; rejects with an error that retrying cannot cure. Not needed first. */
  open(): Promise<void> {
    return this.#pool.open()
  }

  /** Waits for a connection, first come, first served. Rejects with `AcquireTimeoutError` at the deadline. */
  async acquire(options?: AcquireOptions): Promise<PostgresLease<T>> {
    return new PostgresLease<T>(await this.#pool.acquire(options), this.#template)
  }

  /** An idle connection that can be lent as it is, or undefined. Never waits. */
  tryAcquire(): PostgresLease<T> | undefined {
    const lease = this.#pool.tryAcquire()
    return lease && new PostgresLease<T>(lease, this.#template)
  }

  /** Acquires, calls `fn`, and releases, also when `fn` throws. */
  async use<R>(
    fn: (sql: PostgresSql<T>, lease: PostgresLease<T>) => R | PromiseLike<R>,
    options?: AcquireOptions,
  ): Promise<R> {
    return this.#pool.use((_, held) => {
      const lease = new PostgresLease<T>(held, this.#template)
      return fn(lease.sql, lease)
    }, options)
  }

  /**
   * Runs `fn` between BEGIN and COMMIT on one connection; ROLLBACK when it throws, or when one of its statements has
   * failed the transaction: then the first such error is thrown, even if `fn` caught it.
   *
   * Rejects with `TransactionOutcomeUnknownError` if the connection is lost after COMMIT was sent.
   *
   * @example
   * ```ts
   * import { createPool } from 'millpond/postgres'
   *
   * const pool = createPool(process.env.DATABASE_URL)
   * await pool.transaction(async (sql) => {
   *   await sql`update account set amount = amount - 1 where id = 1`
   *   await sql.savepoint((sql) => sql`update account set amount = amount + 1 where id = 2`)
   * })
   * await pool.close()
   * ```
   */
  async transaction<R>(
    fn: (sql: TransactionSql<T>) => R | PromiseLike<R>,
    options: TransactionOptions = {},
  ): Promise<R> {
    const begin = beginStatement(options)
    const settings = { template: this.#template, pool: this.name, begin }
    return this.#pool.use((connection) => runTransaction<T, R>(connection, settings, fn), options)
  }

  /** Gives idle connections above `min` back now, and waits until they are closed: before a long synchronous stretch. */
  releaseIdle(): Promise<void> {
    return this.#pool.releaseIdle()
  }

  /** Retires every connection of today, for new credentials or after a failover: idle ones now, leased ones on release. */
  evict(): void {
    this.#pool.evict()
  }

  /** New bounds. Takes no lease away. Throws `ERR_OPTION`, or `ERR_BROKER_MISMATCH` where the limit has no room. */
  resize(bounds: { min?: number; max?: number }): void {
    this.#pool.resize(bounds)
  }

  /** A snapshot; cheap enough for every request. */
  stats(): PoolStats {
    return this.#pool.stats()
  }

  /** Lets leases finish until the deadline, then revokes them. Never rejects; a second call returns the first promise. */
  close(options?: { timeoutMs?: number }): Promise<{ revoked: number }> {
    return this.#pool.close(options)
  }

  /** Same as `close()`. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }
}

/** A limit without a name is that of the server. What is no limit at all is left to the pool to refuse. */
function named(options: PoolOptions, serverName: string): PoolOptions {
  const { limit } = options
  if (typeof limit === 'number' && limit > 0) return { ...options, limit: { name: serverName, connections: limit } }
  if (typeof limit === 'object' && limit !== null) return { ...options, limit: { name: serverName, ...limit } }
  return options
}

/**
 * Makes a pool for `postgres://user:password@host:port/database`. Parts that are missing come from `PGHOST`, `PGUSER`
 * and so on; with neither a URL nor `PGHOST` it throws instead of guessing. Nothing is connected before the first use.
 */
export function createPool<T extends Types = {}>(
  url: string | URL | undefined,
  options?: PostgresPoolOptions<T>,
): PostgresPool<T> {
  return new PostgresPool<T>(url, options)
}
