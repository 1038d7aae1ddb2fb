import type { Acquire } from '../acquire.ts'
import type { Clock } from '../clock.ts'
import { orAborted } from '../deadline.ts'
import { AcquireTimeoutError, LeaseReleasedError, TransactionOutcomeUnknownError } from '../errors.ts'
import type { Lease } from '../lease.ts'
import type { AcquireOptions } from '../pool.ts'
import { codeOf } from './connect-error.ts'
import type { Connection } from './connection.ts'
import { Scope } from './scope.ts'
import type { House, TransactionSql } from './scope.ts'
import { LeasedGround } from './scope-ground.ts'
import type { Queued } from './scope-ground.ts'
import type { Types } from './sql.ts'
import { beginStatement, checkSavepointOptions, checkTransactionOptions } from './transaction-options.ts'
import type { SessionOptions, TransactionOptions } from './transaction-options.ts'
import { Limit } from './transaction-limit.ts'

const firstPauseMs = 10
const longestPauseMs = 1_000

/** What the server says to the one of two transactions that stand in each other's way. */
const conflicts: ReadonlySet<string> = new Set(['40001', '40P01'])

type Callback<T extends Types, R> = (sql: TransactionSql<T>) => R | PromiseLike<R>

/** How a pool lends connections to its transactions. */
export interface Lender {
  /** One that can be had at once, or undefined. Throws as `acquire` rejects. */
  tryAcquire: () => Lease<Connection> | undefined
  acquire: (options: AcquireOptions) => Promise<Lease<Connection>>
  /** As `acquire`, for somebody who may leave without a signal. */
  wait: () => Acquire<Connection>
  /** To be called where a transaction is made; what it returns is told of its lease. */
  lent?: () => Lend
}

type Lend = (lease: Lease<Connection>) => Lease<Connection>

/** The transactions of one pool. */
export class Transactions<T extends Types = {}> {
  readonly #house: House
  readonly #lender: Lender

  constructor(house: House, lender: Lender) {
    this.#house = house
    this.#lender = lender
  }

  /** A savepoint of the transaction that the caller is in; else a transaction of its own. */
  async run<R>(fn: Callback<T, R>, options: TransactionOptions): Promise<R> {
    checkTransactionOptions(options)
    const around = options.independent ? undefined : this.#house.ambient.joined
    const limit = this.limit(options)
    limit.start()
    try {
      if (!around) return await this.#retried(fn, options, limit)
      if (around.ended) throw new LeaseReleasedError(this.#house.pool, 'ambient')
      checkSavepointOptions(options, around.options)
      return await attempt(around.within({ readOnly: options.readOnly }), fn, options, limit)
    } finally {
      limit.stop()
    }
  }

  limit({ timeoutMs, signal }: SessionOptions): Limit {
    const { pool, clock } = this.#house
    return new Limit({ pool, clock, timeoutMs, signal })
  }

  /** A transaction that has not begun. */
  scope(options: SessionOptions, limit: Limit): Scope {
    // It is bound by what is around it here, wherever its first query will be run.
    const { deadlines } = this.#house.template
    const around = deadlines?.here
    const bound = (wanted: AcquireOptions): AcquireOptions => (around ? deadlines.acquiring(wanted, around) : wanted)
    const { tryAcquire, acquire } = this.#lender
    const lent = this.#lender.lent?.() ?? itself
    const ground = new LeasedGround(beginStatement(options), {
      now() {
        limit.start()
        limit.signalIfAny?.throwIfAborted()
        if (around) deadlines.leftFor(around)
        const lease = tryAcquire()
        return lease && lent(lease)
      },
      wait: () => {
        if (!around && options.timeoutMs === undefined) return this.#wait(lent)
        const waiting = new AbortController()
        const { signal } = waiting
        const promise = limit.acquiring((timeoutMs) =>
          acquire(bound(timeoutMs === undefined ? { signal } : { signal, timeoutMs })),
        )
        return { promise: promise.then(lent), leave: (why) => waiting.abort(why) }
      },
    })
    return new Scope(this.#house, ground, options)
  }

  /** Without a deadline or a signal of anybody's. */
  #wait(lent: Lend): Queued {
    const holder = this.here()
    const acquire = this.#lender.wait()
    const promise = acquire.promise.then(lent, (error: unknown) => {
      throw this.naming(error, holder)
    })
    return { promise, leave: (why) => acquire.leave(why) }
  }

  /** The transaction or session that the caller is in, and that has a lease. */
  here(): Scope | undefined {
    for (const scope of this.#house.ambient.around()) if (scope.lease) return scope
    return undefined
  }

  /** An acquire's error, which names the lease that its caller holds, if that is a transaction's or a session's. */
  naming(error: unknown, holder: Scope | undefined = this.here()): unknown {
    if (!(error instanceof AcquireTimeoutError) || error.holds || error.stats.name !== this.#house.pool) return error
    const lease = holder?.lease
    if (!lease) return error
    const { tag, since, acquiredAt } = lease.origin
    const holds = { connection: tag, heldMs: this.#house.clock.now() - since, acquiredAt }
    const { phase, waitedMs, timeoutMs, stats, cause } = error
    return new AcquireTimeoutError({ phase, waitedMs, timeoutMs, stats, cause, holds })
  }

  async #retried<R>(fn: Callback<T, R>, options: TransactionOptions, limit: Limit): Promise<R> {
    const { retries = 0 } = options
    let last: { readonly error: unknown } | undefined
    for (let failures = 0; ; failures++) {
      const scope = this.scope(options, limit)
      try {
        return await attempt(scope, fn, options, limit)
      } catch (error) {
        // The time is up, and the server's own error says more.
        if (last && isUp(limit, error)) throw last.error
        if (failures >= retries || !isConflict(error, scope)) throw error
        last = { error }
      }
      const pauseMs = Math.min(longestPauseMs, firstPauseMs * 2 ** failures) * (0.5 + Math.random() / 2)
      if (limit.signal.aborted || pauseMs >= (limit.leftMs ?? Infinity)) throw last.error
      await orAborted(paused(this.#house.clock, pauseMs), limit.signal).catch(() => {
        throw last?.error
      })
    }
  }
}

/** Runs `fn` in a scope from its beginning to its end. */
async function attempt<T extends Types, R>(
  scope: Scope,
  fn: Callback<T, R>,
  { lazy = false, rollback = false }: TransactionOptions,
  { signalIfAny: signal }: Limit,
): Promise<R> {
  try {
    signal?.throwIfAborted()
    if (!lazy) await orAborted(scope.begin(), signal)
    // The pool's types are those of its template.
    const result = await orAborted<R>(scope.call(fn as unknown as Callback<{}, R>), signal)
    if (rollback) {
      await scope.drained(signal)
      await scope.rollback()
    } else await scope.commit(signal)
    return result
  } catch (error) {
    const shown = scope.explain(error)
    await scope.rollback(signal?.aborted ? signal.reason : undefined)
    throw shown
  }
}

function itself<V>(value: V): V {
  return value
}

function isConflict(error: unknown, scope: Scope): boolean {
  if (error instanceof TransactionOutcomeUnknownError) return false
  // The callback may have thrown something of its own instead; the transaction has failed all the same.
  return [error, scope.failure].some((one) => conflicts.has(codeOf(one) ?? ''))
}

function isUp({ signal, leftMs }: Limit, error: unknown): boolean {
  if (signal.aborted) return error === signal.reason
  return error instanceof AcquireTimeoutError && leftMs === 0
}

function paused(clock: Clock, ms: number): Promise<void> {
  return new Promise((resolve) => {
    clock.setTimer(resolve, ms)
  })
}
