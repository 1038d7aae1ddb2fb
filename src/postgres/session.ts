import { LeaseReleasedError, TransactionOutcomeUnknownError } from '../errors.ts'
import type { Scope, TransactionSql } from './scope.ts'
import type { Types } from './sql.ts'
import type { Limit } from './transaction-limit.ts'

/**
 * A transaction as a handle, from `pool.session()`: on a connection of its own, begun by its first query, rolled back
 * unless committed.
 *
 * State
 *   open → committing → committed
 *   open → rolled back             by `rollback()`, the end of its block, its `signal` or its `timeoutMs`
 *   committing → rolled back       when COMMIT, or something before it, has failed
 *
 * @example
 * ```ts
 * import { createPool } from 'millpond/postgres'
 *
 * const pool = createPool(process.env.DATABASE_URL)
 * {
 *   await using session = pool.session()
 *   await session.sql`update account set amount = amount - 1 where id = 1`
 *   await session.run(() => pool.sql`update account set amount = amount + 1 where id = 2`)
 *   await session.commit()
 * } // without the commit: rolled back here, also when something threw
 * await pool.close()
 * ```
 */
export class PostgresSession<T extends Types = {}> implements AsyncDisposable {
  readonly #pool: string
  readonly #scope: Scope
  readonly #limit: Limit
  #commit: Promise<void> | undefined
  #rolledBack: Promise<void> | undefined

  /** @internal Sessions come from `pool.session()`. */
  constructor(pool: string, scope: Scope, limit: Limit) {
    this.#pool = pool
    this.#scope = scope
    this.#limit = limit
    limit.signalIfAny?.addEventListener('abort', () => void this.#abort(), { once: true })
  }

  /** Runs queries in the transaction; the first one begins it. After the end they reject with `LeaseReleasedError`. */
  get sql(): TransactionSql<T> {
    // The pool's types are those of its template.
    return this.#scope.sql as unknown as TransactionSql<T>
  }

  /**
   * Calls `fn` inside the transaction: what it runs on `pool.sql` is part of it, and `pool.transaction()` a savepoint in
   * it. Neither commits nor rolls back. Rejects with `LeaseReleasedError` after the end.
   */
  async run<R>(fn: (sql: TransactionSql<T>) => R | PromiseLike<R>): Promise<R> {
    if (this.#scope.ended) throw new LeaseReleasedError(this.#pool, 'transaction')
    return this.#scope.call(fn as unknown as (sql: TransactionSql) => R | PromiseLike<R>)
  }

  /**
   * Lets what still runs finish, commits, and gives the connection back. Nothing is sent if no query was run.
   *
   * Rejects, rolled back, with the first error of a statement that has failed the transaction, or with what COMMIT was
   * answered with; with `TransactionOutcomeUnknownError` when the connection is lost after COMMIT was sent; with
   * `LeaseReleasedError` after a rollback. A second call returns the first one's promise.
   */
  commit(): Promise<void> {
    this.#commit ??= this.#finish()
    return this.#commit
  }

  /**
   * Ends what still runs, rolls back, and gives the connection back. Does nothing after a rollback, or a commit that
   * has failed. Rejects with `LeaseReleasedError` after a commit, with `TransactionOutcomeUnknownError` after one whose
   * outcome is not known.
   */
  async rollback(): Promise<void> {
    if (!this.#commit) return this.#rollback()
    let failure: unknown
    try {
      await this.#commit
    } catch (error) {
      failure = error
    }
    if (failure === undefined) throw new LeaseReleasedError(this.#pool, 'committed')
    if (failure instanceof TransactionOutcomeUnknownError) throw failure
  }

  /** Rolls back unless committed. Waits for a commit that is under way. Never rejects. */
  async [Symbol.asyncDispose](): Promise<void> {
    // Whoever called commit() hears of its failure.
    await this.rollback().catch(() => undefined)
  }

  async #finish(): Promise<void> {
    if (this.#rolledBack) {
      this.#limit.signalIfAny?.throwIfAborted()
      throw new LeaseReleasedError(this.#pool, 'rolled back')
    }
    const { signalIfAny: signal } = this.#limit
    try {
      await this.#scope.commit(signal)
    } catch (error) {
      await this.#rollback()
      throw this.#scope.explain(error)
    } finally {
      this.#limit.stop()
    }
  }

  #rollback(): Promise<void> {
    this.#limit.stop()
    const { signalIfAny: signal } = this.#limit
    this.#rolledBack ??= this.#scope.rollback(signal?.aborted ? signal.reason : undefined)
    return this.#rolledBack
  }

  /** While a commit is under way it hears the signal itself, and knows whether it is too late. */
  async #abort(): Promise<void> {
    if (!this.#commit) await this.#rollback()
  }
}
