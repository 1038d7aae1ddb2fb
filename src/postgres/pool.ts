import type postgres from 'postgres'
import { asking, running } from '../borrowing.ts'
import { systemClock } from '../clock.ts'
import { Pool } from '../pool.ts'
import type { AcquireOptions } from '../pool.ts'
import type { Lease } from '../lease.ts'
import type { PoolOptions } from '../options.ts'
import type { PoolStats } from '../stats.ts'
import { Watch } from '../watch.ts'
import { Ambient } from './ambient.ts'
import { OutsideDriver, callsOutside } from './ambient-outside.ts'
import type { Connection } from './connection.ts'
import { Deadlines, checkLimits } from './deadlines.ts'
import { openLargeObject } from './large-object.ts'
import type { LargeObject } from './large-object.ts'
import { PostgresLease } from './lease.ts'
import { Listening } from './listen.ts'
import type { PostgresListener } from './listen.ts'
import type { ListenOptions, OnNotification } from './listen-options.ts'
import { HearingTemplate } from './listen-template.ts'
import { OneShots } from './one-shots.ts'
import { parseOptions } from './options.ts'
import type { PostgresPoolOptions, PostgresSettings } from './options.ts'
import { Pipelines } from './pipelines.ts'
import type { QueryLimits, Target } from './query.ts'
import { QueryEvents } from './query-events.ts'
import type { Scope, TransactionSql } from './scope.ts'
import { PostgresSession } from './session.ts'
import { reserveInside } from './reserve.ts'
import { learning, poolSql } from './sql-face.ts'
import type { FaceHouse, PoolSql } from './sql-face.ts'
import { createSql } from './sql.ts'
import type { PostgresSql, Types } from './sql.ts'
import type { Template } from './template.ts'
import { Transactions } from './transaction.ts'
import { checkTransactionOptions } from './transaction-options.ts'
import type { SessionOptions, TransactionOptions } from './transaction-options.ts'

/** What `pool.query()` takes. */
export interface QueryOptions extends QueryLimits {
  /** Whether the server keeps the statement's plan: for texts that come again and again. @default false */
  readonly prepare?: boolean
}

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
  /**
   * Runs each query on any connection: acquired when the query runs, released when its answer is complete. One that is
   * made inside a transaction or a session of this pool (`transaction()`, `session().run()`) belongs to that, whenever it
   * runs: after the end it rejects with `LeaseReleasedError`.
   */
  readonly sql: PoolSql<T>
  readonly #pool: Pool<Connection>
  readonly #template: Template
  readonly #ambient: Ambient<Scope>
  readonly #transactions: Transactions<T>
  readonly #pipelines: Pipelines | undefined
  readonly #listening: Listening
  /** An idle connection, where nothing is to be done before it may be lent. */
  readonly #atOnce: () => Lease<Connection> | undefined
  /** As the user wants them; the connection of listeners is one more. */
  #bounds: { min: number; max: number }
  #listens = false
  readonly #deadlines: Deadlines
  readonly #target: () => Target

  /** Throws a `TypeError` or `RangeError` with `code: 'ERR_OPTION'`. Does no I/O. */
  constructor(url: string | URL | undefined, options?: PostgresPoolOptions<T>) {
    const parameters: Record<string, string> = {}
    const settings = callsOutside(learning(parseOptions(url, options), parameters))
    this.#template = new HearingTemplate(settings)
    const driver = new OutsideDriver(settings, this.#template)
    this.#pool = new Pool<Connection>({ ...named(settings.pool, settings.serverName), ...driver.hooks, driver })
    const { min, max } = this.#pool.stats()
    this.#bounds = { min, max }
    const { debug } = this.#template.options
    const looksFirst = settings.hooks.onAcquire !== undefined
    this.#atOnce = () => (looksFirst ? undefined : this.#pool.tryAcquire())
    this.#ambient = new Ambient<Scope>(settings.ambient)
    const house = {
      pool: this.name,
      template: this.#template,
      ambient: this.#ambient,
      clock: settings.pool.clock ?? systemClock,
      commitGraceMs: settings.pool.resetTimeoutMs ?? 5_000,
    }
    this.#transactions = new Transactions<T>(house, {
      tryAcquire: () => this.#atOnce(),
      acquire: (wanted) => this.#pool.acquire(wanted).catch(this.#nameHeld),
      wait: () => this.#pool.wait(),
      lent: () => asking(this),
    })
    const { pipelining: depth } = settings
    const { acquireTimeoutMs = 30_000 } = settings.pool
    if (depth > 1) this.#pipelines = new Pipelines({ pool: this.#pool, clock: house.clock, depth, acquireTimeoutMs })
    const oneShots = new OneShots(this.#pool, {
      debug,
      looksFirst,
      holders: this.#transactions,
      owner: this,
      pipelines: this.#pipelines,
    })
    this.#deadlines = new Deadlines({
      clock: house.clock,
      queryTimeoutMs: settings.queryTimeoutMs,
      acquireTimeoutMs,
      stats: () => this.stats(),
    })
    this.#template.deadlines = this.#deadlines
    const watch = new Watch(this.name, settings.pool.log)
    this.#template.events = new QueryEvents({ watch, clock: house.clock, queryText: settings.queryText })
    this.#listening = new Listening({
      pool: this.name,
      clock: house.clock,
      watch,
      acquireTimeoutMs,
      acquire: (wanted) => this.#pool.acquire(wanted),
      reserve: (on) => this.#bound(this.#bounds, on),
    })
    this.#target = () => this.#ambient.joined?.ambient ?? oneShots
    this.sql = poolSql(createSql<T>(this.#template, this.#target), this.#face(settings, parameters))
  }

  /**
   * Calls `fn` for everything that is sent on a channel (`sql.notify()`, `NOTIFY`), from when this resolves until
   * `unlisten()`, the end of a block with `await using`, `signal`, or the pool's `close()`. The name is taken as it is,
   * upper and lower case differ.
   *
   * All listeners of a pool share one connection. It is one of the pool's `max` and of the limit, and counts to `min` in
   * addition to what the option says. Where it is lost, they listen again on another one, with the pool's pauses between
   * failures; what was sent meanwhile is lost, which `onGap` tells. `fn` runs outside of transactions; what it throws,
   * or rejects with, becomes the event `millpond:listener-error`, or a warning. Keeps no process alive, unless
   * `keepAlive` says so.
   *
   * Rejects as `acquire()` does; with `ERR_BROKER_MISMATCH` where the limit has no room for one more `min`; with the
   * server's error (a standby cannot listen); with `signal.reason`; with `ERR_OPTION`.
   *
   * @example
   * ```ts
   * import { createPool } from 'millpond/postgres'
   *
   * const pool = createPool(process.env.DATABASE_URL)
   * const prices = new Map<string, number>()
   * const listener = await pool.listen('price', (id) => prices.delete(id), { onGap: () => prices.clear() })
   * await pool.transaction((sql) => sql.notify('price', 'tea')) // heard after COMMIT
   * await listener.unlisten()
   * await pool.close()
   * ```
   */
  listen(channel: string, fn: OnNotification, options: ListenOptions = {}): Promise<PostgresListener> {
    return this.#listening.listen(channel, fn, options)
  }

  get name(): string {
    return this.#pool.name
  }

  /** Resolves when `min` connections are open; rejects with an error that retrying cannot cure. Not needed first. */
  open(): Promise<void> {
    return this.#pool.open()
  }

  /**
   * Runs one query, at once: `$1`, `$2`… in its text stand for `parameters`. Without any, the text may be several
   * statements. Resolves to its rows, with `count` and `columns`, as `sql.unsafe()` does; rejects with the server's
   * error (`sql.PostgresError`), as an acquire does, with a `QueryTimeoutError`, or with `signal.reason`.
   *
   * @example
   * ```ts
   * import { createPool } from 'millpond/postgres'
   *
   * const pool = createPool(process.env.DATABASE_URL)
   * const orders = await pool.query<{ id: number }>('select id from orders where total > $1', [100], { timeoutMs: 500 })
   * console.log(orders.count, orders[0]?.id)
   * await pool.close()
   * ```
   */
  async query<R extends object = postgres.Row>(
    text: string,
    parameters: readonly unknown[] = [],
    { prepare = false, ...limits }: QueryOptions = {},
  ): Promise<postgres.RowList<R[]>> {
    const { sql } = Object.keys(limits).length === 0 ? this : this.with(limits)
    return await sql.unsafe<R[]>(text, [...parameters] as never[], { prepare })
  }

  /** A tag for queries that each end in time, waiting for a connection included. Cancels them on the server. */
  with(limits: QueryLimits): { readonly sql: PostgresSql<T> } {
    return { sql: createSql<T>(this.#template, this.#target, checkLimits(limits)) }
  }

  /**
   * Runs `fn` with one deadline for everything inside, until it settles: queries of this pool, on whichever tag, and
   * acquires. At the deadline those that run or wait reject with `QueryTimeoutError` (with `AcquireTimeoutError`, where
   * one waits for a connection to hold), or with `signal.reason`, and are cancelled on the server; `fn` itself goes on.
   * A COMMIT that was sent is waited for.
   *
   * @example
   * ```ts
   * import { createPool } from 'millpond/postgres'
   *
   * const pool = createPool(process.env.DATABASE_URL)
   * const report = async () => [await pool.sql`select 1`, await pool.sql`select 2`]
   * console.log(await pool.within({ timeoutMs: 2_000 }, report))
   * await pool.close()
   * ```
   */
  within<R>(limits: QueryLimits, fn: () => R | PromiseLike<R>): Promise<R> {
    return this.#deadlines.within(limits, fn)
  }

  /** Waits for a connection, first come, first served. Rejects with `AcquireTimeoutError` at the deadline. */
  acquire(options?: AcquireOptions): Promise<PostgresLease<T>> {
    let limits: AcquireOptions
    try {
      limits = this.#deadlines.acquiring(options)
      const lease = limits.signal?.aborted ? undefined : this.#atOnce()
      if (lease) return Promise.resolve(new PostgresLease<T>(asking(this)(lease), this.#template))
    } catch (error) {
      return Promise.reject(error)
    }
    return running(this.#later(limits))
  }

  async #later(limits: AcquireOptions): Promise<PostgresLease<T>> {
    return new PostgresLease<T>(await this.#wait(limits), this.#template)
  }

  /** An idle connection that can be lent as it is, or undefined. Never waits. */
  tryAcquire(): PostgresLease<T> | undefined {
    const lease = this.#pool.tryAcquire()
    return lease && new PostgresLease<T>(asking(this)(lease), this.#template)
  }

  /** Acquires, calls `fn`, and releases, also when `fn` throws. */
  use<R>(
    fn: (sql: PostgresSql<T>, lease: PostgresLease<T>) => R | PromiseLike<R>,
    options?: AcquireOptions,
  ): Promise<R> {
    return running(this.#use(fn, options))
  }

  async #use<R>(
    fn: (sql: PostgresSql<T>, lease: PostgresLease<T>) => R | PromiseLike<R>,
    options: AcquireOptions | undefined,
  ): Promise<R> {
    const lent = asking(this)
    const use = this.#pool.use((_, held) => {
      const lease = new PostgresLease<T>(lent(held), this.#template)
      return fn(lease.sql, lease)
    }, this.#deadlines.acquiring(options))
    return use.catch(this.#nameHeld)
  }

  /**
   * Runs `fn` between BEGIN and COMMIT on one connection; ROLLBACK when it throws, or when one of its statements has
   * failed the transaction: then the first such error is thrown, even if `fn` caught it.
   *
   * Everything that `fn` calls, now or later, is inside: `pool.sql` runs in this transaction without being passed
   * around, and `transaction()` in it is a savepoint (`independent: true`: a transaction of its own). Queries of one
   * transaction run one after the other, also in `Promise.all`; none of them ever runs outside of it. What `fn` started
   * and did not await finishes before COMMIT; what comes after the end rejects with `LeaseReleasedError`.
   *
   * Rejects as `acquire()` does; with what `fn` has thrown; with the server's error; with `ConnectionLostError`, or
   * with `TransactionOutcomeUnknownError` if the connection is lost after COMMIT was sent; with `signal.reason`; with
   * a `PoolError` of the code `ERR_TRANSACTION_TIMEOUT` after `timeoutMs`. Once an attempt has failed that was worth
   * another one, the end of `retries`, of `timeoutMs` or by `signal` throws the last attempt's error.
   *
   * @example
   * ```ts
   * import { createPool } from 'millpond/postgres'
   *
   * const pool = createPool(process.env.DATABASE_URL)
   * const take = (id: number) => pool.sql`update account set amount = amount - 1 where id = ${id}`
   * await pool.transaction(
   *   async (sql) => {
   *     await take(1) // in the transaction, too
   *     await sql.savepoint((sql) => sql`update account set amount = amount + 1 where id = 2`)
   *   },
   *   { isolation: 'serializable', retries: 3 },
   * )
   * await pool.close()
   * ```
   */
  transaction<R>(fn: (sql: TransactionSql<T>) => R | PromiseLike<R>, options: TransactionOptions = {}): Promise<R> {
    return running(this.#transactions.run(fn, options))
  }

  /**
   * A transaction as a handle, on a connection of its own, also inside another transaction. Nothing is acquired before
   * its first query; `timeoutMs` counts from there. Throws `ERR_OPTION`.
   */
  session(options: SessionOptions = {}): PostgresSession<T> {
    checkTransactionOptions(options, 'session')
    const limit = this.#transactions.limit(options)
    return new PostgresSession<T>(this.name, this.#transactions.scope(options, limit), limit)
  }

  /** Runs `fn` outside of the transaction or session that the caller is in: its queries run on connections of their own. */
  outside<R>(fn: () => R): R {
    return this.#ambient.outside(fn)
  }

  /** Gives idle connections above `min` back now, and waits until they are closed: before a long synchronous stretch. */
  releaseIdle(): Promise<void> {
    return this.#pool.releaseIdle()
  }

  /** Retires every connection of today, for new credentials or after a failover: idle ones now, leased ones on release. */
  evict(): void {
    this.#pool.evict()
    this.#listening.renew()
  }

  /** New bounds. Takes no lease away. Throws `ERR_OPTION`, or `ERR_BROKER_MISMATCH` where the limit has no room. */
  resize({ min = this.#bounds.min, max = this.#bounds.max }: { min?: number; max?: number }): void {
    this.#bound({ min, max }, this.#listens)
  }

  /** A snapshot; cheap enough for every request. */
  stats(): PoolStats {
    return this.#pool.stats()
  }

  /** Lets leases finish until the deadline, then revokes them. Never rejects; a second call returns the first promise. */
  close(options?: { timeoutMs?: number }): Promise<{ revoked: number }> {
    const closing = this.#pool.close(options)
    this.#pipelines?.close()
    this.#listening.close()
    return closing
  }

  /** Same as `close()`. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  async #acquire(options?: AcquireOptions): Promise<Lease<Connection>> {
    return await this.#wait(this.#deadlines.acquiring(options))
  }

  #wait(limits: AcquireOptions): Promise<Lease<Connection>> {
    return this.#pool.acquire(limits).then(asking(this), this.#nameHeld)
  }

  #bound(bounds: { min: number; max: number }, listens: boolean): void {
    const { min, max } = bounds
    this.#pool.resize({ min: listens && min < max ? min + 1 : min, max })
    this.#bounds = bounds
    this.#listens = listens
  }

  /** What `sql` does beyond queries. */
  #face(settings: PostgresSettings, parameters: Readonly<Record<string, string>>): FaceHouse {
    const template = this.#template
    const ambient = this.#ambient
    return {
      template,
      settings,
      parameters,
      get inside() {
        return ambient.joined !== undefined
      },
      begin: (fn, options) => this.transaction(fn as unknown as (sql: TransactionSql<T>) => Promise<never>, options),
      reserve: async () => {
        const around = ambient.joined
        if (around) return reserveInside(this.name, around.ambient, template)
        const lease = await this.#acquire()
        return { sql: new PostgresLease(lease, template).sql, release: () => lease.release() }
      },
      listen: async (channel, fn, onGap) => {
        const listener = await this.listen(channel, (payload) => fn(payload), { onGap })
        return { state: this.#listening.state, unlisten: () => listener.unlisten() }
      },
      largeObject: (oid, mode) => this.#largeObject(oid, mode),
      end: (timeoutMs) => this.close(timeoutMs === undefined ? {} : { timeoutMs }),
      close: async () => {
        this.evict()
        await this.releaseIdle()
      },
    }
  }

  async #largeObject(oid: number | undefined, mode: number | undefined): Promise<LargeObject> {
    const around = this.#ambient.joined
    if (around) return await openLargeObject({ sql: around.sql, commit: nothing, rollback: nothing }, oid, mode)
    const session = this.session()
    const { sql } = session
    const ground = { sql, commit: () => session.commit(), rollback: () => session.rollback() }
    return await openLargeObject(ground, oid, mode)
  }

  readonly #nameHeld = (error: unknown): never => {
    throw this.#transactions.naming(error)
  }
}

async function nothing(): Promise<void> {}

/** @internal A limit without a name is that of the server. What is no limit at all is left to the pool to refuse. */
export function named(options: PoolOptions, serverName: string): PoolOptions {
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
