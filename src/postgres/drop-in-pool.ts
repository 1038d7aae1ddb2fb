import { setTimeout as timer } from 'node:timers/promises'
import { systemClock } from '../clock.ts'
import type { Clock } from '../clock.ts'
import { deferred } from '../deferred.ts'
import type { Deferred } from '../deferred.ts'
import { ConnectError } from '../errors.ts'
import { loopStops } from '../frozen-loop.ts'
import { Pool } from '../pool.ts'
import { Watch } from '../watch.ts'
import { startedBy } from './aim.ts'
import { Ambient } from './ambient.ts'
import { OutsideDriver, callsOutside } from './ambient-outside.ts'
import type { Connection } from './connection.ts'
import { Deadlines } from './deadlines.ts'
import { asPostgresJs, connectionError, generic } from './drop-in-errors.ts'
import { openLargeObject } from './large-object.ts'
import type { LargeObject } from './large-object.ts'
import { LeaseTarget } from './lease.ts'
import { Listening } from './listen.ts'
import { HearingTemplate } from './listen-template.ts'
import { OneShots } from './one-shots.ts'
import { parseOptions } from './options.ts'
import type { PostgresPoolOptions, PostgresSettings } from './options.ts'
import { named } from './pool.ts'
import { QueryEvents } from './query-events.ts'
import { settleBy } from './query.ts'
import type { RawQuery } from './query.ts'
import type { Scope, TransactionSql } from './scope.ts'
import { PostgresSession } from './session.ts'
import { learning, poolSql } from './sql-face.ts'
import type { FaceHouse, Listened, PoolSql, Reserved } from './sql-face.ts'
import { createSql } from './sql.ts'
import type { Types } from './sql.ts'
import { Transactions } from './transaction.ts'
import type { TransactionOptions } from './transaction-options.ts'

/** Fails those who wait with each failure to connect, as postgres.js does, unless others will serve them. */
class FailingDriver extends OutsideDriver {
  /** Whether there are connections that will be free some time, or others that may come to be. */
  serves: () => boolean = () => false

  override async open(options: { signal: AbortSignal; tag: string }): Promise<Connection> {
    try {
      return await super.open(options)
    } catch (error) {
      if (!(error instanceof ConnectError) || this.serves()) throw error
      const { message, doubtful, full, cause } = error
      throw new ConnectError(message, { doubtful, full, cause, retryable: false })
    }
  }
}

/**
 * The pool behind one instance of the drop-in: what `postgres()` promises, over the parts of `createPool()`.
 *
 * State
 *   running   its queries, transactions and reserves that are under way
 *   ending    `end()` was called: nothing new is taken, what is under way finishes
 *   endsAt    when what is still under way then will be ended
 */
class DropInPool implements FaceHouse {
  readonly template: HearingTemplate
  readonly settings: PostgresSettings
  readonly parameters: Record<string, string> = {}
  readonly inside = false
  readonly oneShots: OneShots
  readonly #pool: Pool<Connection>
  readonly #clock: Clock
  readonly #driver: FailingDriver
  readonly #transactions: Transactions
  readonly #manyConnections: boolean
  #listeners: { readonly pool: Pool<Connection>; readonly listening: Listening } | undefined
  #running = 0
  #ending: Promise<void> | undefined
  #endsAt = Infinity
  #still: Deferred<void> | undefined

  constructor(url: string | undefined, options: PostgresPoolOptions) {
    const settings = callsOutside(learning(parseOptions(url, options), this.parameters))
    this.settings = settings
    this.template = new HearingTemplate(settings)
    this.#driver = new FailingDriver(settings, this.template)
    this.#pool = this.#newPool({})
    this.#driver.serves = () => {
      const { open, opening } = this.#pool.stats()
      // The one that has failed is among those that open.
      return open > 0 || opening > 1
    }
    // One after the other are many, too.
    this.#manyConnections = this.#pool.stats().max > 1 || loopStops()
    const { name } = this.#pool
    const { clock = systemClock, resetTimeoutMs = 5_000, acquireTimeoutMs = Infinity, log } = settings.pool
    this.#clock = clock
    const looksFirst = settings.hooks.onAcquire !== undefined
    const ambient = new Ambient<Scope>(false)
    const house = { pool: name, template: this.template, ambient, clock, commitGraceMs: resetTimeoutMs }
    this.#transactions = new Transactions(house, {
      tryAcquire: () => (looksFirst ? undefined : this.#pool.tryAcquire()),
      acquire: (wanted) => this.#pool.acquire(wanted),
      wait: () => this.#pool.wait(),
    })
    this.oneShots = new OneShots(this.#pool, {
      debug: this.template.options.debug,
      looksFirst,
      holders: this.#transactions,
    })
    const { queryTimeoutMs, queryText } = settings
    this.template.deadlines = new Deadlines({
      clock,
      queryTimeoutMs,
      acquireTimeoutMs,
      stats: () => this.#pool.stats(),
    })
    this.template.events = new QueryEvents({ watch: new Watch(name, log), clock, queryText })
  }

  // ── What the tag's members do ──────────────────────────────────────────────────────────────────────────────────

  begin<R>(fn: (sql: TransactionSql) => Promise<R>, options: TransactionOptions): Promise<R> {
    return this.#counted(() => this.#transactions.run(fn, options))
  }

  reserve(): Promise<Reserved> {
    return this.#counted(async () => {
      const lease = await this.#pool.acquire()
      const sql = createSql<{}>(this.template, new LeaseTarget(lease, this.template.options.debug))
      return { sql, release: () => lease.release() }
    })
  }

  largeObject(oid?: number, mode?: number): Promise<LargeObject> {
    return this.#counted(async () => {
      const limit = this.#transactions.limit({})
      const session = new PostgresSession(this.#pool.name, this.#transactions.scope({}, limit), limit)
      const { sql } = session
      const ground = { sql, commit: () => session.commit(), rollback: () => session.rollback() }
      return await openLargeObject(ground, oid, mode)
    })
  }

  listen(channel: string, fn: (payload: string) => void, again: () => void): Promise<Listened> {
    return this.#counted(async () => {
      this.#listeners ??= this.#newListeners()
      const { listening } = this.#listeners
      // Whoever listens expects to be there, as with any open connection of postgres.js.
      const options = { onGap: again, keepAlive: true }
      const listener = await listening.listen(channel, (payload) => fn(payload), options)
      return { state: listening.state, unlisten: () => listener.unlisten() }
    })
  }

  end(timeoutMs: number | undefined): Promise<void> {
    this.#ending ??= this.#end(timeoutMs)
    return this.#ending
  }

  async close(): Promise<void> {
    this.#pool.evict()
    this.#listeners?.listening.renew()
    await this.#pool.releaseIdle()
  }

  /** Its errors are to be postgres.js's; those on connections of their own are counted. */
  touch(query: RawQuery, own: boolean): void {
    const { aim } = query
    if (!aim) return
    query.aim = startedBy(aim, () => {
      const { reject, resolve } = query
      if (own && this.#ended) return reject(this.#endedError())
      const done = own ? this.#count() : noop
      settleBy(query, {
        reject: (error) => {
          done()
          reject(this.#shown(error))
        },
        resolve: (value) => {
          done()
          if (own && this.#manyConnections && begins(value)) {
            reject(generic('UNSAFE_TRANSACTION', 'Only use sql.begin, sql.reserved or max: 1'))
          } else resolve(value)
        },
      })
      aim.start(query)
    })
  }

  // ── Its end ────────────────────────────────────────────────────────────────────────────────────────────────────

  #ended = false

  async #end(timeoutMs: number | undefined): Promise<void> {
    // What was run before in the same turn is on its way, but has not come here yet.
    await Promise.resolve()
    this.#ended = true
    const startedAt = this.#clock.now()
    const stop = new AbortController()
    if (timeoutMs !== undefined) this.#endsAt = startedAt + timeoutMs
    this.#listeners?.listening.close()
    await Promise.race([
      this.#quiet(),
      ...(timeoutMs === undefined ? [] : [timer(timeoutMs, undefined, { signal: stop.signal }).catch(noop)]),
    ])
    stop.abort()
    const leftMs = timeoutMs === undefined ? Infinity : Math.max(0, this.#endsAt - this.#clock.now())
    await Promise.all([this.#pool.close({ timeoutMs: leftMs }), this.#listeners?.pool.close({ timeoutMs: 0 })])
  }

  async #quiet(): Promise<void> {
    if (this.#running === 0) return
    this.#still = deferred()
    await this.#still.promise
  }

  #endedError(): Error {
    return connectionError('CONNECTION_ENDED', this.settings)
  }

  #count(): () => void {
    let counted = true
    this.#running++
    return () => {
      if (!counted) return
      counted = false
      if (--this.#running === 0) this.#still?.resolve()
    }
  }

  async #counted<R>(fn: () => Promise<R>): Promise<R> {
    // Queries that were run before in the same turn come first.
    await Promise.resolve()
    if (this.#ended) throw this.#endedError()
    const done = this.#count()
    try {
      return await fn()
    } catch (error) {
      throw this.#shown(error)
    } finally {
      done()
    }
  }

  #shown(error: unknown): unknown {
    return asPostgresJs(error, this.settings, this.#clock.now() >= this.#endsAt - 1)
  }

  // ── Its parts ──────────────────────────────────────────────────────────────────────────────────────────────────

  #newPool(bounds: { name?: string; min?: number; max?: number }): Pool<Connection> {
    const { pool, serverName } = this.settings
    return new Pool<Connection>({
      ...named({ ...pool, ...bounds }, serverName),
      ...this.#driver.hooks,
      driver: this.#driver,
    })
  }

  /** As in postgres.js, listeners have a connection beside the others. */
  #newListeners(): { pool: Pool<Connection>; listening: Listening } {
    const pool = this.#newPool({ name: `${this.#pool.name}-listen`, min: 0, max: 1 })
    const { acquireTimeoutMs = Infinity, log } = this.settings.pool
    const listening = new Listening({
      pool: pool.name,
      clock: this.#clock,
      watch: new Watch(pool.name, log),
      acquireTimeoutMs,
      acquire: (wanted) => pool.acquire(wanted),
      reserve: noop,
    })
    return { pool, listening }
  }
}

/** An instance of the drop-in. */
export function newDropIn(url: string | undefined, options: PostgresPoolOptions): PoolSql<Types> {
  const pool = new DropInPool(url, options)
  return poolSql(createSql<Types>(pool.template, pool.oneShots), pool)
}

/** Whether one of the statements was BEGIN: of several, there is an answer to each. */
function begins(value: unknown): boolean {
  if (typeof value !== 'object' || value === null) return false
  if ('command' in value) return value.command === 'BEGIN'
  return Array.isArray(value) && value.some(begins)
}

function noop(): void {}
