import type { Clock, Timer } from '../clock.ts'
import type { Lease } from '../lease.ts'
import type { Pool } from '../pool.ts'
import type { Connection } from './connection.ts'
import type { RawQuery } from './query.ts'

/** A connection that single queries share. */
interface Pipeline {
  readonly lease: Lease<Connection>
  readonly connection: Connection
  /** Queries that it is leased for. */
  queries: number
  /** When it was asked last whether somebody else is owed the connection. */
  judgedAt: number
  due: boolean
}

interface Details {
  readonly pool: Pool<Connection>
  readonly clock: Clock
  /** Unanswered queries on one connection, at the most. */
  readonly depth: number
}

/** So long after a query had to share a connection, one more connection is wanted. */
const pressedMs = 50
/** Whether somebody else is owed a connection is asked this often, while queries share it. */
const judgeMs = 5

/**
 * Queries that are sent behind others, where no connection is free.
 *
 * State
 *   open       the connections that are leased for single queries
 *   pressing   runs while the pool is told that one more would be of use
 *   shared     since it was looked at last, a query had to share
 *
 * Always: nobody who waits for a connection is overtaken, and what somebody else is owed gets no query more.
 */
export class Pipelines {
  readonly #details: Details
  readonly #open = new Set<Pipeline>()
  /** To whoever waits longest, for as long as that is asked. */
  #offering: Pipeline | undefined
  #pressing: Timer | undefined
  #shared = false

  constructor(details: Details) {
    this.#details = details
  }

  /** Runs the first query on a connection. */
  run(lease: Lease<Connection>, query: RawQuery): void {
    const { connection } = lease
    const pipeline = { lease, connection, queries: 1, judgedAt: this.#now(), due: false }
    this.#open.add(pipeline)
    // It is held for as long as there is something to do.
    lease.keep()
    const over = this.#over(pipeline)
    connection.run(query, { done: over, stopped: over })
    this.#offer(pipeline)
  }

  /** Sends a query behind others. False where it has to wait for a connection. */
  share(query: RawQuery): boolean {
    if (this.#details.pool.waiting > 0) return false
    const best = this.#best()
    return best !== undefined && this.#shareOn(best, query)
  }

  /** Sends a query behind others that has been waiting for a connection. */
  shareWaiting(query: RawQuery): boolean {
    return this.#offering !== undefined && this.#shareOn(this.#offering, query)
  }

  #shareOn(pipeline: Pipeline, query: RawQuery): boolean {
    if (this.#isDue(pipeline)) return false
    const over = this.#over(pipeline)
    if (!pipeline.connection.runBehind(query, { done: over, stopped: over })) return false
    pipeline.queries++
    this.#press()
    return true
  }

  /** The one with the fewest. */
  #best(): Pipeline | undefined {
    let best: Pipeline | undefined
    let fewest = this.#details.depth
    for (const pipeline of this.#open) {
      const { unanswered } = pipeline.connection
      if (unanswered >= fewest) continue
      best = pipeline
      fewest = unanswered
    }
    return best
  }

  /** Those who wait longest may share it. */
  #offer(pipeline: Pipeline): void {
    const { pool, depth } = this.#details
    if (pool.waiting === 0) return
    this.#offering = pipeline
    while (pipeline.connection.unanswered < depth && pool.offer());
    this.#offering = undefined
  }

  #isDue(pipeline: Pipeline): boolean {
    const now = this.#now()
    if (now - pipeline.judgedAt >= judgeMs) {
      pipeline.judgedAt = now
      pipeline.due ||= pipeline.lease.isDue
    }
    return pipeline.due
  }

  #now(): number {
    const { clock } = this.#details
    return clock.coarse?.() ?? clock.now()
  }

  /** A query that is over, or was stopped, is so once. */
  #over(pipeline: Pipeline): () => void {
    let over = false
    return () => {
      if (over) return
      over = true
      if (--pipeline.queries > 0) return this.#offer(pipeline)
      this.#open.delete(pipeline)
      void pipeline.lease.release()
    }
  }

  #press(): void {
    this.#shared = true
    if (!this.#pressing) this.#look()
  }

  readonly #look = (): void => {
    const { pool, clock } = this.#details
    this.#pressing = this.#shared ? clock.setTimer(this.#look, pressedMs, false) : undefined
    pool.press(this.#shared ? clock.now() : undefined)
    this.#shared = false
  }

  /** Nothing is wanted any more. */
  close(): void {
    this.#pressing?.cancel()
    this.#pressing = undefined
  }
}
