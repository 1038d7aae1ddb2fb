import type { Acquire } from '../acquire.ts'
import { asking } from '../borrowing.ts'
import { loopStops } from '../frozen-loop.ts'
import type { Lease } from '../lease.ts'
import type { Pool } from '../pool.ts'
import type { Connection } from './connection.ts'
import { KnownStatements } from './known-statements.ts'
import type { Pipelines } from './pipelines.ts'
import { holdBack, runHeldBack } from './held-back.ts'
import type { RawQuery, Target } from './query.ts'
import type { Transactions } from './transaction.ts'

/** Who holds a connection while he waits for another one. */
type Holders = Pick<Transactions, 'here' | 'naming'>

/**
 * Where queries go that nobody has acquired a connection for: each to any connection, which goes back when the answer
 * is complete. That is not when the query's promise settles.
 */
export class OneShots implements Target {
  readonly debug: unknown
  readonly #pool: Pool<Connection>
  readonly #owner: object
  readonly #looksFirst: boolean
  readonly #holders: Holders
  readonly #pipelines: Pipelines | undefined
  readonly #runOn: (lease: Lease<Connection>, query: RawQuery) => void
  readonly hold: ((query: RawQuery) => void) | undefined = loopStops() ? holdBack : undefined

  /** `looksFirst`: a hook takes its time over each connection; nothing can be had at once. `owner`: whose queries they are. */
  constructor(
    pool: Pool<Connection>,
    {
      debug,
      looksFirst,
      holders,
      owner = pool,
      pipelines,
    }: { debug: unknown; looksFirst: boolean; holders: Holders; owner?: object; pipelines?: Pipelines | undefined },
  ) {
    this.#pool = pool
    this.#owner = owner
    this.#looksFirst = looksFirst
    this.#holders = holders
    this.debug = debug
    // Each lease is to be looked at, and what is shared is one.
    this.#pipelines = loopStops() || looksFirst ? undefined : pipelines
    this.#runOn = loopStops() ? runHeldBack : runOn
  }

  run(query: RawQuery): void {
    if (this.#looksFirst) return this.#wait(query)
    let lease: Lease<Connection> | undefined
    try {
      lease = this.#pool.tryAcquire()
    } catch (error) {
      return query.reject(error)
    }
    if (lease) this.#take(streams(query) ? asking(this.#owner, query.origin)(lease) : lease, query)
    else if (!this.#pipelines?.share(query)) this.#wait(query)
  }

  #take(lease: Lease<Connection>, query: RawQuery): void {
    if (this.#pipelines && KnownStatements.allow(query)) this.#pipelines.run(lease, query)
    else this.#runOn(lease, query)
  }

  left(query: RawQuery): void {
    query.place?.leave()
  }

  shortOf(query: RawQuery, timeoutMs: number): unknown {
    return query.place?.shortage(timeoutMs)
  }

  #wait(query: RawQuery): void {
    let acquire: Acquire<Connection>
    try {
      acquire = this.#pool.wait()
    } catch (error) {
      return query.reject(this.#holders.naming(error))
    }
    if (this.#pipelines && KnownStatements.allow(query)) acquire.wanted = query
    // Its deadline is met in nobody's transaction.
    const holder = query.limits && this.#holders.here()
    // At the query, and not in a map: tables that a map has outgrown lead to those that it has now, and keep all in them.
    query.place = {
      leave: () => acquire.leave(undefined),
      shortage: (timeoutMs) => this.#holders.naming(this.#pool.shortOf(acquire, timeoutMs), holder),
    }
    const lent = streams(query) ? asking(this.#owner, query.origin) : undefined
    const waited = acquire.promise.then(
      (lease) => {
        query.place = undefined
        try {
          if (query.cancelled) return lease.release()
          this.#take(lent ? lent(lease) : lease, query)
        } catch (error) {
          query.reject(error)
        }
        return undefined
      },
      (error: unknown) => {
        query.place = undefined
        query.reject(this.#holders.naming(error, holder))
      },
    )
    if (this.hold) query.givenBack = waited
  }
}

/** Whoever reads or writes it says when it ends. */
function streams({ cursorFn, streaming }: RawQuery): boolean {
  return cursorFn !== undefined || streaming === true
}

function runOn(lease: Lease<Connection>, query: RawQuery): void {
  const release = (): void => void lease.release()
  // One that was cancelled may take its time to end: no longer than a release may.
  lease.connection.run(query, { done: release, stopped: release })
}
