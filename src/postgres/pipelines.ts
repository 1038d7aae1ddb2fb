import type { Acquire } from '../acquire.ts'
import type { Clock, Timer } from '../clock.ts'
import { Deque } from '../deque.ts'
import type { Linked } from '../deque.ts'
import type { Lease } from '../lease.ts'
import type { Pool } from '../pool.ts'
import type { Connection } from './connection.ts'
import { rejectEarly } from './query.ts'
import type { RawQuery } from './query.ts'

/** A connection that single queries share. */
interface Pipeline {
  readonly lease: Lease<Connection>
  readonly connection: Connection
  /** Queries that it is leased for. */
  queries: number
  /** Whether somebody elsewhere is owed the connection, and when that was asked. */
  owed: boolean
  judgedAt: number
  /** Whose answer came next at the last look. */
  seen: RawQuery | undefined
  /** The same at the look before: nothing is sent behind that one. */
  stuck: RawQuery | undefined
}

/** A query that was sent behind others. */
class Shared implements Linked<Shared> {
  readonly query: RawQuery
  readonly pipeline: Pipeline
  /** Since when it has been waiting, and until when its turn has to come. */
  readonly since: number
  readonly deadlineAt: number
  next: Shared | undefined
  previous: Shared | undefined
  deque: object | undefined

  constructor(query: RawQuery, pipeline: Pipeline, { queuedAt, deadlineAt }: { queuedAt: number; deadlineAt: number }) {
    this.query = query
    this.pipeline = pipeline
    this.since = queuedAt
    this.deadlineAt = deadlineAt
  }
}

interface Details {
  readonly pool: Pool<Connection>
  readonly clock: Clock
  /** Unanswered queries on one connection, at the most. */
  readonly depth: number
  readonly acquireTimeoutMs: number
}

/** While there are any, all are looked at this often: an answer that takes from one look to the next is slow. */
const lookMs = 20
/** Whether somebody elsewhere is owed a connection is asked this often, while queries share it. */
const judgeMs = 5

/**
 * Queries that are sent behind others, where no connection is free.
 *
 * State
 *   open      the connections that are leased for single queries
 *   sharing   the queries that were sent behind others and are not over, oldest first
 *   shared    one of them came since the last look
 *   looking   runs while there is any of them, or was at the last look
 *   pressed   the pool has been told that it wants one more connection, since queries share
 *
 * Always: nobody who waits for a connection is overtaken. What is spent or owed to somebody elsewhere gets no query more,
 * nor does what is slow to answer: the query could be what the slow one waits for.
 */
export class Pipelines {
  readonly #details: Details
  readonly #open = new Set<Pipeline>()
  readonly #sharing = new Deque<Shared>()
  #shared = false
  #looking: Timer | undefined
  #pressed = false
  #closed = false

  constructor(details: Details) {
    this.#details = details
  }

  /** Runs the first query on a connection. */
  run(lease: Lease<Connection>, query: RawQuery): void {
    const { connection } = lease
    const judgedAt = this.#now()
    const pipeline = { lease, connection, queries: 1, owed: false, judgedAt, seen: undefined, stuck: undefined }
    this.#open.add(pipeline)
    if (!this.#looking) this.#lookLater()
    // It is held for as long as there is something to do.
    lease.keep()
    let over = false
    const done = (): void => {
      if (!over) this.#over(pipeline)
      over = true
    }
    connection.run(query, { done, stopped: done })
    this.#offer(pipeline)
  }

  /** Sends a query behind others. False where it has to wait for a connection. */
  share(query: RawQuery): boolean {
    const { pool, depth, acquireTimeoutMs } = this.#details
    if (pool.waiting > 0) return false
    const queuedAt = this.#now()
    const wait = { queuedAt, deadlineAt: queuedAt + acquireTimeoutMs }
    const best = this.#leastBusy(depth)
    if (!best) return false
    if (this.#send(best, query, wait)) return true
    // It does not know the statement, or is not to be used any more: another one may do.
    for (const other of this.#open) {
      if (other !== best && other.connection.unanswered < depth && this.#send(other, query, wait)) return true
    }
    return false
  }

  /** Nothing is wanted any more. */
  close(): void {
    this.#closed = true
    this.#looking?.cancel()
  }

  #leastBusy(depth: number): Pipeline | undefined {
    let best: Pipeline | undefined
    let fewest = depth
    for (const pipeline of this.#open) {
      const { unanswered } = pipeline.connection
      if (unanswered >= fewest || isStuck(pipeline)) continue
      best = pipeline
      fewest = unanswered
    }
    return best
  }

  /** Those who wait longest share it, but no more of them than it would have if all had as many. */
  #offer(pipeline: Pipeline): void {
    const { pool, depth } = this.#details
    if (pool.waiting === 0) return
    let queries = pool.waiting
    for (const { connection } of this.#open) queries += connection.unanswered
    const most = Math.min(depth, Math.ceil(queries / (this.#open.size + pool.opening)))
    while (pipeline.connection.unanswered < most) {
      const first: Acquire<Connection> | undefined = pool.firstWaiting
      if (!first) return
      const query = first.wanted as RawQuery
      if (!this.#send(pipeline, query, first)) return
      query.place = undefined
      pool.spare(first)
    }
  }

  #send(pipeline: Pipeline, query: RawQuery, wait: { queuedAt: number; deadlineAt: number }): boolean {
    const { lease, connection } = pipeline
    if (lease.isSpent || isStuck(pipeline) || this.#isOwed(pipeline)) return false
    const shared = new Shared(query, pipeline, wait)
    const done = (): void => {
      if (this.#sharing.remove(shared)) this.#over(pipeline)
    }
    if (!connection.runBehind(query, { done, stopped: done })) return false
    this.#sharing.pushBack(shared)
    pipeline.queries++
    lease.share()
    this.#shared = true
    if (!this.#pressed) this.#press(wait.queuedAt)
    return true
  }

  #isOwed(pipeline: Pipeline): boolean {
    const now = this.#now()
    if (now - pipeline.judgedAt >= judgeMs) {
      pipeline.judgedAt = now
      pipeline.owed ||= pipeline.lease.isOwed
    }
    return pipeline.owed
  }

  #now(): number {
    const { clock } = this.#details
    return clock.coarse?.() ?? clock.now()
  }

  /** A query is over, or was stopped. */
  #over(pipeline: Pipeline): void {
    if (--pipeline.queries > 0) return this.#offer(pipeline)
    this.#open.delete(pipeline)
    void pipeline.lease.release()
  }

  #lookLater(): void {
    if (!this.#closed) this.#looking = this.#details.clock.setTimer(this.#look, lookMs, false)
  }

  readonly #look = (): void => {
    this.#looking = undefined
    const now = this.#details.clock.now()
    if (this.#open.size > 0 || this.#shared) this.#lookLater()
    for (const pipeline of this.#open) {
      const { serving } = pipeline.connection
      pipeline.stuck = pipeline.seen === serving ? serving : undefined
      pipeline.seen = serving
    }
    for (const shared of Array.from(this.#sharing)) if (shared.deadlineAt <= now) this.#expire(shared)
    if (this.#shared || this.#sharing.size > 0) this.#press(now)
    else if (this.#pressed) this.#press(undefined)
    this.#shared = false
  }

  #press(since: number | undefined): void {
    this.#pressed = since !== undefined
    this.#details.pool.press(since)
  }

  /** Whose turn has come is not waited for any longer. */
  #expire({ query, pipeline, since, deadlineAt }: Shared): void {
    const { connection } = pipeline
    if (connection.serving === query) return
    rejectEarly(query, this.#details.pool.sparedTimedOut(since, deadlineAt - since))
    connection.cancel(query)
  }
}

function isStuck({ stuck, connection }: Pipeline): boolean {
  return stuck !== undefined && stuck === connection.serving
}
