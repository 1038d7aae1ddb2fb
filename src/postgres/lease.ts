import type { Lease } from '../lease.ts'
import type { Connection } from './connection.ts'
import type { RawQuery, Target } from './query.ts'
import { createSql } from './sql.ts'
import type { PostgresSql, Types } from './sql.ts'
import type { Template } from './template.ts'

/** The queries of one lease: all on its connection, one after the other, and none after its release. */
export class LeaseTarget implements Target {
  readonly debug: unknown
  readonly #lease: Lease<Connection>

  constructor(lease: Lease<Connection>, debug: unknown) {
    this.#lease = lease
    this.debug = debug
  }

  run(query: RawQuery): void {
    let connection: Connection
    try {
      connection = this.#lease.connection
    } catch (error) {
      return query.reject(error)
    }
    connection.run(query)
  }
}

/**
 * One connection, yours alone until you release it.
 *
 * @example
 * ```ts
 * import { createPool } from 'millpond/postgres'
 *
 * const pool = createPool(process.env.DATABASE_URL)
 * {
 *   await using lease = await pool.acquire()
 *   await lease.sql`set statement_timeout = '2s'` // undone on release
 *   await lease.sql`select 1`
 * }
 * await pool.close()
 * ```
 */
export class PostgresLease<T extends Types = {}> implements AsyncDisposable {
  readonly #lease: Lease<Connection>
  readonly #template: Template
  #sql: PostgresSql<T> | undefined

  /** @internal Leases come from `pool.acquire()`. */
  constructor(lease: Lease<Connection>, template: Template) {
    this.#lease = lease
    this.#template = template
  }

  /** Runs queries on this connection, in the order in which they are run. After the release they reject. */
  get sql(): PostgresSql<T> {
    this.#sql ??= createSql<T>(this.#template, new LeaseTarget(this.#lease, this.#template.options.debug))
    return this.#sql
  }

  /** Same as `sql`. */
  get connection(): PostgresSql<T> {
    return this.sql
  }

  /** Whether `release()` or `destroy()` has been called. */
  get released(): boolean {
    return this.#lease.released
  }

  /** Cancels what runs and what waits on this connection: those queries reject with code 57014. */
  cancel(): void {
    this.#lease.connection.cancelAll()
  }

  /**
   * Gives the connection back. A query that still runs may finish within `resetTimeoutMs`; what the lease left behind
   * (an open transaction, settings, locks, temporary tables) is undone first. Never rejects. A second call does nothing.
   */
  release(): Promise<void> {
    return this.#lease.release()
  }

  /** Gives the connection back to be closed. */
  destroy(reason?: string): Promise<void> {
    return this.#lease.destroy(reason)
  }

  /** Same as `release()`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.release()
  }
}
